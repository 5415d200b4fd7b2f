"""Drives LangChain's, LlamaIndex's and Haystack's stores for Qdrant, as they come from PyPI, against a server of ours.

    pip install -r requirements.txt
    python3 integrations.py ROXANNE

Embeddings are made of hashes, so no model is loaded. What is not there is asked for too, and must be refused. LangChain's own tests of
stores are in test_langchain.py.
"""

import asyncio
import hashlib
import math
import os
import sys
import tempfile
import uuid
import warnings

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack import Document as HaystackDocument
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore as LangChainStore
from langchain_qdrant.qdrant import QdrantVectorStoreError
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaIndexStore
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from serving import serving

warnings.simplefilter("error")
DIM = 16
TEXTS = ["apple", "bread", "cheese", "dates", "eggs", "figs"]
VECTORS = models.VectorParams(size=DIM, distance=models.Distance.COSINE)


def embed(text):
    return [byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]


def cosine(a, b):
    a, b = embed(a), embed(b)
    return sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)


def nearest(text, among):
    return sorted(among, key=lambda other: -cosine(text, other))


def diverse(text, among, count, fetch, diversity):
    """Maximal marginal relevance: near to the text, and not all alike."""
    left = nearest(text, among)[:fetch]
    chosen = [left.pop(0)]

    def worth(one):
        return (1 - diversity) * cosine(text, one) - diversity * max(cosine(one, other) for other in chosen)

    while left and len(chosen) < count:
        best = max(left, key=worth)
        left.remove(best)
        chosen.append(best)
    return chosen


def same(scores, text, found):
    """The scores are those of the texts found."""
    expected = [cosine(text, other) for other in found]
    assert len(scores) == len(found) and all(abs(a - b) < 1e-5 for a, b in zip(scores, expected)), (scores, expected)


def refused(ask, status):
    try:
        ask()
    except UnexpectedResponse as error:
        assert error.status_code == status, error
        return
    raise AssertionError("it was answered")


class HashEmbeddings(Embeddings):
    def embed_query(self, text):
        return embed(text)

    def embed_documents(self, texts):
        return [embed(text) for text in texts]


class HashEmbedding(BaseEmbedding):
    def _get_query_embedding(self, query):
        return embed(query)

    def _get_text_embedding(self, text):
        return embed(text)

    async def _aget_query_embedding(self, query):
        return embed(query)


def where(key, **condition):
    return models.Filter(must=[models.FieldCondition(key=key, **condition)])


def langchain(url, client):
    client.create_collection("langchain", vectors_config=VECTORS)
    store = LangChainStore(client=client, collection_name="langchain", embedding=HashEmbeddings())
    ids = [str(uuid.UUID(int=number)) for number in range(len(TEXTS))]
    documents = [Document(page_content=text, metadata={"n": n, "kind": "ab"[n % 2]}) for n, text in enumerate(TEXTS)]
    assert store.add_documents(documents, ids=ids) == ids
    found = store.similarity_search_with_score("cheese", k=3)
    assert [document.page_content for document, _ in found] == nearest("cheese", TEXTS)[:3]
    same([score for _, score in found], "cheese", [document.page_content for document, _ in found])
    assert found[0][0].metadata == {"n": 2, "kind": "a", "_id": ids[2], "_collection_name": "langchain"}
    assert store.similarity_search_with_score_by_vector(embed("cheese"), k=3) == found
    assert [document for document, _ in store.similarity_search_with_relevance_scores("cheese", k=3)] == [document for document, _ in found]
    assert [d.page_content for d in store.similarity_search("cheese", k=2, offset=1)] == nearest("cheese", TEXTS)[1:3]
    assert [d.page_content for d in store.similarity_search("cheese", k=6, score_threshold=0.99)] == ["cheese"]
    exact = models.SearchParams(exact=True, hnsw_ef=64)
    assert store.similarity_search_with_score("cheese", k=3, search_params=exact) == found
    some = where("metadata.kind", match=models.MatchValue(value="b"))
    assert [d.page_content for d in store.similarity_search("cheese", k=9, filter=some)] == nearest("cheese", TEXTS[1::2])
    some = where("metadata.n", range=models.Range(gte=2, lt=4))
    assert [d.page_content for d in store.as_retriever(search_kwargs={"filter": some}).invoke("figs")] == nearest("figs", TEXTS[2:4])
    assert sorted(d.page_content for d in store.get_by_ids([ids[5], ids[0]])) == ["apple", "figs"]
    assert store.delete([ids[0]]) and store.get_by_ids([ids[0]]) == [] and client.count("langchain").count == 5
    # Without ids it makes its own.
    made = store.add_texts(["grapes"], metadatas=[{"n": 6}])
    assert [d.page_content for d in store.get_by_ids(made)] == ["grapes"] and store.delete(made)
    # The same collection again.
    again = LangChainStore.from_existing_collection("langchain", HashEmbeddings(), url=url)
    assert [d.page_content for d in again.similarity_search("figs", k=1)] == ["figs"]
    again = LangChainStore.from_texts(["apple"], HashEmbeddings(), [{"n": 0}], ids[:1], collection_name="langchain", url=url)
    assert client.count("langchain").count == 6 and again.similarity_search("apple", k=1)[0].metadata["_id"] == ids[0]
    try:
        LangChainStore.from_existing_collection("langchain", HashEmbeddings(), url=url, distance=models.Distance.DOT)
        raise AssertionError("a collection of another distance was taken")
    except QdrantVectorStoreError:
        pass
    asyncio.run(langchain_async(store))
    assert client.count("langchain").count == 6
    # What is not there: a new collection whose only vector has the name "", diversity, search of texts.
    new = LangChainStore.from_documents(documents, HashEmbeddings(), collection_name="new", url=url)
    # The package hands on what it calls lambda_mult as the diversity.
    for diversity in [0.2, 0.5, 0.9]:
        found = new.max_marginal_relevance_search("zebra", k=4, fetch_k=6, lambda_mult=diversity)
        assert [document.page_content for document in found] == diverse("zebra", TEXTS, 4, 6, diversity)
    refused(lambda: store.similarity_search("cheese", filter=where("page_content", match=models.MatchText(text="cheese"))), 501)


