"""An index of hnswlib imported, beside one that is built of the same vectors: time, and recall@10 at equal list sizes.

    python bench/import.py ROXANNE BASE.u8bin QUERY.u8bin TRUTH.bin WORK          needs numpy and hnswlib; WORK keeps hnswlib's index (M 16, ef_construction 200)
"""

import json, os, platform, subprocess, sys, time
import hnswlib, numpy as np

roxanne, base, query, truth, work = sys.argv[1:]
SIZES = (16, 32, 64, 100)
os.makedirs(work, exist_ok=True)


def u8bin(path):
    n, dim = np.fromfile(path, dtype=np.uint32, count=2)
    return np.memmap(path, dtype=np.uint8, offset=8, shape=(int(n), int(dim)))


rows, queries = u8bin(base), np.asarray(u8bin(query), dtype=np.float32)
n, k = (int(count) for count in np.fromfile(truth, dtype=np.uint32, count=2))
nearest = np.fromfile(truth, dtype=np.uint32, offset=8, count=n * k).reshape(n, k)[:, :10]
recall = lambda found: float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest.tolist())]))
told = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "rows": len(rows)}

index, path = hnswlib.Index(space="l2", dim=rows.shape[1]), f"{work}/hnswlib.bin"
if os.path.exists(path):
    index.load_index(path)
else:
    begin = time.monotonic()
    index.init_index(max_elements=len(rows), M=16, ef_construction=200)
    for first in range(0, len(rows), 100_000):
        part = np.asarray(rows[first : first + 100_000], dtype=np.float32)
        index.add_items(part, np.arange(first, first + len(part)), num_threads=os.cpu_count())
    told["hnswlib_build_seconds"] = time.monotonic() - begin
    index.save_index(path)
told["hnswlib_recall"] = {}
for size in SIZES:
    index.set_ef(size)
    told["hnswlib_recall"][size] = recall(index.knn_query(queries, k=10, num_threads=os.cpu_count())[0].tolist())
del index

with open(f"{work}/rows.txt", "w") as out:
    out.writelines(f"{row}\n" for row in range(len(rows)))
for name, more in (("import", []), ("new_graph", ["--new-graph"])):
    out = f"{work}/{name}.rx"
    subprocess.run(["rm", "-rf", out], check=True)
    command = [roxanne, "import", "hnswlib", path, "-o", out, "--metric", "l2", "--json", "--progress", "plain", *more]
    begin = time.monotonic()
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    told[name] = {"seconds": time.monotonic() - begin, "phases": {p["name"]: p["seconds"] for p in report["phases"]}, "peak_rss_bytes": report["peak_rss_bytes"]}
    sweep = ",".join(map(str, SIZES))
    command = [roxanne, "eval", out, "-q", query, "-g", truth, "-k", "10", "--keys", f"{work}/rows.txt", "--sweep", f"list-size={sweep}", "--json"]
    told[name]["eval"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
print(json.dumps(told, indent=1))
