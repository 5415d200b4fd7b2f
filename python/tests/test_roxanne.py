"""The Python door: arrays in, arrays out, and the errors that users meet."""

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import roxanne as rx

DIM = 16


def rows(n, seed=1, dim=DIM):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(20, dim)) * 5
    return (centers[rng.integers(0, 20, n)] + rng.normal(size=(n, dim))).astype(np.float32)


def truth(base, queries, k):
    distances = ((queries[:, None, :].astype(np.float64) - base[None].astype(np.float64)) ** 2).sum(-1)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    out = tmp_path_factory.mktemp("index") / "my.rx"
    report = rx.build(rows(3000), out)
    assert report["n"] == 3000 and report["dim"] == DIM and not report["already_complete"]
    return out


def test_an_array_is_built_opened_and_searched(index):
    base, queries = rows(3000), rows(300, seed=2)
    with rx.open(index, ram="64M") as opened:
        assert len(opened) == 3000 and opened.info["metric"] == "l2" and "3000 x 16 f32" in repr(opened)
        found = opened.search(queries, k=10, list_size=100)
        assert found.keys.shape == found.distances.shape == (300, 10) and found.keys.dtype == np.uint64
        wanted = truth(base, queries, 10)
        assert found.recall(wanted) > 0.98
        exact = opened.search(queries[:20], k=10, exact=True)
        assert exact.recall(wanted[:20]) > 0.999 and exact.reads.shape == (20,)
        expected = ((queries[0] - base[found.keys[0]]) ** 2).sum(-1)
        assert np.allclose(found.distances[0], expected, rtol=1e-4)
        # One query, lists, other types and other orders in memory are the same.
        one = opened.search(queries[0], k=3, list_size=100)
        assert (one.keys[0] == found.keys[0, :3]).all()
        for same in (queries[:1].tolist(), queries[:1].astype(">f8"), np.asfortranarray(queries)[:1], queries[::2][:1]):
            assert (opened.search(same, k=3, list_size=100).keys == one.keys).all()
        assert np.array_equal(opened.get(7), base[7]) and opened.get(9999) is None
        copy = pickle.loads(pickle.dumps(opened))
        assert (copy.search(queries[0], k=3, list_size=100).keys == one.keys).all()
        everything = opened.search(queries[0], k=4000, list_size=4000)
        assert everything.keys[0, -1] == rx.NO_KEY and np.isinf(everything.distances[0, -1])


def test_keys_of_ones_own_and_other_types(tmp_path):
    base = np.clip(rows(800) * 8 + 128, 0, 255).astype(np.uint8)
    names = [f"row {i}" for i in range(800)]
    rx.build(base, tmp_path / "named.rx", keys=names)
    found = rx.open(tmp_path / "named.rx").search(base[:3], k=1)
    assert found.keys == [["row 0"], ["row 1"], ["row 2"]]
    with pytest.raises(rx.InputError, match="recall is of keys"):
        found.recall([[1], [2], [3]])
    rx.build(base.astype(np.float64), tmp_path / "numbers.rx", keys=np.arange(800) + 10**12, metric="cos")
    assert rx.open(tmp_path / "numbers.rx").search(base[5], k=1).keys[0, 0] == 5 + 10**12
    assert rx.build(base, tmp_path / "named.rx", keys=names)["already_complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named.rx", "numbers.rx"], "nothing is left behind"


