"""hnswlib, faiss HNSW or usearch in memory: build time of `add` alone, then recall and rate of batches of all queries.

Vectors are f32, as all three take them. The input is released before the searches, so that the resident memory is the index, the
queries and the interpreter.
"""
import gc
import time

import numpy as np

import peer


def hnswlib(a, n, dim):
    import hnswlib

    index = hnswlib.Index(space="l2" if a.metric == "l2" else "cosine", dim=dim)
    index.init_index(max_elements=n, M=a.settings["M"], ef_construction=a.settings["ef_construction"])

    def add(rows):
        index.add_items(rows, np.arange(n), num_threads=a.build_threads)

    def search(queries, list_size, threads):
        index.set_ef(list_size)
        return index.knn_query(queries, k=a.k, num_threads=threads)[0]

    return add, search


def faiss(a, n, dim):
    import faiss

    metric = faiss.METRIC_L2 if a.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(dim, a.settings["M"], metric)
    index.hnsw.efConstruction = a.settings["ef_construction"]

    def add(rows):
        faiss.omp_set_num_threads(a.build_threads)
        index.add(rows)

    def search(queries, list_size, threads):
        faiss.omp_set_num_threads(threads)
        index.hnsw.efSearch = list_size
        return index.search(queries, a.k)[1]

    return add, search


def usearch(a, n, dim):
    from usearch.index import Index

    index = Index(
        ndim=dim,
        metric="l2sq" if a.metric == "l2" else "cos",
        dtype="f32",
        connectivity=a.settings["M"],
        expansion_add=a.settings["ef_construction"],
    )

    def add(rows):
        index.add(np.arange(n), rows, threads=a.build_threads)

    def search(queries, list_size, threads):
        index.expansion_search = list_size
        return index.search(queries, a.k, threads=threads).keys

    return add, search


def main():
    a = peer.arguments(__doc__)
    events = peer.Events(a.events)
    # faiss has no cosine: its rows and queries are normalized before, outside the measured time.
    normalize = a.metric == "cos" and a.peer == "faiss"
    shape = peer.unit if normalize else lambda rows: np.ascontiguousarray(rows, np.float32)
    base, queries = shape(peer.read(a.base, a.limit)), shape(peer.read(a.queries, a.queries_limit))
    truth = peer.read_truth(a.truth, len(queries), a.k)
    n, dim = base.shape
    add, search = {"hnswlib": hnswlib, "faiss": faiss, "usearch": usearch}[a.peer](a, n, dim)
    input_bytes = base.nbytes
    start = time.perf_counter()
    add(base)
    seconds = time.perf_counter() - start
    versions = peer.versions("numpy", "faiss-cpu" if a.peer == "faiss" else a.peer)
    events.say(built=dict(seconds=seconds, n=n, dim=dim, peak_rss_bytes=peer.status("VmHWM"), input_bytes=input_bytes, versions=versions))
    del base
    gc.collect()
    for threads in a.threads:
        for list_size in a.settings["list_sizes"]:
            rate, found = peer.best_rate(lambda: search(queries, list_size, threads), len(queries), a.repeats)
            events.say(
                point=dict(
                    threads=threads, list_size=list_size, recall=peer.recall(found, truth), qps=rate, rss_bytes=peer.status("VmRSS")
                )
            )


main()
