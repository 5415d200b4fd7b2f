#!/usr/bin/env python3
"""Ours and the peers on one data set, in one run, on this machine; then a plot and the tables of RESULTS.md.

    bench/peers/run.py --name sift1m --base B.u8bin --queries Q.u8bin --truth T.bin --metric l2 \\
        --roxanne TARGET/debug/roxanne --graph-quality TARGET/debug/graph_quality \\
        --venv ENV --diskann-venv ENV2 --work DIR

One system after the other, nothing beside them. Each leaves bench/results/NAME/SYSTEM.json: command, machine, commit, date, settings,
build and points. A system whose file is there, complete and of the same settings and data is not run again (--fresh runs it), so an
interrupted run goes on where it stopped. --quick takes 20,000 vectors and 1,000 queries, to see that everything works; its figures
mean nothing, so they go to the directory of --work and RESULTS.md is left alone. --report only draws and writes, from what is there.
`--micro TARGET/criterion` takes over what `make bench` measured.

Rules: same base, queries and truth; the best of --repeats passes, for ours as for the peers; no static node cache and dropped page
caches for disk systems; ratios only within one run. The environments: requirements.txt and requirements-diskann.txt say how.
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import micro
import report

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"

GRAPH_LIST_SIZES = [16, 32, 64, 96, 128, 192, 256, 384]
DISK_LIST_SIZES = [12, 16, 24, 32, 48, 64, 96, 128]
QUICK_LIST_SIZES = [16, 32, 64]
HNSW = {"M": 16, "ef_construction": 200, "list_sizes": GRAPH_LIST_SIZES}
# Codes of the disk peer as wide as ours: min(dim, max(32, dim / 8)); filled in when the dimension is known.
DISKANN = {"graph_degree": 48, "complexity": 90, "beam_width": 4, "build_memory_gb": 16.0, "list_sizes": DISK_LIST_SIZES}
SYSTEMS = ["roxanne", "graph", "hnswlib", "faiss", "usearch", "diskannpy"]


def main():
    a = arguments()
    if a.micro:
        micro.take(a.micro, RESULTS / "micro.json", {"machine": machine(a.micro), "commit": commit(), "date": now()})
        return report.write_micro(RESULTS / "micro.json", HERE.parent / "RESULTS.md")
    directory = Path(a.work, "quick", a.name) if a.quick else RESULTS / a.name
    if not a.report:
        Path(a.work).mkdir(parents=True, exist_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        measure_all(a, directory)
    return report.write(directory, None if a.quick else HERE.parent / "RESULTS.md")


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--name", help="of the run: the directory under bench/results and the marks in RESULTS.md")
    a.add_argument("--base")
    a.add_argument("--queries")
    a.add_argument("--truth", help="computed where it is not given, and under --quick")
    a.add_argument("--metric", choices=["l2", "cos"], default="l2")
    a.add_argument("-k", type=int, default=10)
    a.add_argument("--threads", default="1,2", help="threads of the searches, each measured")
    a.add_argument("--build-threads", type=int, default=2)
    a.add_argument("--repeats", type=int, default=2)
    a.add_argument("--roxanne", help="the binary")
    a.add_argument("--graph-quality", help="the binary graph_quality of this crate")
    a.add_argument("--venv", help="environment of the in-memory peers")
    a.add_argument("--diskann-venv", help="environment of diskannpy")
    a.add_argument("--work", help="a directory on the disk that is measured; indexes and logs go there")
    a.add_argument("--only", default=",".join(SYSTEMS), help="some of " + ",".join(SYSTEMS))
    a.add_argument("--graph-limit", type=int, default=200_000, help="vectors that graphs are compared on; 0 is all")
    a.add_argument("--micro", help="criterion's directory")
    a.add_argument("--quick", action="store_true")
    a.add_argument("--fresh", action="store_true", help="run what has a result already")
    a.add_argument("--report", action="store_true", help="measure nothing")
    a = a.parse_args()
    a.only = a.only.split(",")
    unknown = set(a.only) - set(SYSTEMS)
    if unknown:
        raise SystemExit(f"--only: no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    if not a.micro and not a.name:
        raise SystemExit("--name is needed (or --micro)")
    if not a.micro and not a.report and not (a.base and a.queries and a.work):
        raise SystemExit("--base, --queries and --work are needed (or --report)")
    a.limit, a.queries_limit = (20_000, 1_000) if a.quick else (None, None)
    if a.quick:
        a.repeats = 1
    return a


def measure_all(a, directory):
    data = describe_data(a)
    print(f"{a.name}: {data['n']} x {data['dim']}, {data['queries']} queries, {a.metric}", file=sys.stderr)
    about = {"machine": machine(a.work), "commit": commit(), "run": now(), "data": data}
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"warning: something else runs here (load {busy:.1f}); these figures will not be the machine's", file=sys.stderr)
    failed = []
    for system in [s for s in SYSTEMS if s in a.only]:
        settings = settings_of(system, a, data)
        path = directory / f"{system}.json"
        if not a.fresh and is_done(path, settings, data):
            print(f"{system}: there already, of the same settings and data; --fresh runs it again", file=sys.stderr)
            continue
        print(f"{system}: running", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            result = run_system(system, a, settings, data)
        except (Failed, OSError) as error:
            print(f"{system}: {error}", file=sys.stderr)
            failed.append(system)
            continue
        result = {"system": system, "settings": settings, "load_before": busy, "date": now(), **about, **result}
        write_whole(path, json.dumps(result, indent=1) + "\n")
        print(f"{system}: done in {time.monotonic() - start:.0f} s, {path}", file=sys.stderr)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what was measured is kept, run again for the rest")


class Failed(Exception):
    """A system that could not be measured, and why."""


def settings_of(system, a, data):
    """What a system is run with; a change makes its old result another one's."""
    common = {"k": a.k, "threads": a.threads, "build_threads": a.build_threads, "repeats": a.repeats}
    own = {"roxanne": {"list_sizes": DISK_LIST_SIZES, "beam_width": 4}, "graph": {"limit": a.limit or a.graph_limit}, "diskannpy": DISKANN}.get(system, HNSW)
    if system == "diskannpy":
        own = {**own, "code_bytes": min(data["dim"], max(32, data["dim"] // 8))}
    if a.quick and "list_sizes" in own:
        own = {**own, "list_sizes": QUICK_LIST_SIZES}
    return {**own, **common}


def is_done(path, settings, data):
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return found["settings"] == settings and found["data"] == data


def run_system(system, a, settings, data):
    if system in ("roxanne", "graph"):
        binary = a.roxanne if system == "roxanne" else a.graph_quality
        if not binary or not os.access(binary, os.X_OK):
            raise Failed(f"no binary {binary}; build it and give it with --{'roxanne' if system == 'roxanne' else 'graph-quality'}")
        return ours(a, settings, truth_of(a)) if system == "roxanne" else graph(a, settings, data)
    return peer(system, a, settings)


def ours(a, settings, truth):
    """Plan, build, then eval cold and warm with every number of threads."""
    index = Path(a.work) / "roxanne.rx"
    shutil.rmtree(index, ignore_errors=True)
    limit = ["--limit", str(a.limit)] if a.limit else []
    plan, _ = json_of([a.roxanne, "plan", a.base, "--metric", a.metric, "--json", *limit])
    command = [a.roxanne, "build", a.base, "-o", str(index), "--metric", a.metric, "--threads", str(a.build_threads), "--json", *limit]
    built, wall = json_of(command)
    built["wall_seconds"] = wall
    sweep = "list-size=" + ",".join(str(l) for l in settings["list_sizes"])
    counts = sorted(int(t) for t in a.threads.split(","))
    # Direct reads leave little to warm; that is measured once, with all threads.
    passes = [(t, True) for t in counts] + [(counts[-1], True)] * (a.repeats - 1) + [(counts[-1], False)]
    points = {}
    for threads, cold in passes:
        run = [a.roxanne, "eval", str(index), "-q", a.queries, "-g", truth, "-k", str(a.k), "--sweep", sweep]
        run += ["--threads", str(threads), "--beam-width", str(settings["beam_width"]), "--json"]
        run += ["--cold"] if cold else []
        run += ["--limit", str(a.queries_limit)] if a.queries_limit else []
        outcome, _ = json_of(run)
        for point in outcome["points"]:
            key = (threads, cold, point["list_size"])
            if key not in points or points[key]["qps"] < point["qps"]:
                points[key] = {"threads": threads, "cold": cold, **point}
    return {
        "command": " ".join(command),
        "eval_command": " ".join(run),
        "plan": plan,
        "build": built,
        "index": outcome["index"],
        "reader": outcome.get("run"),
        "points": list(points.values()),
    }


def graph(a, settings, data):
    """Recall at equal distance computations, against incremental Vamana, on the first rows of the base."""
    command = [a.graph_quality, a.base, a.queries, "--metric", a.metric, "-k", str(a.k), "--threads", str(a.build_threads)]
    whole = settings["limit"] in (0, data["n"]) and not a.limit
    command += ["--truth", truth_of(a)] if whole else ["--limit", str(settings["limit"])]
    command += ["--queries-limit", str(a.queries_limit)] if a.queries_limit else []
    lines = [json.loads(line) for line in output_of(command)[0].splitlines()]
    return {
        "command": " ".join(command),
        "graphs": [l for l in lines if "build_seconds" in l],
        "points": [l for l in lines if "list_size" in l and "graph" in l],
        "differences": [l for l in lines if "at_distances" in l],
        "summary": next(l for l in lines if "worst_difference" in l),
    }


def peer(system, a, settings):
    """A peer in a process of its own; see peer.py."""
    disk = system == "diskannpy"
    venv = a.diskann_venv if disk else a.venv
    python = Path(venv or "", "bin", "python")
    if not venv or not python.exists():
        flag, listed = ("--diskann-venv", "requirements-diskann.txt") if disk else ("--venv", "requirements.txt")
        raise Failed(f"no environment {venv}; make one as bench/peers/{listed} says and give it with {flag}")
    events, log = (Path(a.work) / f"{system}.{end}" for end in ("events", "log"))
    command = [str(python), str(HERE / ("diskann_peer.py" if disk else "memory_peer.py")), "--peer", system]
    command += ["--base", a.base, "--queries", a.queries, "--truth", truth_of(a), "--metric", a.metric, "-k", str(a.k)]
    command += ["--threads", a.threads, "--build-threads", str(a.build_threads), "--repeats", str(a.repeats)]
    command += ["--settings", json.dumps(settings), "--work", a.work, "--events", str(events)]
    command += ["--limit", str(a.limit), "--queries-limit", str(a.queries_limit)] if a.limit else []
    # One thread a library where nobody asked for more: BLAS must not add its own.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": str(a.build_threads)}
    with open(log, "w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment).returncode
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise Failed(f"ended with {code}; the end of {log}:\n{tail}")
    found = [json.loads(line) for line in events.read_text().splitlines()]
    built = next(e["built"] for e in found if "built" in e)
    return {"command": " ".join(command), "build": built, "points": [e["point"] for e in found if "point" in e]}


def truth_of(a):
    """The truth as given, or computed once for this base, limit and metric."""
    if a.truth and not a.limit:
        return a.truth
    path = Path(a.work) / f"truth-{Path(a.base).stem}-{a.limit or 'all'}-{a.metric}-{a.k}.bin"
    if not path.exists():
        limit = ["--limit", str(a.limit)] if a.limit else []
        output_of([a.roxanne, "truth", a.base, a.queries, "-k", str(a.k), "-o", str(path), "--metric", a.metric, *limit])
    return str(path)


def output_of(command):
    """Standard output of a command that must succeed, and its wall time."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout, time.perf_counter() - start


def json_of(command):
    out, seconds = output_of(command)
    return json.loads(out), seconds


def describe_data(a):
    """Shape of base and queries, by which an old result is recognised."""
    (n, dim), (queries, query_dim) = shape_of(a.base), shape_of(a.queries)
    if dim != query_dim:
        raise SystemExit(f"{a.base} has {dim} dimensions, {a.queries} {query_dim}; give queries of the same kind")
    return {
        "base": Path(a.base).name,
        "base_bytes": os.path.getsize(a.base),
        "n": min(n, a.limit or n),
        "dim": dim,
        "queries": min(queries, a.queries_limit or queries),
        "metric": a.metric,
    }


def shape_of(path):
    """Rows and dimension, from the header."""
    with open(path, "rb") as f:
        if not str(path).endswith(".npy"):
            return int.from_bytes(f.read(4), "little"), int.from_bytes(f.read(4), "little")
        head = f.read(4096).decode("latin-1")
    return tuple(int(v) for v in head.split("'shape':")[1].split("(")[1].split(")")[0].split(",")[:2])


def machine(work):
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    field = lambda name: next((l.split(":")[1].strip() for l in info.splitlines() if l.startswith(name)), "unknown")
    flags = field("flags").split()
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    work = str(Path(work).resolve())
    holds = [m for m in mounts if work == m[1] or work.startswith(m[1].rstrip("/") + "/")]
    disk = max(holds, key=lambda m: len(m[1]))
    return {
        "cpu": field("model name"),
        "cores": os.cpu_count(),
        "simd": [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp") if f in flags],
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "disk": f"{disk[0]} ({disk[2]})",
    }


def commit():
    """The commit, and whether the tree differs from it outside the results."""
    git = lambda *words: subprocess.run(["git", "-C", str(HERE), *words], stdout=subprocess.PIPE, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--", ":/", ":!/bench/results", ":!/bench/RESULTS.md")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")


def write_whole(path, text):
    """All of it or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    main()