def test_a_collection_changes_while_it_is_searched(tmp_path):
    base = rows(2000)
    payload = [{"n": i, "even": i % 2 == 0} for i in range(2000)]
    with rx.create(tmp_path / "docs", dim=DIM, metric="l2") as docs:
        assert docs.upsert(range(2000), base, payload) == 1 and len(docs) == 2000
        even = {"must": [{"key": "even", "match": {"value": True}}]}
        assert docs.count() == 2000 and docs.count(even) == 1000
        found = docs.search(base[:50], k=2, filter=even)
        assert (found.keys % 2 == 0).all() and found.keys[4, 0] == 4
        docs.merge()
        assert docs.info["base_points"] == 2000 and docs.info["in_memory"] == 0
        assert docs.delete([3, 4, 99_999]) == 2 and 3 not in docs and docs.get(4) is None
        point = docs.get(5)
        assert point.payload == {"n": 5, "even": False} and np.array_equal(point.vector, base[5])
        assert docs.search(base[5], k=1).keys[0, 0] == 5
        assert [key for key, _ in docs.iterate(even, page=300)] == [i for i in range(2000) if i % 2 == 0 and i != 4]
        reader = rx.open(tmp_path / "docs", read_only=True)
        docs.upsert([3], base[3:4], [None])
        assert reader.catch_up() == docs.info["sequence"] and 3 in reader
        with pytest.raises(rx.RoxanneError, match="opened for reading"):
            reader.delete([3])
        reader.close()
        with pytest.raises(rx.BusyError, match="has it open for writing"):
            rx.open(tmp_path / "docs")
        sequence = docs.info["sequence"]
        rx.build(base[:1500], tmp_path / "new.rx", keys=range(1500), capacity=4000)
        with pytest.raises(rx.GateError, match="lacks key"):
            docs.promote(tmp_path / "new.rx", sequence)
        rx.build(base, tmp_path / "whole.rx", keys=range(2000), capacity=4000)
        docs.promote(tmp_path / "whole.rx", sequence)
        assert docs.info["previous"] is not None and len(docs) == 2000
        docs.upsert([7], [base[7] + 1])
        docs.rollback()
        assert np.array_equal(docs.get(7).vector, base[7] + 1) and len(docs) == 1999
        assert docs.snapshot(tmp_path / "copy") == docs.info["sequence"]
    with pytest.raises(rx.InputError, match="closed"):
        docs.count()
    rx.restore(tmp_path / "copy", tmp_path / "again")
    with rx.open(tmp_path / "again") as again:
        assert len(again) == 1999


def test_what_makes_no_sense_is_told_and_changes_nothing(tmp_path, index):
    opened = rx.open(index)
    query = rows(1)[0]
    for call, error, words in [
        (lambda: rx.open(tmp_path / "nowhere"), rx.RoxanneError, "nowhere"),
        (lambda: rx.open(index, ram="1K"), rx.BudgetError, "bytes"),
        (lambda: rx.open(index, ram="much"), rx.InputError, "no size"),
        (lambda: opened.search(query[:5]), rx.InputError, r"\[n, 16\]"),
        (lambda: opened.search(np.zeros((2, 2, DIM))), rx.InputError, r"\[n, 16\]"),
        (lambda: opened.search(["x"] * DIM), rx.InputError, "numbers are expected"),
        (lambda: opened.search(np.array([None] * DIM)), rx.InputError, "numbers are expected"),
        (lambda: opened.search(query * np.nan), rx.InputError, "coordinate 0"),
        (lambda: opened.search(query, k=0), rx.InputError, "k"),
        (lambda: opened.search(query, k=-1), rx.InputError, "k is -1"),
        (lambda: opened.search(query, deadline=-1.0), rx.InputError, "deadline"),
        (lambda: rx.build(np.zeros(5), tmp_path / "a.rx"), rx.InputError, r"\[n, dim\]"),
        (lambda: rx.build(rows(10), tmp_path / "a.rx", metric="far"), rx.InputError, "far"),
        (lambda: rx.build(rows(10), tmp_path / "a.rx", keys=[1, "b"] * 5), rx.InputError, "not some of each"),
        (lambda: rx.build(rows(10), tmp_path / "a.rx", keys=[1, 2]), rx.InputError, "2 keys"),
        (lambda: rx.build(rows(10) * np.inf, tmp_path / "a.rx"), rx.InputError, "row 0"),
        (lambda: rx.build(rows(10), index), rx.InputError, "left untouched"),
        (lambda: rx.build(tmp_path / "none.fbin", tmp_path / "a.rx"), rx.InputError, "none.fbin"),
        (lambda: rx.create(tmp_path / "c", dim=0), rx.InputError, "dimension of 0"),
        (lambda: rx.create(tmp_path / "c", dim=2, keys="both"), rx.InputError, "both"),
    ]:
        with pytest.raises(error, match=words):
            call()
    assert list(tmp_path.iterdir()) == []
    with rx.create(tmp_path / "docs", dim=2, metric="l2") as docs:
        for call, words in [
            (lambda: docs.upsert([1], [[1.0, np.nan]]), "point 0"),
            (lambda: docs.upsert([1, 2], [[1.0, 2.0]]), "as many of each"),
            (lambda: docs.upsert([-1], [[1.0, 2.0]]), "no key"),
            (lambda: docs.upsert(["a"], [[1.0, 2.0]]), "keys are numbers"),
            (lambda: docs.upsert([1, 1], [[1.0, 2.0], [1.0, 2.0]]), "one key"),
            (lambda: docs.upsert([1], [[1.0, 2.0]], [{"x": "y" * 70_000}]), "payload"),
            (lambda: docs.search([1.0, 2.0], filter={"must": [{"key": 3}]}), "must"),
            (lambda: docs.rollback(), "nothing to go back to"),
        ]:
            with pytest.raises(rx.InputError, match=words):
                call()
        docs.merge()
        assert docs.upsert([], np.zeros((0, 2))) == 0 and docs.search(np.zeros((0, 2)), k=3).keys.shape == (0, 3)
        with pytest.raises(rx.InputError, match="k 2147483648 is not in"):
            docs.search([1.0, 2.0], k=1 << 31)
        assert len(docs) == 0 and docs.search([1.0, 2.0], k=3).keys.tolist() == [[int(rx.NO_KEY)] * 3]
        docs.upsert([1], [[1.0, 2.0]])
        with pytest.raises(rx.InputError, match="key 1 is there already"):
            docs.upsert([1], [[1.0, 2.0]], insert_only=True)


