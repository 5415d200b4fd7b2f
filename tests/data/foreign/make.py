"""Makes the indexes in this directory, each of the first 240 rows and 32 coordinates of ../sift-sample.base.u8bin, by the systems themselves:

    pip install numpy hnswlib==0.8.0 faiss-cpu==1.15.1 usearch==2.26.6 diskannpy==0.7.0 && python make.py

Keys are 2 * row + 5 where the system has keys; rows that 12 divides are deleted where it can delete.
"""

import os, shutil, tempfile
import diskannpy, faiss, hnswlib, numpy as np
from usearch.index import Index

here = os.path.dirname(os.path.abspath(__file__))
raw = np.fromfile(f"{here}/../sift-sample.base.u8bin", dtype=np.uint8, offset=8).reshape(-1, 128)[:240, :32].copy()
x, n = raw.astype(np.float32), len(raw)
keys = 2 * np.arange(n) + 5
gone = range(0, n, 12)

index = hnswlib.Index(space="l2", dim=32)
index.init_index(max_elements=n + 3, M=6, ef_construction=60, random_seed=1)
index.add_items(x, keys, num_threads=1)
for row in gone:
    index.mark_deleted(keys[row])
index.save_index(f"{here}/hnswlib.bin")

index = faiss.IndexIDMap(faiss.IndexHNSWFlat(32, 6))
index.add_with_ids(x, keys)
faiss.write_index(index, f"{here}/faiss-map.index")
index = faiss.IndexHNSWFlat(32, 6, faiss.METRIC_INNER_PRODUCT)
index.add(x)
faiss.write_index(index, f"{here}/faiss.index")

for dtype, metric in [("f32", "cos"), ("f16", "l2sq"), ("i8", "ip")]:
    index = Index(ndim=32, metric=metric, dtype=dtype, connectivity=6, expansion_add=60)
    index.add(keys.astype(np.uint64), (raw // 2).astype(np.int8) if dtype == "i8" else x, threads=1)
    if dtype == "f32":
        index.remove(keys[list(gone)].astype(np.uint64))
    index.save(f"{here}/{dtype}.usearch")

with tempfile.TemporaryDirectory() as directory:
    options = dict(complexity=60, graph_degree=12, num_threads=2, vector_dtype=np.uint8)
    diskannpy.build_memory_index(raw, "l2", directory, tags=keys.astype(np.uint32), **options)
    for suffix in ["", ".data", ".tags"]:
        shutil.copy(f"{directory}/ann{suffix}", f"{here}/ann{suffix}")
with tempfile.TemporaryDirectory() as directory:
    diskannpy.build_disk_index(raw, "l2", directory, search_memory_maximum=1, build_memory_maximum=1, **options)
    shutil.copy(f"{directory}/ann_disk.index", f"{here}/ann_disk.index")
