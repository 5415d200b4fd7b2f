"""The C++ DiskANN disk index: build time, then recall, rate and device reads of batches of all queries.

No static node cache, and the kernel is told to forget the index's files before every point. Reads are counted by the kernel
(/proc/self/io), for the library does not tell: bytes from the device a query, over 4 KiB. Codes get as many bytes as ours.
"""
import os
import shutil
import time

import diskannpy
import numpy as np

import peer

SECTOR = 4096
# What a search opens; the build leaves copies of its input beside them.
SERVED = ["ann_disk.index", "ann_pq_compressed.bin", "ann_pq_pivots.bin", "ann_metadata.bin"]


def forget(directory):
    """Drops the page cache of every file of the index."""
    for name in os.listdir(directory):
        fd = os.open(os.path.join(directory, name), os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def main():
    a = peer.arguments(__doc__)
    events = peer.Events(a.events)
    base, queries = peer.read(a.base, a.limit), peer.read(a.queries, a.queries_limit)
    truth = peer.read_truth(a.truth, len(queries), a.k)
    if a.metric == "cos":
        base, queries = peer.unit(base), peer.unit(queries)
    elif base.dtype not in (np.float32, np.uint8, np.int8):
        base, queries = np.asarray(base, np.float32), np.asarray(queries, np.float32)
    n, dim = base.shape
    directory = os.path.join(a.work, "diskann")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    start = time.perf_counter()
    diskannpy.build_disk_index(
        data=np.ascontiguousarray(base),
        distance_metric="l2",
        index_directory=directory,
        complexity=a.settings["complexity"],
        graph_degree=a.settings["graph_degree"],
        # The memory of a search sets the bytes of a code, rounded down; half a byte more outlasts the six decimals that it passes through.
        search_memory_maximum=(a.settings["code_bytes"] + 0.5) * n / 2**30,
        build_memory_maximum=a.settings["build_memory_gb"],
        num_threads=a.build_threads,
        pq_disk_bytes=0,
        vector_dtype=base.dtype.type,
    )
    seconds = time.perf_counter() - start
    input_bytes = base.nbytes
    del base
    with open(os.path.join(directory, "ann_pq_compressed.bin"), "rb") as f:
        code_bytes = int(np.fromfile(f, "<u4", 2)[1])
    events.say(
        built=dict(
            seconds=seconds,
            n=n,
            dim=dim,
            peak_rss_bytes=peer.status("VmHWM"),
            input_bytes=input_bytes,
            index_bytes=sum(os.path.getsize(os.path.join(directory, name)) for name in SERVED),
            code_bytes=code_bytes,
            versions=peer.versions("numpy", "diskannpy"),
        )
    )
    most = max(a.threads)
    index = diskannpy.StaticDiskIndex(
        index_directory=directory, num_threads=most, num_nodes_to_cache=0, distance_metric="l2", vector_dtype=queries.dtype.type, dimensions=dim
    )
    queries = np.ascontiguousarray(queries)
    for threads in a.threads:
        # With one thread batch_search of 0.7.0 does not return.
        for list_size in a.settings["list_sizes"] if threads > 1 else ():
            forget(directory)
            before = peer.device_bytes()
            rate, found = peer.best_rate(
                lambda: index.batch_search(
                    queries, k_neighbors=a.k, complexity=list_size, beam_width=a.settings["beam_width"], num_threads=threads
                ).identifiers,
                len(queries),
                a.repeats,
            )
            reads = (peer.device_bytes() - before) / SECTOR / len(queries) / a.repeats
            events.say(
                point=dict(
                    threads=threads,
                    list_size=list_size,
                    recall=peer.recall(found, truth),
                    qps=rate,
                    reads=reads,
                    cold=True,
                    rss_bytes=peer.status("VmRSS"),
                )
            )


main()