async def langchain_async(store):
    ids = [str(uuid.UUID(int=100)), str(uuid.UUID(int=101))]
    assert await store.aadd_documents([Document(page_content=text) for text in ["honey", "ice"]], ids=ids) == ids
    (best, score), *_ = await store.asimilarity_search_with_score("honey", k=2)
    assert best.page_content == "honey" and abs(score - 1) < 1e-5
    assert [d.page_content for d in await store.asimilarity_search("ice", k=1)] == ["ice"]
    assert sorted(d.page_content for d in await store.aget_by_ids(ids)) == ["honey", "ice"]
    assert await store.adelete(ids) and await store.aget_by_ids(ids) == []


def node(number, text, document, **metadata):
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=str(uuid.UUID(int=number)), text=text, metadata=metadata, embedding=embed(text), relationships=source)


def llama_index_nodes():
    nodes = [node(n, text, f"document-{n // 2}", n=n, kind="ab"[n % 2], half=n / 2) for n, text in enumerate(TEXTS)]
    nodes[5].metadata.pop("kind")
    return nodes


def llama_index_store(store, count):
    """What any store for LlamaIndex does; the last two nodes are left."""
    nodes = llama_index_nodes()
    ids = [one.node_id for one in nodes]
    assert store.add(nodes) == ids

    def found(text, top=10, **conditions):
        result = store.query(VectorStoreQuery(query_embedding=embed(text), similarity_top_k=top, **conditions))
        same(result.similarities, text, [one.text for one in result.nodes])
        assert [one.node_id for one in result.nodes] == result.ids
        return [one.text for one in result.nodes]

    def filters(key, value, operator="=="):
        return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])

    assert found("eggs", 3) == nearest("eggs", TEXTS)[:3]
    expected = [("n", "==", 2, [2]), ("n", "!=", 2, [0, 1, 3, 4, 5]), ("n", ">", 2, [3, 4, 5]), ("n", ">=", 2, [2, 3, 4, 5])]
    expected += [("n", "<", 2, [0, 1]), ("n", "<=", 2, [0, 1, 2]), ("n", "in", [1, 3, 9], [1, 3])]
    expected += [("n", "nin", [1, 3], [0, 2, 4, 5]), ("half", "==", 1.5, [3]), ("kind", "==", "a", [0, 2, 4])]
    expected += [("kind", "in", ["a", "b"], [0, 1, 2, 3, 4]), ("kind", "is_empty", None, [5])]
    for key, operator, value, numbers in expected:
        assert found("figs", filters=filters(key, value, operator)) == nearest("figs", [TEXTS[n] for n in numbers]), (key, operator, value)
    for condition, numbers in [(FilterCondition.AND, [2]), (FilterCondition.OR, [0, 2, 4]), (FilterCondition.NOT, [1, 3, 5])]:
        both = MetadataFilters(filters=[MetadataFilter(key="n", value=2), filters("kind", "a")], condition=condition)
        assert found("figs", filters=both) == nearest("figs", [TEXTS[n] for n in numbers]), condition
    assert found("figs", doc_ids=["document-0", "document-2"]) == nearest("figs", TEXTS[:2] + TEXTS[4:])
    assert found("figs", node_ids=ids[1:3]) == nearest("figs", TEXTS[1:3])
    got = store.get_nodes(ids[1:3])
    assert [one.text for one in got] == TEXTS[1:3] and all(abs(a - b) < 1e-6 for a, b in zip(got[0].embedding, embed("bread")))
    assert [one.text for one in store.get_nodes(filters=filters("kind", "b"))] == ["bread", "dates"] and len(store.get_nodes()) == 6
    store.delete("document-0")
    assert count() == 4
    store.delete_nodes([ids[2]])
    store.delete_nodes(filters=filters("n", 3))
    assert [one.text for one in store.get_nodes()] == ["eggs", "figs"]
    return found, filters


