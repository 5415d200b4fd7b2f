"""Collections of a server (`roxanne serve`), by the methods that those have which are opened here."""

from __future__ import annotations

import http.client
import json
import math
import re
import ssl
import struct
import threading
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import BudgetError, BusyError, CorruptError, DeviceError, GateError, InputError, Key, Matches, Metric, Point, RoxanneError, _keys, _rows
from ._aio import twin

__all__ = ["Client", "RemoteCollection"]

_DISTANCES: dict[str, Literal["Cosine", "Dot", "Euclid", "Manhattan"]] = {"cos": "Cosine", "dot": "Dot", "l2": "Euclid", "l1": "Manhattan"}
_DATATYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}
# Of one request: what the server takes, and what is worth a round trip.
_POINTS, _ROWS, _SEARCHES = 1000, 1000, 100
# What is asked by a body and changes nothing.
_LOOKS = ("/points", "/search", "/search/batch", "/scroll", "/count")


def _failure(status: int, body: bytes) -> RoxanneError:
    try:
        told = json.loads(body)
        text = f"{told['detail']} ({told['code']}, request {told['request_id']})"
    except (ValueError, KeyError, TypeError):
        text = f"the server answers {status}: {body[:200]!r}"
        told = {}
    code = told.get("code")
    kinds: dict[Any, type[RoxanneError]] = {"corruption": CorruptError, "gen_rejected": GateError, 429: BusyError, 503: BusyError, 504: BusyError, 507: BudgetError}
    kind = kinds.get(code) or kinds.get(status) or (InputError if 400 <= status < 500 else DeviceError)
    return kind(text)


