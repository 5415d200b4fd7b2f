"""What the stores for LangChain and LlamaIndex share: the collection that they stand on, in a directory or of a server."""

from __future__ import annotations

import os
from collections.abc import Callable

from . import Collection, InputError, Metric, Path, Point, create
from . import open as open_here
from .client import Client, RemoteCollection

Points = Collection | RemoteCollection
_METRICS = {"Cosine": "cos", "Dot": "dot", "Euclid": "l2", "Manhattan": "l1"}


def opened(path: Path | None, client: Client | None, collection: str | None, metric: Metric, dim: Callable[[], int] | None) -> Points | None:
    """The collection in the directory `path`, or `collection` of the server of `client`; it is made where it is not there, for vectors of `dim()` coordinates; without
    `dim` there is none then."""
    if (path is None) == (client is None) or (client is None) != (collection is None):
        raise InputError("a path, or a client and a collection: one of both is expected")
    if client is not None and collection is not None:
        if client.exists(collection):
            return client.open(collection)
        return None if dim is None else client.create(collection, dim=dim(), metric=metric)
    assert path is not None
    if not os.path.exists(path):
        return None if dim is None else create(path, dim=dim(), metric=metric, keys="strings")
    found = open_here(path)
    if not isinstance(found, Collection):
        raise InputError(f"{os.fspath(path)}: an index, which does not change; a collection is expected")
    return found


def metric_of(points: Points) -> str:
    """What near means in it."""
    return str(points.info["metric"]) if isinstance(points, Collection) else _METRICS[points.distance]


def of_keys(points: Points, keys: list[str]) -> list[Point]:
    """The points of those keys that are there, in their order."""
    if isinstance(points, RemoteCollection):
        return points.get_many(keys)
    return [point for point in map(points.get, keys) if point is not None]


def close(points: Points) -> None:
    """Closes the collection; of a server, this thread's connection."""
    points.client.close() if isinstance(points, RemoteCollection) else points.close()
