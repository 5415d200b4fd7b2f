"""What criterion measured, gathered into one file.

Criterion leaves a directory a bench, with `new/benchmark.json` (name, elements an iteration) and `new/estimates.json` (nanoseconds an
iteration; the slope of time over iterations where it was fitted, else the mean).
"""
import json
from pathlib import Path


def take(directory, path, about):
    """Writes `path` from criterion's `directory`."""
    benches = [bench(file.parent) for file in sorted(Path(directory).glob("**/new/benchmark.json"))]
    if not benches:
        raise SystemExit(f"{directory}: no benches of criterion; run make bench first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "benches": benches}, indent=1) + "\n")


def bench(directory):
    about = json.loads((directory / "benchmark.json").read_text())
    estimates = json.loads((directory / "estimates.json").read_text())
    nanos = (estimates.get("slope") or estimates["mean"])["point_estimate"]
    elements = (about.get("throughput") or {}).get("Elements")
    rate = scaled(elements / nanos * 1e9, [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")]) + "/s" if elements else ""
    time = scaled(nanos / (elements or 1), [(1e6, " ms"), (1e3, " us"), (1, " ns"), (1e-3, " ps")])
    return {"name": about["full_id"], "nanos": nanos, "elements": elements, "time": time, "rate": rate}


def scaled(value, units):
    """Three digits and a unit."""
    size, unit = next((u for u in units if value >= u[0]), units[-1])
    return f"{value / size:.3g}{unit}"