class Client:
    """A server at `url` (port 6333 unless it says another), with a `key` where it asks for one. Threads may share it: each has a connection of its own. `tls` says whom to trust under
    https; the machine's authorities unless said. `timeout`: seconds to wait for an answer."""

    def __init__(
        self, url: str = "http://127.0.0.1:6333", key: str | None = None, *, timeout: float = 90.0, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise InputError(f"{url!r} is no address of a server: http://127.0.0.1:6333 is one")
        self.url = url.rstrip("/")
        self._parts, self._key, self._timeout, self._tls = parts, key, timeout, tls
        self._local = threading.local()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            host, port = self._parts.hostname or "", self._parts.port or 6333
            if self._parts.scheme == "https":
                connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)
            else:
                connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._local.connection = connection
        return connection

    def ask(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        """One request: `body` as JSON, or `raw` as rows of floats. Gives `result` of what comes back, or its bytes. Raises the kind of error that the
        same would raise here; `BusyError` where it may be asked again."""
        headers = {"content-type": "application/json" if raw is None else "application/octet-stream"}
        if self._key is not None:
            headers["api-key"] = self._key
        sent = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        connection = self._connection()
        # Without a byte of an answer a request on a connection that was kept may never have been read; it is asked anew if twice is as once.
        was_open = connection.sock is not None
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            status, kind, told = answer.status, answer.headers.get_content_type(), answer.read()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            connection.close()
            if was_open and (method != "POST" or path.partition("?")[0].endswith(_LOOKS)):
                return self.ask(method, path, body, raw=raw)
            raise DeviceError(f"{self.url}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise DeviceError(f"{self.url}: {error or type(error).__name__}") from error
        if not 200 <= status < 300:
            raise _failure(status, told)
        return json.loads(told)["result"] if kind == "application/json" else told

    def collections(self) -> list[str]:
        """Names of the collections that the key may see."""
        return sorted(one["name"] for one in self.ask("GET", "/collections")["collections"])

    def create(self, name: str, *, dim: int, metric: Metric = "cos", element: Literal["f32", "f16", "u8"] = "f32") -> RemoteCollection:
        """Makes an empty collection. Its keys are numbers and texts."""
        if metric not in _DISTANCES or element not in _DATATYPES:
            raise InputError(f"a server has no collections of {element} under {metric}")
        vectors = {"size": dim, "distance": _DISTANCES[metric], "datatype": _DATATYPES[element]}
        self.ask("PUT", f"/collections/{_quoted(name)}", {"vectors": vectors})
        return self.open(name)

    def open(self, name: str) -> RemoteCollection:
        """The collection of a name, or of an alias."""
        return RemoteCollection(self, name)

    def exists(self, name: str) -> bool:
        """Whether there is a collection, or an alias, of a name."""
        return bool(self.ask("GET", f"/collections/{_quoted(name)}/exists")["exists"])

    def drop(self, name: str) -> bool:
        """Removes a collection; gives whether it was there."""
        return bool(self.ask("DELETE", f"/collections/{_quoted(name)}"))

    acollections, acreate, aopen, aexists, adrop = twin(collections), twin(create), twin(open), twin(exists), twin(drop)

    def close(self) -> None:
        """Closes this thread's connection; another opens with the next request."""
        if connection := getattr(self._local, "connection", None):
            connection.close()
            self._local.connection = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._tls is not None:
            raise TypeError("a client with a TLS context of its own cannot be pickled")
        return _opened, (self.url, self._key, self._timeout)

    def __repr__(self) -> str:
        return f"<roxanne.Client {self.url}>"


def _opened(url: str, key: str | None, timeout: float) -> Client:
    return Client(url, key, timeout=timeout)


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _key_of(text: str) -> Key:
    """Ids that are numbers are numbers again."""
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < 1 << 64 else text


def _named(key: Key) -> str:
    """A key as a text, as the server has it: a number and its digits are one key, and so are all ways to write a UUID."""
    text = str(key)
    return str(uuid.UUID(text)) if re.fullmatch(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(-?[0-9a-fA-F]{4}){3}[0-9a-fA-F]{8}", text) else text


class RemoteCollection:
    """A collection of a server. What a write has returned from is on the server's disk, and every later search sees it."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self._path, self._v1 = f"/collections/{_quoted(name)}", f"/v1/collections/{_quoted(name)}"
        vectors = client.ask("GET", self._path)["config"]["params"]["vectors"]
        self._dim, self._distance = int(vectors["size"]), str(vectors["distance"])

    @property
    def info(self) -> dict[str, Any]:
        """Where it stands: `points`, `sequence` (the last batch), `base_points`, `in_memory`, the base, the recall that the server measures."""
        found: dict[str, Any] = self.client.ask("GET", self._v1)
        return found

    @property
    def distance(self) -> str:
        """Cosine, Dot, Euclid or Manhattan."""
        return self._distance

    @property
    def dim(self) -> int:
        """Coordinates of a vector."""
        return self._dim

    def __len__(self) -> int:
        return int(self.info["points"])

    def upsert(self, keys: Iterable[Key], vectors: ArrayLike, payloads: Sequence[dict[str, Any] | None] | None = None) -> None:
        """Puts points, in the place of those of their keys: a thousand at a time, each thousand wholly or not at all."""
        rows, names = _rows(vectors, self._dim, "vectors"), _keys(keys)
        if len(names) != len(rows) or (payloads is not None and len(payloads) != len(rows)):
            raise InputError(f"{len(names)} keys and {len(rows) if payloads is None else len(payloads)} payloads for {len(rows)} vectors")
        for first in range(0, len(names), _POINTS):
            some = range(first, min(first + _POINTS, len(names)))
            points = [{"id": names[i], "vector": rows[i].tolist(), "payload": (payloads[i] if payloads else None) or {}} for i in some]
            self.client.ask("PUT", f"{self._path}/points", {"points": points})

    def delete(self, keys: Iterable[Key]) -> None:
        """Removes the points of these keys, as far as they are there: a thousand at a time."""
        names = _keys(keys)
        for first in range(0, len(names), _POINTS):
            self.client.ask("POST", f"{self._path}/points/delete", {"points": names[first : first + _POINTS]})

    def get(self, key: Key) -> Point | None:
        """The point of a key."""
        found = self.get_many([key])
        return found[0] if found else None

    def get_many(self, keys: Iterable[Key]) -> list[Point]:
        """The points of those keys that are there, in the order of the keys."""
        names, found = _keys(keys), {}
        for first in range(0, len(names), _POINTS):
            body = {"ids": names[first : first + _POINTS], "with_vector": True, "with_payload": True}
            for point in self.client.ask("POST", f"{self._path}/points", body):
                found[str(point["id"])] = np.array(point["vector"], dtype=np.float32), point["payload"] or {}
        return [Point(key, *found[_named(key)]) for key in names if _named(key) in found]

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def iterate(self, filter: dict[str, Any] | None = None, *, page: int = 1000) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Keys and payloads in the order of keys; of those that pass, under a filter."""
        body: dict[str, Any] = {"limit": page, "filter": filter, "with_payload": True}
        while True:
            found = self.client.ask("POST", f"{self._path}/points/scroll", body)
            yield from ((point["id"], point["payload"] or {}) for point in found["points"])
            if found["next_page_offset"] is None:
                return
            body["offset"] = found["next_page_offset"]

    def count(self, filter: dict[str, Any] | None = None) -> int:
        """Live points; those that pass, under a filter."""
        return int(self.client.ask("POST", f"{self._path}/points/count", {"filter": filter})["count"])

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        filter: dict[str, Any] | None = None,
        list_size: int = 64,
        exact: bool = False,
        deadline: float | None = None,
    ) -> Matches:
        """As `Collection.search`. Keys are lists, as they may be of both kinds; `reads` and `micros` are not told, and 0. `deadline`: seconds a request,
        rounded up, after which `BusyError` is raised."""
        rows = _rows(queries, self._dim, "queries")
        hits: list[list[tuple[Key, float]]] = []
        wait = "" if deadline is None else f"timeout={max(math.ceil(deadline), 1)}"
        # An answer has 16 million numbers at most.
        at_once = max(min(_ROWS if filter is None and not exact else _SEARCHES, 2_000_000 // max(k, 1)), 1)
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            hits += self._by_rows(some, k, list_size, wait) if filter is None and not exact else self._by_json(some, k, list_size, wait, filter, exact)
        distances = np.full((len(rows), k), np.inf, dtype=np.float32)
        for row, found in enumerate(hits):
            distances[row, : len(found)] = [self._distance_of(score) for _, score in found]
        nothing = np.zeros(len(rows), dtype=np.uint64)
        return Matches([[key for key, _ in found] for found in hits], distances, nothing, nothing.copy(), [True] * len(rows))

    def _by_rows(self, rows: NDArray[np.float32], k: int, list_size: int, wait: str) -> list[list[tuple[Key, float]]]:
        path = f"{self._v1}/search?limit={k}&list_size={max(list_size, k)}" + (f"&{wait}" if wait else "")
        told = memoryview(self.client.ask("POST", path, raw=np.ascontiguousarray(rows, dtype="<f4").tobytes()))
        (count,), at, found = struct.unpack_from("<I", told), 4, []
        for _ in range(count):
            (of_row,), at, row = struct.unpack_from("<I", told, at), at + 4, []
            for _ in range(of_row):
                score, length = struct.unpack_from("<fH", told, at)
                row.append((_key_of(bytes(told[at + 6 : at + 6 + length]).decode()), score))
                at += 6 + length
            found.append(row)
        return found

    def _by_json(
        self, rows: NDArray[np.float32], k: int, list_size: int, wait: str, filter: dict[str, Any] | None, exact: bool
    ) -> list[list[tuple[Key, float]]]:
        params = {"hnsw_ef": max(list_size, k), "exact": exact}
        searches = [{"vector": row.tolist(), "limit": k, "filter": filter, "params": params, "with_payload": False} for row in rows]
        path = f"{self._path}/points/search/batch" + (f"?{wait}" if wait else "")
        return [[(hit["id"], hit["score"]) for hit in found] for found in self.client.ask("POST", path, {"searches": searches})]

    def _distance_of(self, score: float) -> float:
        return {"Cosine": 1.0 - score, "Dot": -score, "Euclid": score * score}.get(self._distance, score)

    def job(self, kind: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begins what takes long (`promote`, `rollback`, `rebuild`, `snapshot`, `measure`, `import`: docs/HTTP.md) and waits for its end. Raises `GateError`
        where it failed."""
        job = self.client.ask("POST", f"{self._v1}/{kind}", body)
        while job["state"] == "running":
            job = self.client.ask("GET", f"/v1/jobs/{job['id']}?wait=30")
        if job["state"] != "done":
            raise GateError(f"{kind}: {job['error'] or job['state']}")
        result: dict[str, Any] = job["result"] or {}
        return result

    def merge(self) -> None:
        """Builds a base of all points; the server does so by itself when there are enough."""
        self.job("rebuild")

    def promote(
        self,
        index: str,
        sequence: int,
        *,
        keep_previous: bool = True,
        gate: float | None = None,
        mode: Literal["overlap", "half", "drain"] | None = None,
    ) -> None:
        """Makes the index of this name in the server's `incoming` the base: it holds the collection as of batch `sequence`, or later. `gate`: the recall@10
        that it must reach."""
        of_gate = None if gate is None else {"recall_at_10": gate}
        self.job("promote", {"index": index, "sequence": sequence, "keep_previous": keep_previous, "gate": of_gate, "mode": mode})

    def rollback(self) -> None:
        """Puts the base before the last promotion back; what was written since stays."""
        self.job("rollback", {})

    def snapshot(self) -> str:
        """Copies all of it, at the server; gives the name of the copy."""
        return str(self.job("snapshot")["name"])

    aupsert, adelete, aget, aget_many, acount, asearch = twin(upsert), twin(delete), twin(get), twin(get_many), twin(count), twin(search)
    amerge, apromote, arollback, asnapshot = twin(merge), twin(promote), twin(rollback), twin(snapshot)

    def __repr__(self) -> str:
        return f"<roxanne.RemoteCollection {self.client.url} {self.name}>"