def llama_index(url, client):
    aclient = AsyncQdrantClient(url=url)
    indexes = [{"field_name": "kind", "field_schema": models.PayloadSchemaType.KEYWORD}]
    store = LlamaIndexStore("llama", client=client, aclient=aclient, batch_size=4, payload_indexes=indexes)
    found, filters = llama_index_store(store, lambda: client.count("llama").count)
    nodes = llama_index_nodes()
    asyncio.run(llama_index_async(store))
    asyncio.run(aclient.close())
    # The same collection again, as the store of an index.
    again = LlamaIndexStore("llama", client=client)
    index = VectorStoreIndex(nodes[:4], storage_context=StorageContext.from_defaults(vector_store=again), embed_model=HashEmbedding())
    assert client.count("llama").count == 6
    best = index.as_retriever(similarity_top_k=2).retrieve("cheese")
    assert best[0].node.metadata["n"] == 2 and best[0].node.ref_doc_id == "document-1" and best[0].score >= best[1].score
    index.delete_ref_doc("document-1")
    assert client.count("llama").count == 4
    index = VectorStoreIndex.from_vector_store(again, embed_model=HashEmbedding())
    assert [one.node.text for one in index.as_retriever(similarity_top_k=1).retrieve("figs")] == ["figs"]
    # What is not there: search of texts, sparse vectors.
    refused(lambda: found("figs", filters=filters("kind", "a", "text_match")), 501)
    sparse = {"sparse_doc_fn": lambda texts: ([[1]] * len(texts), [[0.5]] * len(texts)), "sparse_query_fn": lambda texts: ([[1]], [[0.5]])}
    refused(lambda: LlamaIndexStore("hybrid", client=client, enable_hybrid=True, **sparse).add(nodes), 501)
    again.clear()
    assert not client.collection_exists("llama")


async def llama_index_async(store):
    assert await store.async_add([node(6, "grapes", "document-9", n=6), node(7, "honey", "document-9", n=7)])
    result = await store.aquery(VectorStoreQuery(query_embedding=embed("grapes"), similarity_top_k=1))
    assert [one.text for one in result.nodes] == ["grapes"]
    assert len(await store.aget_nodes()) == 4
    honey = MetadataFilters(filters=[MetadataFilter(key="n", value=7)])
    assert [one.text for one in await store.aget_nodes(filters=honey)] == ["honey"]
    await store.adelete_nodes([str(uuid.UUID(int=7))])
    await store.adelete("document-9")
    assert [one.text for one in await store.aget_nodes()] == ["eggs", "figs"]


