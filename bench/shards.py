#!/usr/bin/env python3
"""Builds in shards against the same build in one, as RESULTS.md tells of them ("Builds larger than memory").

    python3 bench/shards.py BINARY WORK OUT [STEP...]

BINARY is `roxanne`. Indexes and truths go to WORK, which lies on the disk that is to be measured; one JSON file a step goes to OUT. Steps run
in the order given, one command each, so that a machine can be had for one at a time; without steps, all of them. A step whose JSON is there
is not done again.

    sift-one sift-shards sift-eval        sift1m: one shard, eight forced shards, recall of both
    one truth ram-2g eval                 10,000,000 x 128 u8 of synth: in memory (17 GB), exact truth of 1,000 queries, --ram 2G in a memory
                                          cgroup of 2 GiB (root; needs a writable cgroup file system), recall of both
    billion                               one of the shards that 1,000,000,000 x 128 u8 with --ram 20G has, rehearsed

The cgroup's high-water mark counts the page cache too, which the kernel gives back when asked: it may stand at the cap. What the build needs is
its resident set. Bytes of the whole process are the kernel's (getrusage); "disk" in the report is what shards left for each other. Busy is the
share of the time in which the device had a request, by /sys/block.
"""
import json, os, resource, shutil, subprocess, sys, time
from pathlib import Path

binary, work, out = (Path(p).resolve() for p in sys.argv[1:4])
data = Path(__file__).resolve().parents[2] / "shared" / "data"
sift = data / "sift1m.base.u8bin"
synth = "synth:n=10000000,dim=128,type=u8,seed=1"
queries = "synth:n=1000,dim=128,type=u8,seed=1,part=query"


def device_ticks():
    """Milliseconds in which any whole disk had a request."""
    total = 0
    for stat in Path("/sys/block").glob("*/stat"):
        if not stat.parent.name.startswith(("loop", "ram", "zram")):
            total += int(stat.read_text().split()[9])
    return total


class Cgroup:
    """A memory cgroup of so many bytes, version 1 or 2."""

    def __init__(self, limit):
        one = Path("/sys/fs/cgroup/memory")
        root, name, self.peak = (
            (one, "memory.limit_in_bytes", "memory.max_usage_in_bytes")
            if one.is_dir()
            else (Path("/sys/fs/cgroup"), "memory.max", "memory.peak")
        )
        self.path = root / f"roxanne-{os.getpid()}"
        self.path.mkdir()
        (self.path / name).write_text(str(limit))

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def leave(self):
        peak = int((self.path / self.peak).read_text())
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines() if len(line.split()) == 2)
        self.path.rmdir()
        return {"high_water_bytes": peak, "page_cache_bytes_at_end": int(stat.get("cache", stat.get("file", 0)))}


def run(name, args, cap=None):
    """Runs the binary once; its JSON and what the kernel counted go to OUT."""
    path = out / f"{name}.json"
    if path.exists():
        return
    cgroup = Cgroup(cap) if cap else None
    before, ticks, start = resource.getrusage(resource.RUSAGE_CHILDREN), device_ticks(), time.monotonic()
    load = os.getloadavg()[0]
    done = subprocess.run(
        [binary, *map(str, args), "--json"], stdout=subprocess.PIPE, preexec_fn=cgroup.enter if cgroup else None, cwd=work
    )
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "command": " ".join(["roxanne", *map(str, args), "--json"]).replace(str(data), "../shared/data").replace(str(work), "$WORK"),
        "exit_code": done.returncode,
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "read_bytes": (after.ru_inblock - before.ru_inblock) * 512,
        "written_bytes": (after.ru_oublock - before.ru_oublock) * 512,
        "device_busy_share": (device_ticks() - ticks) / 1000 / seconds,
        "load_before": load,
        "report": json.loads(done.stdout.decode() or "null") if done.stdout.count(b"\n") <= 1 else [json.loads(l) for l in done.stdout.splitlines()],
    }
    if cgroup:
        result["cgroup"] = {"limit_bytes": cap, **cgroup.leave()}
    path.write_text(json.dumps(result, indent=1).replace(str(data), "../shared/data").replace(str(work), "$WORK") + "\n")
    print(f"{name}: exit {done.returncode}, {seconds:.1f} s, {result['cpu_seconds']:.1f} s of CPU")
    if done.returncode:
        path.rename(path.with_suffix(".failed.json"))
        sys.exit(1)


def build(name, source, more, cap=None):
    index = work / f"{name}.rx"
    if not (out / f"{name}.json").exists():
        shutil.rmtree(index, ignore_errors=True)
        shutil.rmtree(work / f".{name}.rx.partial", ignore_errors=True)
        run(f"{name}-plan", ["plan", source, *more])
    run(name, ["build", source, "-o", index, *more], cap)


def evaluate(name, index, query, truth, sizes):
    run(f"{name}-eval", ["eval", work / f"{index}.rx", "-q", query, "-g", truth, "-k", 10, "--sweep", f"list-size={sizes}", "--threads", 2])


steps = {
    "sift-one": lambda: build("sift-one", sift, []),
    "sift-shards": lambda: build("sift-shards", sift, ["--shards", 8]),
    "sift-eval": lambda: [
        evaluate(name, name, data / "sift1m.query.u8bin", data / "sift1m.truth.bin", "20,40,80") for name in ("sift-one", "sift-shards")
    ],
    "one": lambda: build("one", synth, ["--shards", 1]),
    "truth": lambda: run("truth", ["truth", synth, queries, "-k", 10, "-o", work / "truth.bin"]),
    "ram-2g": lambda: build("ram-2g", synth, ["--ram", "2G"], 2 << 30),
    "eval": lambda: [evaluate(name, name, queries, work / "truth.bin", "32,64,128") for name in ("one", "ram-2g")],
    "billion": lambda: run(
        "billion", ["build", "synth:n=1000000000,dim=128,type=u8,seed=1", "--sink", "null", "--ram", "20G", "--only-shard", 0]
    ),
}
for step in sys.argv[4:] or steps:
    steps[step]()
