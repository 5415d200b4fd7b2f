"""roxanne: an SSD vector-search index. Build it, serve it from flash, know its recall.

    import roxanne as rx

    rx.build("base.fbin", "my.rx", metric="cos")            # or an array; keys=[...] names the rows
    with rx.open("my.rx", ram="2G") as index:
        found = index.search(queries, k=10, list_size=64)   # [nq, dim] in, [nq, k] out
        found.keys, found.distances, found.reads

    with rx.create("docs", dim=384, metric="cos", keys="strings") as docs:
        docs.upsert(["a", "b"], vectors, payloads=[{"lang": "en"}, {"lang": "de"}])
        docs.search(query, k=3, filter={"must": [{"key": "lang", "match": {"value": "en"}}]})

    with rx.Client("http://127.0.0.1:6333") as client:      # the same of `roxanne serve`
        client.create("docs", dim=384).upsert(["a", "b"], vectors)

`roxanne.langchain` and `roxanne.llama_index` have vector stores over both. What takes time has a twin for
asyncio (`await index.asearch(...)`). The GIL is released while the engine works, and Ctrl-C is heard within a moment (not by
the twins, whose threads work on).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native
from ._aio import twin
from ._native import BudgetError, BusyError, CorruptError, DeviceError, GateError, InputError, RoxanneError, __version__

__all__ = [
    "BudgetError",
    "BusyError",
    "Client",
    "Collection",
    "CorruptError",
    "DeviceError",
    "GateError",
    "Index",
    "InputError",
    "Matches",
    "Point",
    "RoxanneError",
    "__version__",
    "abuild",
    "aimport_index",
    "build",
    "create",
    "import_index",
    "open",
    "plan",
    "restore",
]

Key = int | str
Path = str | os.PathLike[str]
Metric = Literal["l2", "cos", "dot", "l1", "hamming"]
Element = Literal["f32", "f16", "bf16", "u8", "i8", "binary"]
NO_KEY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _size(size: int | str | None) -> int | None:
    """Bytes, or text such as "2G" (G is 2^30)."""
    if size is None or isinstance(size, int):
        return size
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", size.strip())
    if parts is None:
        raise InputError(f"{size!r} is no size; write 2G or a number of bytes")
    return int(float(parts[1]) * _UNITS[parts[2]])


def _rows(values: ArrayLike, dim: int, what: str) -> NDArray[np.float32]:
    """`[n, dim]` f32, copied where it is anything else."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: numbers are expected, not {array.dtype}")
    array = np.ascontiguousarray(np.atleast_2d(array), dtype=np.float32)
    if array.ndim != 2 or (array.size and array.shape[1] != dim):
        raise InputError(f"{what}: an array [n, {dim}] is expected, not {list(np.shape(values))}")
    return array


def _keys(keys: Iterable[Key]) -> list[Key]:
    listed = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
    for key in listed:
        if isinstance(key, bool) or not isinstance(key, int | str) or (isinstance(key, int) and not 0 <= key < 1 << 64):
            raise InputError(f"{key!r} is no key: whole numbers of 0 to 2^64 - 1 and texts are")
    return listed


