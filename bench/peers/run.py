#!/usr/bin/env python3
"""Ours and the peers on one data set, in one run, on this machine; then a plot and the tables of RESULTS.md.

    bench/peers/run.py --name sift1m --base B.u8bin --queries Q.u8bin --truth T.bin --metric l2 \\
        --roxanne TARGET/debug/roxanne --graph-quality TARGET/debug/graph_quality --work DIR

One system after the other, nothing beside them. Each leaves bench/results/NAME/SYSTEM.json: command, machine, commit, date, settings,
build and points. A system whose file is there, complete and of the same settings and data is not run again (--fresh runs it), so an
interrupted run goes on where it stopped. A peer's index stays in the directory of --work and is searched again by a later run, its build
then being that of the earlier one, which the table says (--rebuild builds it again; --prepare does nothing else); ours is built in every run.
--quick takes 20,000 vectors and 1,000 queries, to see that everything works; its figures mean nothing, so they go to the directory of
--work and RESULTS.md is left alone. --results DIR writes there instead and prints the tables. --report only draws and writes, from what is
there. `--micro TARGET/criterion` takes over what `make bench` measured.

Rules: same base, queries and truth; the best of --repeats passes, for ours as for the peers; no static node cache and dropped page
caches for disk systems; ratios only within one run. Peers are made as they are needed: the Rust ones compiled (rust/), the Python ones
installed (requirements.txt), fio from its Debian package.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import micro
import report
import systems
from commands import Failed, Lock
from facts import HERE, commit, describe_data, machine, now
from systems import SYSTEMS, UNASKED

RESULTS = HERE.parent / "results"
RESULTS_MD = HERE.parent / "RESULTS.md"


def main():
    a = arguments()
    if a.micro:
        micro.take(a.micro, RESULTS / "micro.json", {"machine": machine(a.micro), "commit": commit(), "date": now()})
        return report.write_micro(RESULTS / "micro.json", RESULTS_MD)
    place = Path(a.work, "quick") if a.quick else Path(a.results or RESULTS)
    directory = place / a.name
    if not a.report:
        Path(a.work).mkdir(parents=True, exist_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        measure_all(a, directory)
    if a.prepare:
        return None
    return report.write(directory, None if a.quick or a.results else RESULTS_MD)


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--name", help="of the run: the directory under bench/results and the marks in RESULTS.md")
    a.add_argument("--base")
    a.add_argument("--queries")
    a.add_argument("--truth", help="computed where it is not given, and under --quick")
    a.add_argument("--metric", choices=["l2", "cos"], default="l2")
    a.add_argument("-k", type=int, default=10)
    a.add_argument("--threads", default="1,2", help="threads of the searches, each measured; DiskANN has its own")
    a.add_argument("--build-threads", type=int, default=2)
    a.add_argument("--repeats", type=int, default=2)
    a.add_argument("--roxanne", help="the binary")
    a.add_argument("--graph-quality", help="the binary graph_quality of this crate")
    a.add_argument("--venv", help="environment of the Python peers; made in the directory of --work where none is given")
    a.add_argument("--work", help="a directory on the disk that is measured; indexes and logs go there, and peers' indexes stay")
    a.add_argument("--only", default=",".join(UNASKED), help="some of " + ",".join(SYSTEMS))
    a.add_argument("--graph-limit", type=int, default=200_000, help="vectors that graphs are compared on; 0 is all")
    a.add_argument("--lock", help="a file that is held while something is measured, and shared while something is compiled")
    a.add_argument("--results", help="another directory than bench/results, for a trial")
    a.add_argument("--micro", help="criterion's directory")
    a.add_argument("--quick", action="store_true")
    a.add_argument("--fresh", action="store_true", help="run what has a result already")
    a.add_argument("--rebuild", action="store_true", help="build the peers' indexes again")
    a.add_argument("--prepare", action="store_true", help="make the peers and their indexes, and measure no search")
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
    a.lock = Lock(a.lock)
    # Where a system's index lies.
    a.index = lambda system: Path(a.work) / f"{system}-{a.name}{'-quick' if a.quick else ''}"
    return a


def measure_all(a, directory):
    data = describe_data(a)
    print(f"{a.name}: {data['n']} x {data['dim']}, {data['queries']} queries, {a.metric}", file=sys.stderr)
    about = {"machine": machine(a.work), "commit": commit(), "run": now(), "data": data}
    failed = []
    for system in [s for s in SYSTEMS if s in a.only]:
        path = directory / f"{system}.json"
        start = time.monotonic()
        try:
            settings = systems.settings_of(system, a, data)
            if a.prepare:
                systems.prepare(system, a, settings, data, about)
                continue
            if not a.fresh and is_done(path, settings, data):
                print(f"{system}: there already, of the same settings and data; --fresh runs it again", file=sys.stderr)
                continue
            print(f"{system}: running", file=sys.stderr, flush=True)
            result = systems.run(system, a, settings, data, about)
        except (Failed, OSError) as error:
            print(f"{system}: {error}", file=sys.stderr)
            failed.append(system)
            continue
        result = {"system": system, "settings": settings, "date": now(), **about, **result}
        write_whole(path, json.dumps(result, indent=1) + "\n")
        beside = f"; others took {100 * result['others']:.0f}% of the CPU meanwhile" if result["others"] > report.BESIDE else ""
        print(f"{system}: done in {time.monotonic() - start:.0f} s, {path}{beside}", file=sys.stderr)
    a.lock.give()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what was measured is kept, run again for the rest")


def is_done(path, settings, data):
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return found["settings"] == settings and found["data"] == data


def write_whole(path, text):
    """All of it or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    main()
