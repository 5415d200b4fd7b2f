"""A night, small: a server takes writes and searches while a new base is built, promoted and taken back. python3 nightly.py ROXANNE

Nothing that was acknowledged may be lost, nothing deleted may come back, no request may fail.
"""

import json
import random
import subprocess
import sys
import tempfile
import threading
import urllib.request
import warnings
from pathlib import Path

from qdrant_client import QdrantClient, models
from serving import serving

warnings.simplefilter("error")
DIM = 16
POINTS = 4000
# In whose memory each base takes the place of the one before.
MODES = ["overlap", "half", "half"]


def vector(key, turn):
    rng = random.Random(key % 40)
    near = random.Random(key * 1000 + turn)
    return [round(rng.gauss(0, 4) + near.gauss(0, 1), 3) for _ in range(DIM)]


def ask(url, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, method=method, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)["result"]


def done(url, job):
    while job["state"] == "running":
        job = ask(url, "GET", f"/v1/jobs/{job['id']}?wait=30")
    assert job["state"] == "done", job
    return job


class Day:
    """Writers and searchers at work, and what they were told."""

    def __init__(self, url):
        self.url, self.stop, self.failed = url, threading.Event(), []
        self.acked, self.searches = {}, 0
        # Held while a writer has asked and not written down the answer.
        self.asking = [threading.Lock(), threading.Lock()]

    def client(self):
        return QdrantClient(url=self.url, prefer_grpc=False, timeout=60)

    def write(self, seed):
        client, rng, turn = self.client(), random.Random(seed), 0
        while not self.stop.is_set():
            turn += 1
            # Keys of this writer alone, so that what was written last is known.
            keys = sorted({rng.randrange(POINTS // 2) * 2 + seed for _ in range(40)})
            gone = {key for key in keys if rng.random() < 0.2}
            points = [models.PointStruct(id=key, vector=vector(key, turn), payload={"turn": turn}) for key in keys if key not in gone]
            with self.asking[seed]:
                client.upsert("docs", points=points)
                client.delete("docs", points_selector=sorted(gone))
                self.acked.update({point.id: point.vector for point in points})
                self.acked.update(dict.fromkeys(gone))

    def search(self, seed):
        client, rng = self.client(), random.Random(seed)
        while not self.stop.is_set():
            found = client.query_points("docs", query=vector(rng.randrange(POINTS), 0), limit=10, with_payload=True).points
            assert len(found) == 10 and len({point.id for point in found}) == 10, found
            self.searches += 1

    def guarded(self, work, seed):
        try:
            work(seed)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the day has failed
            self.failed.append(repr(error))

    def __enter__(self):
        works = [(self.write, 0), (self.write, 1), (self.search, 2), (self.search, 3)]
        self.threads = [threading.Thread(target=self.guarded, args=one) for one in works]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def holds(self, told):
        """All that was acknowledged is as it was."""
        assert not self.failed, (told, self.failed)
        client, keys = self.client(), list(self.acked)
        for first in range(0, len(keys), 500):
            some = keys[first : first + 500]
            there = {point.id: point.vector for point in client.retrieve("docs", some, with_vectors=True)}
            for key in some:
                expected = self.acked[key]
                got = there.get(key)
                same = got is expected if expected is None or got is None else max(abs(a - b) for a, b in zip(got, expected)) < 1e-3
                assert same, (told, key, got, expected)


def build(roxanne, data, rows, out):
    """The build machine: yesterday's points as vectors and keys, and a new index of them."""
    import array

    keys = sorted(rows)
    raw = array.array("f", [value for key in keys for value in rows[key]])
    (data / "rows.fbin").write_bytes(len(keys).to_bytes(4, "little") + DIM.to_bytes(4, "little") + raw.tobytes())
    (data / "rows.keys").write_text("".join(f"{key}\n" for key in keys))
    command = [roxanne, "build", data / "rows.fbin", "--keys", data / "rows.keys", "--string-keys", "-o", out, "--progress", "plain"]
    subprocess.run([*command, "--capacity", str(4 * POINTS)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def night(roxanne, url, data):
    day = Day(url)
    client = day.client()
    client.create_collection("docs", vectors_config=models.VectorParams(size=DIM, distance=models.Distance.EUCLID))
    client.upload_points("docs", [models.PointStruct(id=key, vector=vector(key, 0)) for key in range(POINTS)], batch_size=500, wait=True)
    day.acked = {key: vector(key, 0) for key in range(POINTS)}
    (data / "incoming").mkdir()
    with day:
        for number in range(3):
            # The index must hold all up to its batch; it may hold what came later.
            with day.asking[0], day.asking[1]:
                sequence = ask(url, "GET", "/v1/collections/docs")["sequence"]
                rows = {key: row for key, row in day.acked.items() if row is not None}
            build(roxanne, data, rows, data / "incoming" / f"night-{number}")
            body = {"index": f"night-{number}", "sequence": sequence, "gate": {"recall_at_10": 0.9}, "mode": MODES[number]}
            done(url, ask(url, "POST", "/v1/collections/docs/promote", body))
            state = ask(url, "GET", "/v1/collections/docs")
            assert state["base_points"] >= len(rows) - 100, state
            if number == 1:
                done(url, ask(url, "POST", "/v1/collections/docs/rollback", {"mode": "half"}))
                assert ask(url, "GET", "/v1/collections/docs")["previous"] is None
    assert day.searches > 20, day.searches
    kinds = [(job["kind"], job["state"]) for job in ask(url, "GET", "/v1/jobs")["jobs"]]
    assert kinds == [("promote", "done")] * 2 + [("rollback", "done"), ("promote", "done")], kinds
    try:
        ask(url, "POST", "/v1/collections/docs/promote", {"index": "../incoming", "sequence": 1})
        raise AssertionError("a path was taken for a name")
    except urllib.error.HTTPError as error:
        assert error.code == 400, error
    return day


def drained(roxanne, url, data, day):
    """A base comes while others answer: first /readyz says so, then searches are refused, and all else goes on."""
    with urllib.request.urlopen(url + "/readyz") as answer:
        assert answer.status == 200
    sequence = ask(url, "GET", "/v1/collections/docs")["sequence"]
    build(roxanne, data, {key: row for key, row in day.acked.items() if row is not None}, data / "incoming" / "drained")
    body = {"index": "drained", "sequence": sequence, "gate": {"recall_at_10": 0.9, "queries": 1000}, "mode": "drain", "drain_seconds": 1}
    job = ask(url, "POST", "/v1/collections/docs/promote", body)
    told, key = [], next(key for key, row in day.acked.items() if row is not None)
    search = json.dumps({"query": vector(0, 0), "limit": 3}).encode()
    while ask(url, "GET", f"/v1/jobs/{job['id']}")["state"] == "running":
        for path, data in [("/readyz", None), ("/collections/docs/points/query", search)]:
            request = urllib.request.Request(url + path, data=data, headers={"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    told.append((path, answer.status))
            except urllib.error.HTTPError as error:
                assert error.code == 503 and error.headers["retry-after"] and json.load(error)["code"] == "draining", error
                told.append((path, 503))
        assert ask(url, "POST", "/collections/docs/points", {"ids": [key]})
        ask(url, "PUT", "/collections/docs/points", {"points": [{"id": key, "vector": day.acked[key]}]})
    done(url, ask(url, "GET", f"/v1/jobs/{job['id']}"))
    searches = [status for path, status in told if path != "/readyz"]
    assert ("/readyz", 503) in told and told.index(("/readyz", 503)) < len(told) // 2, told
    # Others have a second to take over before searches are refused.
    assert searches[0] == 200 and 503 in searches, searches
    with urllib.request.urlopen(url + "/readyz") as answer:
        assert answer.status == 200
    assert len(ask(url, "POST", "/collections/docs/points/query", {"query": vector(0, 0), "limit": 3})["points"]) == 3


def main(roxanne):
    with tempfile.TemporaryDirectory() as data:
        day = None
        for told in ["at the end", "after a restart"]:
            with serving(roxanne, data) as url:
                if day is None:
                    day = night(roxanne, url, Path(data))
                    drained(roxanne, url, Path(data), day)
                day.url = url
                day.holds(told)
    print(f"a night: 4 promotions, in every mode, and a way back beside {day.searches} searches and writes to {len(day.acked)} points; nothing lost, no request failed")


main(sys.argv[1])