def test_others_run_while_it_works(index):
    opened, queries, turns = rx.open(index), np.tile(rows(500, seed=3), (20, 1)), 0
    done = threading.Event()
    thread = threading.Thread(target=lambda: (opened.search(queries, list_size=200), done.set()))
    thread.start()
    while not done.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 3


def test_ctrl_c_ends_a_build_and_leaves_nothing(tmp_path):
    program = f"import roxanne as rx; print('begun', flush=True); rx.build('synth:n=3000000,dim=64', {str(tmp_path / 'big.rx')!r})"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "begun\n"
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0 and "KeyboardInterrupt" in errors, errors
    assert not (tmp_path / "big.rx").exists()


def test_the_readme_is_true(tmp_path):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        os.chdir(before)


def test_a_plan_says_what_a_build_takes():
    plan = rx.plan("synth:n=1000000,dim=128,type=u8", metric="l2", ram="8G")
    assert plan["n"] == 1_000_000 and plan["serve_ram_bytes"] < plan["index_bytes"]


FOREIGN = Path(__file__).parents[2] / "tests" / "data" / "foreign"


@pytest.mark.parametrize(
    ("system", "name", "said", "n"),
    [
        ("hnswlib", "hnswlib.bin", {"metric": "l2"}, 220),
        ("faiss", "faiss-map.index", {}, 240),
        ("usearch", "f32.usearch", {"metric": "cos"}, 220),
        ("diskann", "ann", {"metric": "l2", "element": "u8"}, 240),
    ],
)
def test_an_index_of_another_system_is_imported(tmp_path, system, name, said, n):
    out = tmp_path / "my.rx"
    assert rx.import_index(system, FOREIGN / name, out, **said)["n"] == n
    with rx.open(out) as opened:
        # Keys are 2 * row + 5, and every twelfth row was deleted where it can be.
        vector = opened.get(7)
        assert opened.search(vector, k=1).keys[0, 0] == 7 and (opened.get(5) is None) == (n == 220)
    # Files of faiss and USearch say what near means, those of the others do not.
    wrong = {"metric": "l1"} if system in ("faiss", "usearch") else {**said, "metric": None}
    with pytest.raises(rx.InputError, match="near means"):
        rx.import_index(system, FOREIGN / name, tmp_path / "other.rx", **wrong)
    with pytest.raises(rx.InputError, match=name):
        rx.import_index("faiss" if system == "usearch" else "usearch", FOREIGN / name, tmp_path / "other.rx")
    assert not (tmp_path / "other.rx").exists()


def test_twins_for_asyncio_say_the_same_and_go_on_side_by_side(tmp_path):
    base = rows(800)

    async def all_of_it():
        report = await rx.abuild(base, tmp_path / "my.rx", metric="l2")
        assert report["n"] == 800
        with rx.open(tmp_path / "my.rx") as index:
            found = await asyncio.gather(*(index.asearch(base[i], k=3) for i in range(0, 800, 50)))
            assert [one.keys[0, 0] for one in found] == list(range(0, 800, 50))
            assert np.array_equal(await index.aget(7), base[7])
            with pytest.raises(rx.InputError):
                await index.asearch(base[0, :3])
        with rx.create(tmp_path / "docs", dim=DIM, metric="l2") as docs:
            await asyncio.gather(*(docs.aupsert([i], base[i : i + 1]) for i in range(20)))
            assert await docs.acount() == 20 and await docs.adelete([3]) == 1 and await docs.aget(3) is None
            assert (await docs.asearch(base[4], k=1)).keys == [[4]]
            await docs.amerge()
            assert await docs.asnapshot(tmp_path / "copy") == docs.info["sequence"]

    asyncio.run(all_of_it())
