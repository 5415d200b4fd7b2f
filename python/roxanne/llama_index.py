"""LlamaIndex's vector store over a collection, of a directory or of a server.

    from roxanne.llama_index import RoxanneVectorStore

    store = RoxanneVectorStore(path="docs")                                        # in this process
    store = RoxanneVectorStore(client=rx.Client(url), collection="docs")           # of `roxanne serve`
    index = VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store))

A node is a point under its id; its payload is `{"text": ..., "metadata": {...}, "ref_doc_id": ..., "node": ..., "type": ...}`. Needs llama-index-core.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from . import InputError, Metric, Path, Point
from ._points import Points, close, metric_of, of_keys, opened
from .client import Client

__all__ = ["RoxanneVectorStore"]

Filter = dict[str, Any]
# Of so many times as many the unlike are chosen.
_MMR_FACTOR = 4
_SIMILARITIES: dict[str, Callable[[float], float]] = {
    "cos": lambda distance: 1.0 - distance,
    "dot": lambda distance: -distance,
    "l2": lambda distance: 1.0 / (1.0 + distance),
    "l1": lambda distance: 1.0 / (1.0 + distance),
}


class RoxanneVectorStore(BasePydanticVectorStore):
    """A store over the collection in the directory `path`, or over `collection` of the server of `client`; it is made by the first nodes that are added, where it is not
    there, for vectors as long as theirs, under `metric`. What was added is on the disk when the call returns."""

    stores_text: bool = True
    _list_size: int = PrivateAttr()
    _open: Callable[[int | None], Points | None] = PrivateAttr()
    _points: Points | None = PrivateAttr(default=None)
    _making: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _where: dict[str, Any] = PrivateAttr()

    def __init__(
        self,
        path: Path | None = None,
        *,
        client: Client | None = None,
        collection: str | None = None,
        metric: Metric = "cos",
        list_size: int = 64,
    ) -> None:
        super().__init__(stores_text=True)
        self._list_size = list_size
        self._open = lambda dim: opened(path, client, collection, metric, None if dim is None else lambda: dim)
        self._where = {"path": path, "client": client, "collection": collection, "metric": metric, "list_size": list_size}
        self._points = self._open(None)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._where["client"] is None:
            raise TypeError("a store in a directory belongs to the process that opened it")
        return _again, (self._where,)

    def _there(self, dim: int | None = None) -> Points | None:
        """The collection, which another may have made meanwhile; with `dim` it is made."""
        with self._making:
            # One without points is there all the same, although it is false.
            if self._points is None:
                self._points = self._open(dim)
            return self._points

    @classmethod
    def class_name(cls) -> str:
        """Its name among LlamaIndex's components."""
        return "RoxanneVectorStore"

    @property
    def client(self) -> Points | None:
        """The collection itself; `None` before the first nodes have made it."""
        return self._there()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Puts nodes, in the place of those of their ids. Gives the ids."""
        if not nodes:
            return []
        vectors = np.asarray([node.get_embedding() for node in nodes], dtype=np.float32)
        points = self._there(vectors.shape[1])
        assert points is not None
        # Of one id the last counts.
        last = {node.node_id: row for row, node in enumerate(nodes)}
        rows = list(last.values())
        points.upsert(list(last), vectors[rows], [_payload(nodes[row]) for row in rows])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Removes the nodes of a document."""
        self._delete({"must": [_match("ref_doc_id", ref_doc_id)]})

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any) -> None:
        """Removes nodes by their ids, or those that pass; those of both where both are given."""
        if node_ids is None and filters is None:
            raise InputError("ids or filters are expected: clear() removes all nodes")
        points = self._there()
        if node_ids is not None and filters is None:
            if points is not None:
                points.delete(node_ids)
        else:
            self._delete(_asked(filters, node_ids, None))

    def clear(self) -> None:
        """Removes all nodes."""
        self._delete(None)

    def _delete(self, filter: Filter | None) -> None:
        if (points := self._there()) is not None:
            points.delete([str(key) for key, _ in points.iterate(filter)])

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes of those ids that are there, in their order; those that pass; all, without."""
        if (points := self._there()) is None:
            return []
        if node_ids is None or filters is not None:
            node_ids = [str(key) for key, _ in points.iterate(_asked(filters, node_ids, None))]
        return [_node(point) for point in of_keys(points, node_ids)]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to a vector (mode `default`), or near to it and unlike each other (`mmr`, at `mmr_threshold`; 1 is near alone)."""
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise InputError(f"mode {query.mode.value!r} is neither default nor mmr")
        if query.query_embedding is None:
            raise InputError("a query has a vector: query_embedding is None")
        if (there := self._there()) is None:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        diverse = query.mode == VectorStoreQueryMode.MMR
        k = query.similarity_top_k * (_MMR_FACTOR if diverse else 1)
        # An index that keeps no texts itself asks with an empty list of ids for all.
        asked = _asked(query.filters, query.node_ids or None, query.doc_ids or None)
        row = np.asarray([query.query_embedding], dtype=np.float32)
        found = there.search(row, k, filter=asked, list_size=max(self._list_size, k))
        keys, similarity = [str(key) for key in found.keys[0]], _SIMILARITIES[metric_of(there)]
        of_key = {key: similarity(distance) for key, distance in zip(keys, found.distances[0].tolist(), strict=False)}
        points = {str(point.key): point for point in of_keys(there, keys)}
        # One that was deleted between the two is none.
        keys = [key for key in keys if key in points]
        if diverse:
            vectors = [points[key].vector.tolist() for key in keys]
            top, threshold = query.similarity_top_k, query.mmr_threshold
            keys = get_top_k_mmr_embeddings(query.query_embedding, vectors, None, top, embedding_ids=keys, mmr_threshold=threshold)[1]
        return VectorStoreQueryResult(nodes=[_node(points[key]) for key in keys], similarities=[of_key[key] for key in keys], ids=keys)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`, on a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`, on a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    async def adelete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any) -> None:
        """As `delete_nodes`, on a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    async def aclear(self) -> None:
        """As `clear`, on a thread."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """As `get_nodes`, on a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`, on a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def close(self) -> None:
        """Closes the collection; of a server, this thread's connection."""
        if self._points is not None:
            close(self._points)


def _again(where: dict[str, Any]) -> RoxanneVectorStore:
    return RoxanneVectorStore(**where)


def _payload(node: BaseNode) -> dict[str, Any]:
    told = node_to_metadata_dict(node)
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    # As JSON has it, times as texts among them.
    metadata = json.loads(told["_node_content"])["metadata"]
    return {"text": text, "metadata": metadata, "ref_doc_id": node.ref_doc_id, "node": told["_node_content"], "type": told["_node_type"]}


def _node(point: Point) -> BaseNode:
    if not {"node", "type"} <= point.payload.keys():
        raise InputError(f"the point {point.key!r} is no node of LlamaIndex: its payload has {sorted(point.payload)}")
    node = metadata_dict_to_node({"_node_content": point.payload["node"], "_node_type": point.payload["type"]})
    node.embedding = point.vector.tolist()
    return node


def _match(key: str, value: Any) -> Filter:
    return {"key": key, "match": {"value": value}}


def _asked(filters: MetadataFilters | None, node_ids: list[str] | None, doc_ids: list[str] | None) -> Filter | None:
    """All of these as one filter; `None` where there are none."""
    must: list[Filter] = []
    if filters is not None and filters.filters:
        must.append(_all_of(filters))
    if node_ids is not None:
        must.append({"has_id": node_ids})
    if doc_ids is not None:
        must.append({"key": "ref_doc_id", "match": {"any": doc_ids}})
    return {"must": must} if must else None


def _all_of(filters: MetadataFilters) -> Filter:
    conditions = [_all_of(one) if isinstance(one, MetadataFilters) else _condition(one) for one in filters.filters]
    names = {FilterCondition.AND: "must", FilterCondition.OR: "should", FilterCondition.NOT: "must_not"}
    return {names[filters.condition or FilterCondition.AND]: conditions}


def _condition(one: MetadataFilter) -> Filter:
    key, value = f"metadata.{one.key}", one.value
    ranges = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}
    match one.operator:
        case FilterOperator.EQ | FilterOperator.CONTAINS if isinstance(value, float):
            return {"key": key, "range": {"gte": value, "lte": value}}
        case FilterOperator.EQ | FilterOperator.CONTAINS:
            return _match(key, value)
        case FilterOperator.NE:
            return {"must_not": [_condition(MetadataFilter(key=one.key, value=value))]}
        case FilterOperator.IN | FilterOperator.ANY:
            return {"key": key, "match": {"any": value}}
        case FilterOperator.NIN:
            return {"must_not": [{"key": key, "match": {"any": value}}]}
        case FilterOperator.ALL if isinstance(value, list):
            return {"must": [_match(key, each) for each in value]}
        case FilterOperator.IS_EMPTY:
            return {"is_empty": {"key": key}}
        case operator if operator in ranges and isinstance(value, int | float):
            return {"key": key, "range": {ranges[operator]: value}}
        case operator:
            raise InputError(f"operator {operator.value!r} with {value!r} is no filter by payload")
