"""LangChain's vector store over a collection, of a directory or of a server.

    from roxanne.langchain import RoxanneVectorStore

    store = RoxanneVectorStore(embedding=embeddings, path="docs")                               # in this process
    store = RoxanneVectorStore(embedding=embeddings, client=rx.Client(url), collection="docs")  # of `roxanne serve`

A document's text and metadata are its payload, `{"text": ..., "metadata": {...}}`, and can be filtered by in Qdrant's form:
`filter={"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}`. Needs langchain-core.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from numpy.typing import NDArray

from . import InputError, Matches, Metric, Path, Point
from ._points import Points, close, metric_of, of_keys, opened
from .client import Client

__all__ = ["RoxanneVectorStore"]

Filter = dict[str, Any]


class RoxanneVectorStore(VectorStore):
    """A store over the collection in the directory `path`, or over `collection` of the server of `client`; it is made where it is not there, for
    vectors as long as `embedding` gives them, under `metric`. What was added is on the disk when the call returns."""

    def __init__(
        self,
        embedding: Embeddings,
        path: Path | None = None,
        *,
        client: Client | None = None,
        collection: str | None = None,
        metric: Metric = "cos",
        list_size: int = 64,
    ) -> None:
        self._embedding, self._list_size = embedding, list_size
        points = opened(path, client, collection, metric, lambda: len(embedding.embed_query("a text")))
        assert points is not None
        self._points, self._metric = points, metric_of(points)

    @property
    def embeddings(self) -> Embeddings:
        """What makes vectors of texts."""
        return self._embedding

    @property
    def points(self) -> Points:
        """The collection itself."""
        return self._points

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Puts texts, in the place of those of their ids; ids are made where there are none. Gives the ids."""
        listed = list(texts)
        for what, of in (("metadatas", metadatas), ("ids", ids)):
            if of is not None and len(of) != len(listed):
                raise InputError(f"{len(of)} {what} for {len(listed)} texts")
        if not listed:
            return []
        names = [str(uuid.uuid4()) if name is None else str(name) for name in (ids or [None] * len(listed))]
        payloads = [{"text": text, "metadata": (metadatas[i] if metadatas else None) or {}} for i, text in enumerate(listed)]
        # Of one id the last counts.
        last = {name: i for i, name in enumerate(names)}
        rows, vectors = list(last.values()), np.asarray(self._embedding.embed_documents(listed), dtype=np.float32)
        self._points.upsert([names[i] for i in rows], vectors[rows], [payloads[i] for i in rows])
        return names

    def add_documents(self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any) -> list[str]:
        """The same of documents, which may bring their ids."""
        names = list(ids) if ids is not None else [document.id for document in documents]
        return self.add_texts([one.page_content for one in documents], [one.metadata for one in documents], ids=names, **kwargs)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Removes the documents of these ids, as far as they are there; all, without."""
        self._points.delete([str(key) for key, _ in self._points.iterate()] if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of those ids that are there."""
        return [_document(point) for point in of_keys(self._points, [str(name) for name in ids])]

    def similarity_search(self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any) -> list[Document]:
        """The documents whose texts are most like `query`."""
        return self.similarity_search_by_vector(self._embedding.embed_query(query), k, filter=filter, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any) -> list[Document]:
        """The documents nearest to a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter=filter, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same, each with its distance: less is nearer (1 - similarity for cos, squared for l2, the negative product for dot)."""
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, filter=filter, **kwargs)

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, list_size: int | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same of a vector."""
        found = self._search(embedding, k, filter, list_size)
        return [(_document(point), distance) for point, distance in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """`k` of the nearest `fetch_k` documents, near to `query` and unlike each other (maximal marginal relevance; 1 is near alone, 0 unlike alone)."""
        return self.max_marginal_relevance_search_by_vector(self._embedding.embed_query(query), k, fetch_k, lambda_mult, filter=filter, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The same of a vector."""
        points = [point for point, _ in self._search(embedding, fetch_k, filter, None)]
        chosen = maximal_marginal_relevance(np.asarray(embedding), [point.vector.tolist() for point in points], lambda_mult, k)
        return [_document(points[i]) for i in chosen]

    def _search(self, embedding: list[float], k: int, filter: Filter | None, list_size: int | None) -> list[tuple[Point, float]]:
        query: NDArray[np.float32] = np.asarray([embedding], dtype=np.float32)
        found: Matches = self._points.search(query, k, filter=filter, list_size=list_size or self._list_size)
        keys = [str(key) for key in found.keys[0]]
        distances = dict(zip(keys, found.distances[0].tolist(), strict=False))
        return [(point, distances[str(point.key)]) for point in of_keys(self._points, keys)]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        scores: dict[str, Callable[[float], float]] = {
            "cos": lambda distance: 1.0 - distance / 2.0,
            "dot": lambda distance: 0.5 - distance / 2.0,
            "l2": lambda distance: 1.0 / (1.0 + distance),
            "l1": lambda distance: 1.0 / (1.0 + distance),
        }
        return scores[self._metric]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> RoxanneVectorStore:
        """A store that holds `texts`; where it is (`path`, or `client` and `collection`) as for the store itself."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def close(self) -> None:
        """Closes the collection; of a server, this thread's connection."""
        close(self._points)


def _document(point: Point) -> Document:
    return Document(id=str(point.key), page_content=point.payload.get("text", ""), metadata=point.payload.get("metadata", {}))