def _text(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


@dataclass(frozen=True)
class Matches:
    """What `nq` queries found, nearest first. What is not there, because fewer were found than asked for, has the key `NO_KEY` (or none, of texts)
    and an infinite distance."""

    keys: NDArray[np.uint64] | list[list[str]] | list[list[Key]]
    """`[nq, k]`, or a list of texts a query; of a server a list of keys a query."""
    distances: NDArray[np.float32]
    """`[nq, k]`: squared for l2, 1 - similarity for cos, the negative product for dot."""
    reads: NDArray[np.uint64]
    """Pages that each query read from the device."""
    micros: NDArray[np.uint64]
    """Microseconds that each took, from the moment it was begun."""
    complete: list[bool]
    """Whether each came to its end, before its deadline."""

    def recall(self, truth: ArrayLike) -> float:
        """The share of the true neighbors `[nq, at least k]`, numbers, that were found."""
        if isinstance(self.keys, list):
            raise InputError("recall is of keys that are numbers")
        k = self.keys.shape[1]
        wanted = np.asarray(truth)[:, :k]
        found = sum(len(np.intersect1d(row, true)) for row, true in zip(self.keys, wanted, strict=True))
        return float(found) / max(wanted.size, 1)


@dataclass(frozen=True)
class Point:
    """A point of a collection."""

    key: Key
    vector: NDArray[np.float32]
    payload: dict[str, Any]


def _matches(found: dict[str, Any], k: int) -> Matches:
    keys = found["keys"]
    return Matches(
        keys if isinstance(keys, list) else np.frombuffer(keys, dtype="<u8").reshape(-1, k),
        np.frombuffer(found["distances"], dtype="<f4").reshape(-1, k),
        np.frombuffer(found["reads"], dtype="<u8"),
        np.frombuffer(found["micros"], dtype="<u8"),
        found["complete"],
    )


def _asked(k: int, list_size: int, threads: int, exact: bool, deadline: float | None) -> _native.Asked:
    for name, value in (("k", k), ("list_size", list_size), ("threads", threads)):
        if not 0 <= value < 1 << 32:
            raise InputError(f"{name} is {value}")
    return {"k": k, "list_size": max(list_size, k), "threads": threads, "exact": exact, "deadline": deadline}


class Index:
    """An index that was built, and does not change. Every thread may search it."""

    def __init__(self, path: Path, ram: int | str | None = None) -> None:
        self._path, self._ram = os.fspath(path), _size(ram)
        self._native = _native.NativeIndex(self._path, self._ram)
        self._info = self._native.info()

    @property
    def info(self) -> dict[str, Any]:
        """What it is: `n`, `dim`, `metric`, `element`, bytes."""
        return dict(self._info)

    def __len__(self) -> int:
        return int(self._info["n"])

    def search(
        self, queries: ArrayLike, k: int = 10, *, list_size: int = 64, threads: int = 0, exact: bool = False, deadline: float | None = None
    ) -> Matches:
        """The `k` nearest of each query `[dim]` or `[nq, dim]`. `list_size`: more finds more and reads more. `threads`: 0 is one a core.
        `exact`: by comparing with every vector. `deadline`: seconds after which a query ends with what it has found."""
        rows = _rows(queries, self._info["dim"], "queries")
        return _matches(self._native.search(rows.reshape(-1), _asked(k, list_size, threads, exact, deadline)), k)

    def get(self, key: Key) -> NDArray[np.float32] | None:
        """The vector of a key."""
        vector = self._native.get(str(key))
        return None if vector is None else np.array(vector, dtype=np.float32)

    asearch, aget = twin(search), twin(get)

    def close(self) -> None:
        """Nothing to do: it closes when nobody holds it."""

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Index, (self._path, self._ram))

    def __repr__(self) -> str:
        return f"<roxanne.Index {self._path!r}: {len(self)} x {self._info['dim']} {self._info['element']}, {self._info['metric']}>"


class Collection:
    """Points under keys that come, change and go while searches run. One process writes at a time; any number of others open it with
    `read_only=True` and follow it. What a write has returned from is on the disk, and every later search sees it."""

    def __init__(self, native: _native.NativeCollection, path: str) -> None:
        self._native, self._path = native, path
        self._dim = int(native.info()["dim"])

    @property
    def info(self) -> dict[str, Any]:
        """Where it stands: `n`, `sequence` (the last batch), `base_points`, `in_memory`."""
        return self._native.info()

    def __len__(self) -> int:
        return int(self.info["n"])

    def upsert(
        self, keys: Iterable[Key], vectors: ArrayLike, payloads: Sequence[dict[str, Any] | None] | None = None, *, insert_only: bool = False
    ) -> int:
        """Puts points, in the place of those of their keys: all or none. Gives the number of the batch. `insert_only` refuses keys that are there."""
        texts = None if payloads is None else ["" if payload is None else json.dumps(payload) for payload in payloads]
        rows = _rows(vectors, self._dim, "vectors")
        return self._native.upsert(_keys(keys), rows.reshape(-1), texts, insert_only)

    def delete(self, keys: Iterable[Key]) -> int:
        """Removes the points of these keys; gives how many there were."""
        return self._native.delete(_keys(keys))

    def get(self, key: Key) -> Point | None:
        """The point of a key."""
        found = self._native.get(_keys([key])[0])
        return None if found is None else Point(key, np.array(found[0], dtype=np.float32), json.loads(found[1] or "{}"))

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def iterate(self, filter: dict[str, Any] | None = None, *, page: int = 1000) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Keys and payloads in the order of keys; of those that pass, under a filter."""
        after: Key | None = None
        while points := self._native.scroll(after, page, _text(filter)):
            yield from ((key, json.loads(payload or "{}")) for key, payload in points)
            after = points[-1][0]

    def count(self, filter: dict[str, Any] | None = None) -> int:
        """Live points; those that pass, under a filter."""
        return self._native.count(_text(filter))

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,
        list_size: int = 64,
        threads: int = 0,
        exact: bool = False,
        deadline: float | None = None,
    ) -> Matches:
        """As `Index.search`; with a filter by payload in Qdrant's form (docs/HTTP.md), only points that pass."""
        rows = _rows(queries, self._dim, "queries")
        asked = _asked(k, list_size, threads, exact, deadline)
        return _matches(self._native.search(rows.reshape(-1), asked, _text(filter)), k)

    def merge(self) -> None:
        """Brings all that waits in memory into the base, where it lies; builds one where there is none."""
        self._native.merge()

    def promote(self, index: Path, sequence: int, *, keep_previous: bool = True) -> None:
        """Makes a finished index the base: it holds the collection as of batch `sequence`, or later. Its directory moves into the collection's."""
        self._native.promote(os.fspath(index), sequence, keep_previous)

    def rollback(self) -> None:
        """Puts the base before the last promotion back; what was written since stays."""
        self._native.rollback()

    def snapshot(self, out: Path) -> int:
        """Copies all of it into the new directory `out`; gives the last batch in it."""
        return self._native.snapshot(os.fspath(out))

    def catch_up(self) -> int:
        """Opened with `read_only`: sees at least what was acknowledged before the call; gives the last batch that is seen."""
        return self._native.catch_up()

    aupsert, adelete, aget, acount, asearch = twin(upsert), twin(delete), twin(get), twin(count), twin(search)
    amerge, apromote, arollback, asnapshot, acatch_up = twin(merge), twin(promote), twin(rollback), twin(snapshot), twin(catch_up)

    def close(self) -> None:
        """Ends what runs behind it, and lets another process write."""
        self._native.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<roxanne.Collection {self._path!r}>"


