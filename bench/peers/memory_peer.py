"""hnswlib, faiss HNSW or usearch in memory: build time of `add` alone, then recall and rate of batches of all queries.

Vectors are f32, as all three take them. A build saves the index, outside the measured time; a search loads it, so that the resident
memory is the index, the queries and the interpreter.
"""
import os
import time

import numpy as np

import peer


class Hnswlib:
    def __init__(self, a, dim):
        import hnswlib

        self.k, self.threads = a.k, a.threads
        self.index = hnswlib.Index(space="l2" if a.metric == "l2" else "cosine", dim=dim)

    def add(self, rows, settings):
        self.index.init_index(max_elements=len(rows), M=settings["M"], ef_construction=settings["ef_construction"])
        self.index.add_items(rows, np.arange(len(rows)), num_threads=self.threads)

    def save(self, path):
        self.index.save_index(path)

    def load(self, path):
        self.index.load_index(path)

    def search(self, queries, list_size):
        self.index.set_ef(list_size)
        return self.index.knn_query(queries, k=self.k, num_threads=self.threads)[0]


class Faiss:
    def __init__(self, a, dim):
        import faiss

        self.faiss, self.k, self.dim = faiss, a.k, dim
        self.metric = faiss.METRIC_L2 if a.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        faiss.omp_set_num_threads(a.threads)

    def add(self, rows, settings):
        self.index = self.faiss.IndexHNSWFlat(self.dim, settings["M"], self.metric)
        self.index.hnsw.efConstruction = settings["ef_construction"]
        self.index.add(rows)

    def save(self, path):
        self.faiss.write_index(self.index, path)

    def load(self, path):
        self.index = self.faiss.read_index(path)

    def search(self, queries, list_size):
        self.index.hnsw.efSearch = list_size
        return self.index.search(queries, self.k)[1]


class Usearch:
    def __init__(self, a, dim):
        from usearch.index import Index

        self.k, self.threads = a.k, a.threads
        metric = "l2sq" if a.metric == "l2" else "cos"
        sizes = dict(connectivity=a.settings["M"], expansion_add=a.settings["ef_construction"])
        self.index = Index(ndim=dim, metric=metric, dtype="f32", **sizes)

    def add(self, rows, settings):
        self.index.add(np.arange(len(rows)), rows, threads=self.threads)

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index.load(path)

    def search(self, queries, list_size):
        self.index.expansion_search = list_size
        return self.index.search(queries, self.k, threads=self.threads).keys


LIBRARIES = {"hnswlib": (Hnswlib, "hnswlib"), "faiss": (Faiss, "faiss-cpu"), "usearch": (Usearch, "usearch")}


def main():
    a = peer.arguments(__doc__)
    events = peer.Events(a.events)
    library, package = LIBRARIES[a.peer]
    # faiss has no cosine: its rows and queries are normalized before, outside the measured time.
    normalize = a.metric == "cos" and a.peer == "faiss"
    shape = peer.unit if normalize else lambda rows: np.ascontiguousarray(rows, np.float32)
    path = os.path.join(a.index, "index")
    if a.verb == "build":
        build(a, events, library, package, shape(peer.read(a.base, a.limit)), path)
    else:
        search(a, events, library, shape(peer.read(a.queries, a.queries_limit)), path)


def build(a, events, library, package, base, path):
    n, dim = base.shape
    index = library(a, dim)
    start = time.perf_counter()
    index.add(base, a.settings)
    seconds, peak = time.perf_counter() - start, peer.status("VmHWM")
    os.makedirs(a.index, exist_ok=True)
    index.save(path)
    sizes = dict(n=n, dim=dim, peak_rss_bytes=peak, input_bytes=base.nbytes, index_bytes=os.path.getsize(path))
    events.say(built=dict(seconds=seconds, **sizes, versions=peer.versions("numpy", package)))


def search(a, events, library, queries, path):
    truth = peer.read_truth(a.truth, len(queries), a.k)
    index = library(a, queries.shape[1])
    start = time.perf_counter()
    index.load(path)
    opened = time.perf_counter() - start
    for list_size in a.settings["list_sizes"]:
        rate, found = peer.best_rate(lambda: index.search(queries, list_size), len(queries), a.repeats)
        quality = dict(list_size=list_size, recall=peer.recall(found, truth), qps=rate)
        events.say(point=dict(threads=a.threads, **quality, rss_bytes=peer.status("VmRSS"), open_seconds=opened))


main()