def haystack(url, client):
    def open_store(index="haystack", **options):
        return QdrantDocumentStore(url=url, index=index, embedding_dim=DIM, progress_bar=False, **options)

    def condition(field, operator, value):
        return {"field": field, "operator": operator, "value": value}

    store = open_store(scroll_size=2, write_batch_size=4, payload_fields_to_index=[{"field_name": "meta.kind", "field_schema": "keyword"}])
    documents = [HaystackDocument(content=text, meta={"n": n, "kind": "ab"[n % 2]}, embedding=embed(text)) for n, text in enumerate(TEXTS)]
    assert store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE) == 6 and store.count_documents() == 6
    assert store.write_documents(documents, policy=DuplicatePolicy.SKIP) == 0
    try:
        store.write_documents(documents[:1], policy=DuplicatePolicy.FAIL)
        raise AssertionError("a document was written twice")
    except DuplicateDocumentError:
        pass
    a, late = condition("meta.kind", "==", "a"), condition("meta.n", ">", 1)
    expected = [(condition("meta.n", "==", 1), [1]), (condition("meta.n", "!=", 1), [0, 2, 3, 4, 5]), (late, [2, 3, 4, 5])]
    expected += [(condition("meta.n", "<=", 1), [0, 1]), (condition("meta.n", "in", [1, 3, 9]), [1, 3]), (a, [0, 2, 4]), (None, range(6))]
    expected += [(condition("meta.n", "not in", [1, 3]), [0, 2, 4, 5]), ({"operator": "AND", "conditions": [a, late]}, [2, 4])]
    expected += [({"operator": "OR", "conditions": [a, late]}, [0, 2, 3, 4, 5]), ({"operator": "NOT", "conditions": [a, late]}, [1])]
    for some, numbers in expected:
        got = sorted(document.content for document in store.filter_documents(some))
        assert got == [TEXTS[n] for n in numbers], (some, got)
    retriever = QdrantEmbeddingRetriever(store, top_k=3)
    found = retriever.run(embed("dates"))["documents"]
    assert [document.content for document in found] == nearest("dates", TEXTS)[:3] and found[0].id == documents[3].id
    same([document.score for document in found], "dates", [document.content for document in found])
    found = retriever.run(embed("dates"), filters=a, return_embedding=True)["documents"]
    assert [document.content for document in found] == nearest("dates", TEXTS[::2]) and len(found[0].embedding) == DIM
    assert [document.content for document in retriever.run(embed("dates"), score_threshold=0.99)["documents"]] == ["dates"]
    assert [document.content for document in store.get_documents_by_id([documents[4].id])] == ["eggs"]
    assert store.get_metadata_field_min_max("n") == {"min": 0, "max": 5} and store.count_documents_by_filter(a) == 3
    assert store.count_unique_metadata_by_filter(late, ["n", "kind"]) == {"n": 4, "kind": 2}
    store.get_metadata_fields_info()
    assert store.update_by_filter(a, {"kind": "c"}) == 3 and store.count_documents_by_filter(condition("meta.kind", "==", "c")) == 3
    assert [document.content for document in retriever.run(embed("apple"))["documents"]] == nearest("apple", TEXTS)[:3]
    store.delete_documents([documents[0].id])
    assert store.count_documents() == 5 and store.delete_by_filter(late) == 4 and store.count_documents() == 1
    # The same collection again.
    again = open_store()
    assert again.count_documents() == 1
    try:
        open_store(similarity="dot_product").count_documents()
        raise AssertionError("a collection of another distance was taken")
    except ValueError:
        pass
    asyncio.run(haystack_async(again, documents))
    store.delete_all_documents()
    assert store.count_documents() == 0
    store.write_documents(documents)
    store.delete_all_documents(recreate_index=True)
    assert store.count_documents() == 0
    for similarity in ["l2", "dot_product"]:
        settings = {"hnsw_config": {"m": 8}, "quantization_config": {"scalar": {"type": "int8"}}, "on_disk": True, "shard_number": 1}
        other = open_store(similarity, similarity=similarity, optimizers_config={"indexing_threshold": 100}, **settings)
        assert other.write_documents(documents) == 6
        found = QdrantEmbeddingRetriever(other, top_k=6).run(embed("eggs"))["documents"]
        distances = [math.dist(embed("eggs"), embed(document.content)) for document in found]
        products = [-sum(x * y for x, y in zip(embed("eggs"), embed(document.content))) for document in found]
        ordered = distances if similarity == "l2" else products
        assert len(found) == 6 and ordered == sorted(ordered) and found[0].content == "eggs", (similarity, ordered)
        assert all(abs(abs(document.score) - abs(value)) < 1e-5 for document, value in zip(found, ordered)), similarity
        other.close()
    # What is not there: ranges of dates, groups, points without a vector, sparse vectors.
    refused(lambda: store.filter_documents(condition("meta.day", ">", "2026-01-02T00:00:00")), 501)
    refused(lambda: retriever.run(embed("dates"), group_by="meta.kind"), 501)
    refused(lambda: store.write_documents([HaystackDocument(content="without an embedding")]), 501)
    sparse = open_store("sparse", use_sparse_embeddings=True, client_kwargs={"check_compatibility": False})
    refused(sparse.count_documents, 501)
    store.close()
    again.close()


async def haystack_async(store, documents):
    assert await store.write_documents_async(documents, policy=DuplicatePolicy.OVERWRITE) == 6
    found = (await QdrantEmbeddingRetriever(store, top_k=2).run_async(embed("figs")))["documents"]
    assert [document.content for document in found] == nearest("figs", TEXTS)[:2]
    assert len(await store.filter_documents_async({"field": "meta.kind", "operator": "==", "value": "b"})) == 3
    await store.delete_documents_async([documents[0].id])
    assert await store.count_documents_async() == 5
    await store.close_async()


def main(roxanne):
    with tempfile.TemporaryDirectory() as data, serving(roxanne, data) as url:
        client = QdrantClient(url=url, prefer_grpc=False, timeout=30)
        langchain(url, client)
        llama_index(url, client)
        haystack(url, client)
        client.close()
    print("LangChain, LlamaIndex, Haystack: stores opened, reused, written, searched, filtered, deleted; what is not there is refused")


if __name__ == "__main__":
    main(sys.argv[1])
