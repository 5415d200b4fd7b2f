"""Results in JSON, as tables in RESULTS.md and as plots.

A table stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; only what is between them is written, so text around them stays.
Marks of a run that RESULTS.md does not have yet are appended to it, as a section to be edited by hand.
Rates and reads at a recall are read between the two measured points around it, the rate on a logarithmic scale.
"""
import json
import math
import re

import plot

NAMES = {"roxanne": "roxanne", "hnswlib": "hnswlib", "faiss": "faiss HNSW", "usearch": "usearch", "diskannpy": "DiskANN (C++, disk)"}
TARGETS = [0.90, 0.95, 0.99]
READ_TARGETS = [0.95, 0.956, 0.99]
TABLES = ["setting", "build", "search", "reads", "points", "floor", "plan", "graph"]


def write(directory, results_md):
    """Plots into `directory`; tables into `results_md`, or on standard output where there is none."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    if not found:
        raise SystemExit(f"{directory}: no results yet; run something first")
    systems = {name: found[name] for name in NAMES if name in found}
    tables = {f"{directory.name}-{kind}": globals()[kind + "_table"](found, systems) for kind in TABLES}
    draw(directory, systems)
    if results_md is None:
        print("\n".join(f"{name}\n{table}\n" for name, table in tables.items() if table))
        return
    text = results_md.read_text() if results_md.exists() else "# Results\n"
    missing = [name for name, table in tables.items() if table and f"<!-- begin:{name} -->" not in text]
    if missing:
        text += f"\n## {directory.name}\n" + "".join(f"\n<!-- begin:{name} -->\n<!-- end:{name} -->\n" for name in missing)
    for name, table in tables.items():
        text = between(text, name, table or "Not measured yet.")
    results_md.write_text(text)


def write_micro(path, results_md):
    """The table of the micro benches, between the marks of `micro`."""
    found = json.loads(path.read_text())
    m = found["machine"]
    rows = [[b["name"], b["time"], b["rate"]] for b in found["benches"]]
    text = f"{m['cpu']}, {found['date']}, commit {found['commit']}.\n\n" + table(["bench", "time", "rate"], rows)
    results_md.write_text(between(results_md.read_text(), "micro", text))


def between(text, name, table):
    """`text` with `table` between the marks of `name`, where it has them."""
    mark = re.compile(rf"(<!-- begin:{re.escape(name)} -->\n).*?(<!-- end:{re.escape(name)} -->)", re.DOTALL)
    return mark.sub(lambda m: m[1] + table.rstrip("\n") + "\n" + m[2], text)


def table(head, rows):
    """A Markdown table; the first column to the left, numbers to the right."""
    if not rows:
        return ""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines) + "\n"


def curve(result, value="qps", threads=None, cold=None):
    """(recall, value) of the points of one setting, in rising order of recall."""
    keep = [p for p in result["points"] if threads in (None, p.get("threads")) and p.get("cold") in (cold, None) and p.get(value) is not None]
    return sorted((p["recall"], p[value]) for p in keep)


def at_recall(points, recall, log=True):
    """The value of a curve at `recall`; None where it was not reached, or where even the first point is beyond it."""
    for (r0, v0), (r1, v1) in zip(points, points[1:]):
        if r0 <= recall <= r1 and r1 > r0:
            share = (recall - r0) / (r1 - r0)
            return math.exp(math.log(v0) + share * (math.log(v1) - math.log(v0))) if log and min(v0, v1) > 0 else v0 + share * (v1 - v0)
    return None


def most_threads(result):
    return max((p["threads"] for p in result["points"]), default=None)


def cold_of(name):
    """Ours is compared cold; DiskANN always is; in memory there is no cold."""
    return True if name in ("roxanne", "diskannpy") else None


def number(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def megabytes(value):
    return "" if not value else f"{value / 1e6:,.0f} MB"


def ratio(value, of):
    return "" if not value or not of else f"{value / of:.1f}x"


def setting_table(found, systems):
    lines = []
    for result in found.values():
        m, d = result["machine"], result["data"]
        line = (
            f"{d['base']}, {d['n']:,} x {d['dim']}, {d['queries']:,} queries, {d['metric']}. {m['cpu']}, {m['cores']} cores "
            f"({', '.join(m['simd'])}), {m['ram_bytes'] / 2**30:.0f} GiB, Linux {m['kernel']}, disk {m['disk']}."
        )
        if line not in lines:
            lines.append(line)
    runs = sorted({(r["run"], r["commit"]) for r in found.values()})
    if len(runs) == 1:
        lines.append(f"One run, begun {runs[0][0]}, commit {runs[0][1]}.")
    else:
        each = "; ".join(f"{', '.join(n for n, r in found.items() if (r['run'], r['commit']) == run)}: {run[0]}, {run[1]}" for run in runs)
        lines.append(f"Of several runs, so ratios between them are indications only. {each}.")
    load = max(r["load_before"] for r in found.values())
    if load > 0.5:
        lines.append(f"The machine was not idle (load {load:.1f} at the start): these figures are too low.")
    return "\n".join(lines) + "\n"


def settings_text(name, result):
    s = result["settings"]
    if name == "roxanne":
        p = result["index"]["params"]
        return f"R {p['degree']}, alpha {p['alpha']}, leaf k {p['leaf-k']}, reservoir {p['reservoir']}, {result['index']['code_bytes']}-byte codes"
    if name == "diskannpy":
        return f"R {s['graph_degree']}, L {s['complexity']}, {s['code_bytes']}-byte codes"
    return f"M {s['M']}, ef {s['ef_construction']}"


def build_table(found, systems):
    ours = systems.get("roxanne")
    rows = []
    for name, r in systems.items():
        b = r["build"]
        seconds = r["build"]["seconds"]
        # The peers' input lies in their process's memory and is theirs to give back; what they needed beyond it is the fairer figure.
        beyond = b["peak_rss_bytes"] - b.get("input_bytes", 0)
        rows.append(
            [
                NAMES[name],
                settings_text(name, r),
                r["settings"]["build_threads"],
                number(seconds, 1),
                ratio(seconds, ours["build"]["seconds"]) if ours else "",
                megabytes(beyond),
                megabytes(b.get("index_bytes")),
            ]
        )
    return table(["system", "settings", "threads", "seconds", "against ours", "peak memory beyond the input", "index on disk"], rows)


def search_table(found, systems):
    rows = []
    for name, r in systems.items():
        threads, cold = most_threads(r), cold_of(name)
        points = curve(r, threads=threads, cold=cold)
        if not points:
            continue
        memory = max(p["rss_bytes"] for p in r["points"])
        kind = "from disk, cold" if cold else "in memory"
        rows.append(
            [NAMES[name], kind, threads, *(number(at_recall(points, t)) for t in TARGETS), f"{points[-1][0]:.4f}", megabytes(memory)]
        )
    return table(["system", "", "threads", *(f"QPS at {t:.2f}" for t in TARGETS), "best recall", "memory"], rows)


def reads_table(found, systems):
    rows = []
    for name in ("roxanne", "diskannpy"):
        if name not in systems:
            continue
        r = systems[name]
        points = curve(r, "reads", most_threads(r), True)
        rows.append([NAMES[name], *(number(at_recall(points, t, log=False), 1) for t in READ_TARGETS)])
    return table(["reads of 4 KiB a query", *(f"at {t:g}" for t in READ_TARGETS)], rows)


def points_table(found, systems):
    r = systems.get("roxanne")
    if not r:
        return ""
    cells = {(p["threads"], p["cold"], p["list_size"]): p for p in r["points"]}
    threads = sorted({p["threads"] for p in r["points"]})
    series = [key for key in ((t, cold) for t in threads for cold in (True, False)) if any(c[:2] == key for c in cells)]
    rows = []
    for size in sorted({p["list_size"] for p in r["points"]}):
        p = cells.get((threads[-1], True, size))
        if not p:
            continue
        rates = [number((cells.get((*key, size)) or {}).get("qps")) for key in series]
        times = [number(p[key]) for key in ("mean_us", "p50_us", "p99_us", "p999_us")]
        rows.append([size, f"{p['recall']:.4f}", number(p["reads"], 1), number(p["distances"]), *rates, *times, megabytes(p["rss_bytes"])])
    rates = [f"QPS, {t} thread{'s' if t > 1 else ''}, {'cold' if cold else 'warm'}" for t, cold in series]
    return table(["list size", "recall", "reads", "distances", *rates, "mean us", "p50", "p99", "p99.9", "RSS"], rows)


def floor_table(found, systems):
    r = systems.get("roxanne")
    work = r and r["build"].get("work")
    if not work:
        return ""
    b, threads = r["build"], r["settings"]["build_threads"]
    rows = []
    for stage in ("assign", "leaf"):
        pairs, seconds = work[f"{stage}_pairs"], work[f"{stage}_seconds"]
        rate = pairs / seconds / threads if seconds else 0
        rows.append([stage, f"{pairs / 1e9:.2f}e9", f"{pairs / b['n']:,.0f}", f"{seconds:.2f}", f"{rate / 1e9:.2f}e9", share(seconds, b)])
    for stage in ("merge", "prune"):
        seconds = work[f"{stage}_seconds"]
        rows.append([stage, "", "", f"{seconds:.2f}", "", share(seconds, b)])
    rest = b["seconds"] - sum(work[f"{stage}_seconds"] for stage in ("assign", "leaf", "merge", "prune"))
    rows.append(["all else (read, codes, order, write)", "", "", f"{rest:.2f}", "", share(rest, b)])
    rows.append(["whole", "", "", f"{b['seconds']:.2f}", "", "100%"])
    phases = ", ".join(f"{p['name']} {p['seconds']:.2f}" for p in b["phases"])
    head = ["stage", "pairs", "pairs a vector", "seconds", "pairs/s a core", "share of the time"]
    return table(head, rows) + f"\nPhases, in seconds: {phases}.\n"


def share(seconds, built):
    return f"{100 * seconds / built['seconds']:.0f}%"


def plan_table(found, systems):
    r = systems.get("roxanne")
    if not r or "plan" not in r:
        return ""
    plan, built = r["plan"], r["build"]
    serve = max(p["rss_bytes"] for p in r["points"])
    rows = [
        ["peak memory of the build", plan["peak_ram_bytes"], built["peak_rss_bytes"]],
        ["index on disk", plan["index_bytes"], built["index_bytes"]],
        ["memory while serving", plan["serve_ram_bytes"], serve],
    ]
    return table(["", "planned", "measured", "error"], [[n, megabytes(p), megabytes(m), f"{100 * (p - m) / m:+.1f}%"] for n, p, m in rows])


def graph_table(found, systems):
    r = found.get("graph")
    if not r:
        return ""
    rows = [[f"{d['at_distances']:,.0f}", f"{d['roxanne']:.4f}", f"{d['vamana']:.4f}", f"{d['difference']:+.4f}"] for d in r["differences"]]
    s = r["summary"]
    built = {g["graph"]: f"{g['build_seconds']:.1f} s, mean degree {g['mean_degree']:.1f}" for g in r["graphs"]}
    text = f"\nn = {s['n']:,}, degree {s['degree']}, alpha {s['alpha']}; ours {built['roxanne']}; Vamana (L {s['vamana_list_size']}) {built['vamana']}.\n"
    return table(["distance computations", "recall, ours", "recall, Vamana", "difference"], rows) + text


def draw(directory, systems):
    """recall-qps.svg of all systems, recall-reads.svg of those on disk."""
    rates, reads = [], []
    for name, r in systems.items():
        threads, cold = most_threads(r), cold_of(name)
        label = NAMES[name] + (", from disk" if name == "roxanne" else "")
        rates.append((label, curve(r, threads=threads, cold=cold)))
        if cold:
            reads.append((NAMES[name], curve(r, "reads", threads, True)))
    some = next(iter(systems.values()), None)
    if not some:
        return
    d = some["data"]
    subtitle = f"{d['base']}: {d['n']:,} x {d['dim']}, {d['metric']}; {some['machine']['cpu']}, {most_threads(some)} threads"
    k = some["settings"]["k"]
    for file, title, label, series in (
        ("recall-qps.svg", "Recall against speed", "queries per second", rates),
        ("recall-reads.svg", "Recall against reads", "reads of 4 KiB a query", reads),
    ):
        series = [(name, points) for name, points in series if points]
        if series:
            (directory / file).write_text(plot.svg(title, subtitle, f"recall@{k}", label, series))
