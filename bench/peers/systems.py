"""How each system is built and searched, and with what settings."""
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import device
from commands import Failed, measured
from facts import HERE, now

GRAPH_LIST_SIZES = [16, 32, 64, 96, 128, 192, 256, 384]
QUICK_LIST_SIZES = [16, 32, 64]
SLACKS = [0.03, 0.05, 0.07, 0.09, 0.1, 0.12, 0.16, 0.17, 0.2, 0.25]
HNSW = {"M": 16, "ef_construction": 200, "list_sizes": GRAPH_LIST_SIZES}
# Ours: queries in flight, over all threads, where the binary knows of such.
# What a search is ended by is a slack; it stands where others have a list size.
OURS = {"slacks": SLACKS, "beam_width": 4, "in_flight": "1,2,8,64,256"}
# R as ours, codes as wide as ours (filled in when the dimension is known), L as DiskANN's documentation has it where none is given.
# One query a thread: so the threads are what fills the device.
DISKANN = {
    "graph_degree": 48,
    "complexity": 100,
    "beam_width": 4,
    "build_memory_gb": 16.0,
    "list_sizes": [24, 32, 40, 64, 88, 112],
    "threads": "2,8,16,32,64",
}
# As their documentation has it: arroy chooses the number of trees itself and is asked with search_k, here as a multiple of k.
STORES = {
    "arroy": {"list_sizes": [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000]},
    "hannoy": {"ef_construction": 100, "list_sizes": GRAPH_LIST_SIZES},
    "crvecdb": {"M": 16, "ef_construction": 200, "list_sizes": GRAPH_LIST_SIZES},
}
SYSTEMS = ["roxanne", "graph", "diskann", "fio", "hnswlib", "faiss", "usearch", *STORES]
# What the key-value peers measure is no figure of ours yet.
UNASKED = [s for s in SYSTEMS if s not in STORES]
# What a search may change without another build.
OF_SEARCHES = ["list_sizes", "slacks", "beam_width", "in_flight", "k", "threads", "repeats"]
# The recalls at which a disk system's latency at half its best rate is measured.
RATED = [0.95, 0.99]


