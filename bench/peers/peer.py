"""What every measured process shares: rows in, recall and rates out, memory as the kernel counts it.

A peer runs twice, each time in a process of its own: `build` writes an index into a directory, `search` opens it, so that the memory of
a search holds nothing of the build. It writes what it finds as JSON lines to the file of --events; its standard output is left to the
libraries, some of which talk. The Rust peers take the same arguments (rust/peer).
"""
import argparse
import importlib.metadata
import json
import time

import numpy as np

TYPES = {"u8bin": "u1", "i8bin": "i1", "fbin": "<f4", "f16bin": "<f2"}


def arguments(description):
    """The flags that run.py gives to every peer; `settings` is the peer's own, as JSON."""
    a = argparse.ArgumentParser(description=description)
    a.add_argument("verb", choices=["build", "search"])
    a.add_argument("--peer", required=True)
    a.add_argument("--base", required=True)
    a.add_argument("--queries", required=True)
    a.add_argument("--truth", required=True)
    a.add_argument("--metric", choices=["l2", "cos"], required=True)
    a.add_argument("--limit", type=int, help="first rows of the base only")
    a.add_argument("--queries-limit", type=int)
    a.add_argument("-k", type=int, default=10)
    a.add_argument("--threads", type=int, required=True, help="of the build or of the search")
    a.add_argument("--repeats", type=int, default=2, help="the best of so many passes over the queries counts")
    a.add_argument("--settings", type=json.loads, required=True)
    a.add_argument("--index", required=True, help="the directory of the index")
    a.add_argument("--events", required=True, help="the file that results go to")
    return a.parse_args()


def read(path, limit=None):
    """Rows [n x dim] of a .npy, .u8bin, .i8bin, .f16bin or .fbin file."""
    if path.endswith(".npy"):
        return np.load(path, mmap_mode="r")[:limit]
    n, dim = (int(v) for v in np.fromfile(path, "<u4", 2))
    rows = min(n, limit or n)
    return np.fromfile(path, TYPES[path.rsplit(".", 1)[1]], rows * dim, offset=8).reshape(rows, dim)


def read_truth(path, queries, k):
    """Row numbers of the k exact neighbors [queries x k] of a truth .bin: u32 n, u32 k, ids, distances."""
    n, width = (int(v) for v in np.fromfile(path, "<u4", 2))
    if n < queries or width < k:
        raise SystemExit(f"{path}: {n} queries of {width} neighbors, {queries} of {k} are needed")
    return np.fromfile(path, "<u4", n * width, offset=8).reshape(n, width)[:queries, :k]


def unit(rows):
    """Rows of length 1, f32."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def recall(found, truth):
    """Mean recall@k of `found` [q x k] against `truth` [q x k]."""
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), truth.tolist())]))


def status(name):
    """A line of /proc/self/status in bytes: VmRSS is memory now, VmHWM the most there ever was."""
    with open("/proc/self/status") as f:
        return next((int(line.split()[1]) * 1024 for line in f if line.startswith(name + ":")), 0)


def versions(*packages):
    """What is installed here."""
    return {package: importlib.metadata.version(package) for package in packages}


class Events:
    """Results, one JSON line each, on disk at once."""

    def __init__(self, path):
        self.file = open(path, "w", buffering=1)

    def say(self, **event):
        self.file.write(json.dumps(event) + "\n")


def best_rate(search, queries, repeats):
    """The best rate of `repeats` passes, and the last pass's answer."""
    best, answer = 0.0, None
    for _ in range(repeats):
        start = time.perf_counter()
        answer = search()
        best = max(best, queries / (time.perf_counter() - start))
    return best, answer
