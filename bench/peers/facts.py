"""What stands beside a figure: machine, commit, date, and the shape of the data."""
import datetime
import os
import platform
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


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


def bytes_of(path):
    """Bytes of a file, or of all files under a directory; 0 where there is nothing."""
    path = Path(path)
    files = [path] if path.is_file() else path.rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file())


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