def settings_of(system, a, data):
    """What a system is run with; a change makes its old result another one's."""
    if system == "fio":
        return device.settings_of(a)
    common = {"k": a.k, "threads": a.threads, "build_threads": a.build_threads, "repeats": a.repeats}
    own = {"roxanne": OURS, "graph": {"limit": a.limit or a.graph_limit}, "diskann": DISKANN, **STORES}.get(system, HNSW)
    if system == "diskann":
        own = {**own, "code_bytes": min(data["dim"], max(32, data["dim"] // 8))}
    if a.quick and "list_sizes" in own:
        own = {**own, "list_sizes": QUICK_LIST_SIZES}
    return {**common, **own}


def run(system, a, settings, data, about):
    """The result of one system."""
    if system == "fio":
        return device.run(a, settings)
    if system in ("roxanne", "graph"):
        binary = a.roxanne if system == "roxanne" else a.graph_quality
        if not binary or not os.access(binary, os.X_OK):
            raise Failed(f"no binary {binary}; build it and give it with --{'roxanne' if system == 'roxanne' else 'graph-quality'}")
        return ours(a, settings) if system == "roxanne" else graph(a, settings, data)
    return peer(system, a, settings, data, about)


def ours(a, settings):
    """Plan, build, then eval in every state that the binary knows: from disk, with a tenth of its pages kept, with all of them."""
    index = a.index("roxanne")
    shutil.rmtree(index, ignore_errors=True)
    limit = ["--limit", str(a.limit)] if a.limit else []
    plan = measured([a.roxanne, "plan", a.base, "--metric", a.metric, "--json", *limit], a.lock).json()
    command = [a.roxanne, "build", a.base, "-o", str(index), "--metric", a.metric, "--threads", str(a.build_threads), "--json", *limit]
    outcome = measured(command, a.lock)
    evals = Evals(a, settings, index)
    for state, threads, flags in from_disk(a, settings):
        evals.run(state, threads, flags)
    if evals.knows("--in-flight"):
        flights = ["--in-flight", f"{evals.threads},64"]
        pages = evals.index_facts["page_count"] * evals.index_facts["page_bytes"]
        # More than all pages in the last: what keeps them takes some, too.
        for state, share in (("tenth", 0.1), ("resident", 1.25)):
            evals.run(state, evals.threads, ["--ram", str(evals.needed(flights) + int(share * pages)), *flights])
    return {
        "command": " ".join(command),
        "eval_command": " ".join(evals.command),
        "plan": plan,
        "build": {**outcome.json(), "wall_seconds": outcome.seconds},
        "index": evals.index_facts,
        "reader": evals.runs[0],
        "runs": evals.runs,
        "points": list(evals.points.values()),
        "others": max([outcome.others, *evals.others]),
    }


def from_disk(a, settings):
    """(state, threads, flags of eval) without a page kept; all numbers of queries in flight with the most threads alone."""
    *few, most = sorted(int(t) for t in settings["threads"].split(","))
    known = measured([a.roxanne, "eval", "--help"], a.lock).text
    if "--in-flight" not in known:
        # Direct reads leave little to warm; that is measured once, with all threads.
        return [("cold", t, ["--cold"]) for t in (*few, most)] + [("warm", most, [])]
    states = [("cold", t, ["--cold", "--in-flight", str(t)]) for t in few]
    states.append(("cold", most, ["--cold", "--in-flight", settings["in_flight"]]))
    return states + [("adjacency", most, ["--adjacency", "ram", "--cold", "--in-flight", f"{most},64"])] * ("--adjacency" in known)


class Evals:
    """Runs of `roxanne eval` on one index; of several passes the best point counts."""

    def __init__(self, a, settings, index):
        self.a, self.settings, self.index = a, settings, index
        self.threads = max(int(t) for t in settings["threads"].split(","))
        self.runs, self.points, self.others = [], {}, []

    def run(self, state, threads, flags):
        for _ in range(1 if state == "warm" else self.a.repeats):
            self.command = eval_command(self.a, self.index, self.settings, threads, flags)
            outcome = measured(self.command, self.a.lock)
            result = outcome.json()
            self.others.append(outcome.others)
            for point in result["points"]:
                point["list_size"] = point.get("slack") or point["list_size"]
                key = (state, threads, point.get("in_flight"), point["list_size"])
                if key not in self.points or self.points[key]["qps"] < point["qps"]:
                    self.points[key] = {**point, "threads": threads, "state": state, "cold": "--cold" in flags}
        self.index_facts = result["index"]
        self.runs.append({"state": state, "threads": threads, **result.get("run", {})})

    def knows(self, flag):
        return flag in self.command

    def needed(self, flags):
        """Bytes without which it does not serve, as it says itself when it is given one."""
        try:
            measured(eval_command(self.a, self.index, self.settings, self.threads, ["--ram", "1", *flags]), self.a.lock)
        except Failed as error:
            said = re.search(r"needs (\d+) bytes", str(error))
            if said:
                return int(said[1])
        raise Failed("eval --ram 1 did not say how much memory it needs")


def eval_command(a, index, settings, threads, flags):
    sweep = "slack=" + ",".join(str(s) for s in settings["slacks"])
    command = [a.roxanne, "eval", str(index), "-q", a.queries, "-g", truth_of(a), "-k", str(a.k), "--sweep", sweep, "--json"]
    limit = ["--limit", str(a.queries_limit)] if a.queries_limit else []
    return [*command, "--threads", str(threads), "--beam-width", str(settings["beam_width"]), *flags, *limit]


def graph(a, settings, data):
    """Recall at equal distance computations, against incremental Vamana, on the first rows of the base."""
    command = [a.graph_quality, a.base, a.queries, "--metric", a.metric, "-k", str(a.k), "--threads", str(a.build_threads)]
    whole = settings["limit"] in (0, data["n"]) and not a.limit
    command += ["--truth", truth_of(a)] if whole else ["--limit", str(settings["limit"])]
    command += ["--queries-limit", str(a.queries_limit)] if a.queries_limit else []
    outcome = measured(command, a.lock)
    lines = [json.loads(line) for line in outcome.text.splitlines()]
    return {
        "command": " ".join(command),
        "graphs": [l for l in lines if "build_seconds" in l],
        "points": [l for l in lines if "list_size" in l and "graph" in l],
        "differences": [l for l in lines if "at_distances" in l],
        "summary": next(l for l in lines if "worst_difference" in l),
        "others": outcome.others,
    }


def peer(system, a, settings, data, about):
    """A peer: its index built, or kept from before; then searches, a process for each number of threads."""
    program = program_of(system, a)
    built = indexed(program, system, a, settings, data, about)
    points, commands, others = [], [], []
    for threads in settings["threads"].split(","):
        found, command, beside = call(program, "search", system, a, settings, threads)
        points += found
        commands.append(command)
        others.append(beside)
    if system == "diskann":
        rated, beside = at_half_load(program, system, a, settings, points)
        points, others = points + rated, others + beside
    return {"command": built["command"], "search_command": commands[-1], "build": built["built"], "points": points, "others": max(others)}


def prepare(system, a, settings, data, about):
    """A peer made and its index built, so that a later run searches alone."""
    if system not in ("roxanne", "graph", "fio"):
        indexed(program_of(system, a), system, a, settings, data, about)


def indexed(program, system, a, settings, data, about):
    """What was noted of the build of the index that lies there, or of one that is built now."""
    built = kept(a.index(system), settings, data) if not a.rebuild else None
    return built or build(program, system, a, settings, data, about)


def kept(index, settings, data):
    """What was noted of the build in `index`, if it is of these settings and this base."""
    try:
        noted = json.loads((index / "built.json").read_text())
    except (OSError, ValueError):
        return None
    return noted if noted["settings"] == of_build(settings) and noted["data"] == of_base(data) else None


def build(program, system, a, settings, data, about):
    shutil.rmtree(a.index(system), ignore_errors=True)
    # A build may take minutes: it gets a turn of its own.
    a.lock.give()
    found, command, others = call(program, "build", system, a, settings, a.build_threads)
    versions = found[0].get("versions") or locked_versions(system)
    built = {**found[0], "versions": versions, "run": about["run"], "commit": about["commit"], "date": now(), "others": others}
    noted = {"settings": of_build(settings), "data": of_base(data), "built": built, "command": command}
    (a.index(system) / "built.json").write_text(json.dumps(noted, indent=1) + "\n")
    return noted


def locked_versions(system):
    """Versions of a Rust peer's crates, from the lock that they are built with."""
    packages = tomllib.loads((HERE / "rust" / "Cargo.lock").read_text())["package"]
    return {p["name"]: p["version"] for p in packages if p["name"] in (system, f"{system}-disk")}


def of_build(settings):
    return {name: value for name, value in settings.items() if name not in OF_SEARCHES}


def of_base(data):
    return {name: value for name, value in data.items() if name != "queries"}


def at_half_load(program, system, a, settings, points):
    """Latency of the first list size past each recall of RATED when queries come at half the best rate, on as many threads."""
    rated, others = [], []
    for recall in RATED:
        enough = [p for p in points if p["recall"] >= recall]
        if not enough:
            continue
        size = min(p["list_size"] for p in enough)
        best = max((p for p in enough if p["list_size"] == size), key=lambda p: p["qps"])
        one = {**settings, "list_sizes": [size], "repeats": 1}
        found, _, beside = call(program, "search", system, a, one, best["threads"], "--rate", str(best["qps"] / 2))
        rated, others = rated + found, [*others, beside]
    return rated, others


def call(program, verb, system, a, settings, threads, *more):
    """One process of a peer: its events without their names, the command, and what others did meanwhile."""
    events, log = (Path(a.work) / f"{system}.{end}" for end in ("events", "log"))
    command = [*program, verb, "--peer", system, "--base", a.base, "--queries", a.queries, "--truth", truth_of(a), "--metric", a.metric]
    command += ["-k", str(a.k), "--threads", str(threads), "--repeats", str(settings["repeats"]), "--settings", json.dumps(settings)]
    command += ["--index", str(a.index(system)), "--events", str(events), *more]
    command += ["--limit", str(a.limit), "--queries-limit", str(a.queries_limit)] if a.limit else []
    # One thread a library where nobody asked for more: BLAS must not add its own.
    count = str(threads)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": count, "RAYON_NUM_THREADS": count}
    outcome = measured(command, a.lock, log, environment)
    found = [next(iter(json.loads(line).values())) for line in events.read_text().splitlines()]
    return found, " ".join(command), outcome.others


def program_of(system, a):
    """The command that runs a peer, made if need be: a Rust program, or a script in the environment of the Python peers."""
    if system in ("hnswlib", "faiss", "usearch"):
        return [python_of(a), str(HERE / "memory_peer.py")]
    package = "diskann-peer" if system == "diskann" else "stores-peer"
    target = Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache" / "roxanne-target") / "peers"
    command = ["cargo", "build", "--locked", "--release", "--package", package, "--target-dir", str(target)]
    # The instructions of this CPU, which the libraries' own programs are built with too.
    environment = {**os.environ, "RUSTFLAGS": "-C target-cpu=native"}
    with a.lock.shared():
        done = subprocess.run(command, cwd=HERE / "rust", env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{package} was not built: {done.stderr.strip()[-800:]}")
    return [str(target / "release" / package)]


def python_of(a):
    """The interpreter of the Python peers' environment."""
    place = Path(a.venv or Path(a.work, "venv"))
    python = place / "bin" / "python"
    if not python.exists():
        with a.lock.shared():
            subprocess.run(["python3", "-m", "venv", str(place)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "requirements.txt")], check=True)
    return str(python)


def truth_of(a):
    """The truth as given, or computed once for this base, limit and metric."""
    if a.truth and not a.limit:
        return a.truth
    path = Path(a.work) / f"truth-{Path(a.base).stem}-{a.limit or 'all'}-{a.metric}-{a.k}.bin"
    if not path.exists():
        limit = ["--limit", str(a.limit)] if a.limit else []
        measured([a.roxanne, "truth", a.base, a.queries, "-k", str(a.k), "-o", str(path), "--metric", a.metric, *limit], a.lock)
    return str(path)
