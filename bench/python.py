"""Queries a second, and what one query takes beside the engine, through the Python package.

    python3 bench/python.py my.rx query.u8bin truth.bin 2G        (and beside it: roxanne eval my.rx -q query.u8bin -g truth.bin
                                                                   --sweep list-size=20,40 --threads 2 --in-flight 32 --ram 2G)
"""

import sys
import time

import numpy as np

import roxanne as rx

ONES = 3000


def main(path, queries, truth, ram):
    dim = np.fromfile(queries, "<u4", 2)[1]
    rows = np.fromfile(queries, np.uint8, offset=8).reshape(-1, dim).astype(np.float32)
    k = np.fromfile(truth, "<u4", 2)[1]
    wanted = np.fromfile(truth, "<u4", len(rows) * k, offset=8).reshape(-1, k)[:, :10]
    index = rx.open(path, ram=ram)
    for list_size in (20, 40):
        index.search(rows[:2000], list_size=list_size, threads=2)
        begin = time.perf_counter()
        found = index.search(rows, list_size=list_size, threads=2)
        seconds = time.perf_counter() - begin
        print(f"list {list_size}: {len(rows)} queries, {len(rows) / seconds:.0f} a second, recall@10 {found.recall(wanted):.4f}")
        begin = time.perf_counter()
        engine = sum(int(index.search(row, list_size=list_size).micros[0]) for row in rows[:ONES])
        each = (time.perf_counter() - begin) / min(ONES, len(rows)) * 1e6
        print(f"list {list_size}: one at a time {each:.1f} us, of that the engine {engine / min(ONES, len(rows)):.1f} us")


main(*sys.argv[1:])