def plan(source: Path, *, metric: Metric = "l2", ram: int | str | None = None, device: str = "auto") -> dict[str, Any]:
    """What a build of the file `source` (or "synth:n=1000000,dim=128") would take, in bytes, without doing it."""
    return dict(json.loads(_native.plan(os.fspath(source), metric, _size(ram), device)))


def build(
    source: Path | ArrayLike,
    out: Path,
    *,
    metric: Metric = "l2",
    keys: Iterable[Key] | None = None,
    ram: int | str | None = None,
    threads: int = 0,
    device: str = "auto",
    max_degree: int = 48,
    capacity: int = 0,
) -> dict[str, Any]:
    """Builds an index in the new directory `out`, of a file of vectors or an array `[n, dim]` of f32, f16, u8 or i8. `keys` names the rows, which have their
    numbers else. `capacity`: room for so many vectors, for a base that a collection changes in place. Gives what it took."""
    listed = None if keys is None else _keys(keys)

    def built(path: str) -> dict[str, Any]:
        report = _native.build(path, os.fspath(out), metric, listed, _size(ram), threads, device, max_degree, capacity)
        return dict(json.loads(report))

    if isinstance(source, str | os.PathLike):
        return built(os.fspath(source))
    array = np.asarray(source)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"an array [n, dim] of numbers is expected, not {array.dtype} {list(array.shape)}")
    if array.dtype not in (np.float32, np.float16, np.uint8, np.int8):
        array = array.astype(np.float32)
    # Beside what it becomes, where there is room for it.
    place = tempfile.mkdtemp(prefix=".roxanne-", dir=os.path.dirname(os.path.abspath(os.fspath(out))))
    try:
        path = os.path.join(place, "rows.npy")
        np.save(path, np.ascontiguousarray(array))
        del array
        return built(path)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def import_index(
    system: Literal["hnswlib", "faiss", "usearch", "diskann"],
    path: Path,
    out: Path,
    *,
    metric: Metric | None = None,
    element: Element | None = None,
    new_graph: bool = False,
    ram: int | str | None = None,
    threads: int = 0,
    max_degree: int = 48,
    capacity: int = 0,
) -> dict[str, Any]:
    """Builds an index in the new directory `out` of one that `system` saved at `path`: its vectors and keys, and the lowest level of its graph, unless `new_graph`.
    `metric` and `element` (f32 if not given) are what files of hnswlib and DiskANN do not say. Gives what it took."""
    path, out = os.fspath(path), os.fspath(out)
    report = _native.import_index(system, path, out, metric, element, new_graph, _size(ram), threads, max_degree, capacity)
    return dict(json.loads(report))


def open(path: Path, *, ram: int | str | None = None, read_only: bool = False) -> Index | Collection:  # noqa: A001 - as others call it
    """Opens the index or the collection in a directory. `ram`: most memory, such as "2G", of which what codes leave keeps pages."""
    path = os.fspath(path)
    if os.path.isdir(os.path.join(path, "store")):
        return Collection(_native.NativeCollection.open(path, _size(ram), read_only), path)
    return Index(path, ram)


def create(
    path: Path,
    *,
    dim: int,
    metric: Metric = "cos",
    element: Element = "f32",
    keys: Literal["numbers", "strings"] = "numbers",
) -> Collection:
    """Makes an empty collection in a new directory."""
    if keys not in ("numbers", "strings"):
        raise InputError(f"keys are numbers or strings, not {keys!r}")
    path = os.fspath(path)
    return Collection(_native.NativeCollection.create(path, dim, metric, element, keys), path)


def restore(snapshot: Path, path: Path) -> int:
    """Makes a collection in the new directory `path` of a snapshot, every byte of which is checked; gives the last batch in it."""
    return _native.restore(os.fspath(snapshot), os.fspath(path))


abuild, aimport_index = twin(build), twin(import_index)

from .client import Client  # noqa: E402 - it is made of what is above
