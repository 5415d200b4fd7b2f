"""Our own Python client of the server, and our own store for LangChain, beside the collection that is opened here and LangChain's standard tests.

    ROXANNE=path/to/roxanne pytest -p no:asyncio test_own.py          with the wheel of python/ installed
"""

import asyncio
import datetime
import os
import pickle
import threading

import numpy as np
import pytest
import roxanne as rx
from integrations import TEXTS, HashEmbedding, embed, llama_index_nodes, llama_index_store, nearest
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode
from roxanne.client import Client
from roxanne.langchain import RoxanneVectorStore
from roxanne.llama_index import RoxanneVectorStore as LlamaIndexStore
from serving import serving

pytestmark = pytest.mark.anyio
DIM = 12


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(os.environ["ROXANNE"], tmp_path_factory.mktemp("data"), "--log-level", "error") as url:
        yield url


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client
        for name in client.collections():
            client.drop(name)


def some(n, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(20, DIM))[np.arange(n) % 20] * 3 + rng.normal(size=(n, DIM))).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cos", "dot", "l1"])
def test_a_server_says_what_a_collection_here_says(client, tmp_path, metric):
    vectors, queries = some(2500), some(30, 2)
    keys = [f"k{i}" for i in range(2500)]
    payloads = [{"i": i, "even": i % 2 == 0} if i % 3 else None for i in range(2500)]
    here = rx.create(tmp_path / "c", dim=DIM, metric=metric, keys="strings")
    there = client.create("c", dim=DIM, metric=metric)
    for collection in (here, there):
        collection.upsert(keys, vectors, payloads)
        collection.delete(keys[100:120])
        assert len(collection) == 2480 and "k5" in collection and "k105" not in collection
    even = {"must": [{"key": "even", "match": {"value": True}}]}
    assert here.count(even) == there.count(even) > 500
    assert list(here.iterate(even)) == list(there.iterate(even, page=100))
    for asked in ({}, {"filter": even}, {"exact": True}, {"filter": even, "exact": True}):
        ours, theirs = here.search(queries, 7, list_size=200, **asked), there.search(queries, 7, list_size=200, **asked)
        assert ours.keys == theirs.keys, asked
        assert np.allclose(ours.distances, theirs.distances, rtol=1e-4, atol=1e-4), asked
    assert np.array_equal(here.get("k7").vector, there.get("k7").vector) and here.get("k7").payload == there.get("k7").payload
    assert there.get("none") is None and [point.key for point in there.get_many(["k9", "none", "k2"])] == ["k9", "k2"]
    assert there.search(queries[:1], 5, filter={"must": [{"key": "i", "match": {"value": 4}}]}).keys == [["k4"]]
    here.close()


def test_numbers_are_keys_and_jobs_come_to_their_end(client):
    points = client.create("n", dim=DIM, metric="l2", element="f16")
    points.upsert(range(300), some(300))
    assert points.search(some(300)[3], 1).keys == [[3]] and points.get(3).key == 3 and points.dim == DIM
    points.merge()
    assert points.info["base_points"] == 300
    assert points.job("measure", {"list_sizes": [50]})["points"][0]["recall"] > 0.9
    assert points.snapshot()
    with pytest.raises(rx.InputError, match="not kept"):
        points.rollback()
    with pytest.raises(rx.InputError, match="incoming"):
        points.promote("none", 0, gate=0.9, mode="half")


def test_errors_have_their_kinds(client, url):
    with pytest.raises(rx.InputError, match="doesn't exist"):
        client.open("none")
    points = client.create("c", dim=DIM)
    with pytest.raises(rx.InputError, match="already exists"):
        client.create("c", dim=DIM)
    for bad in (np.full((1, DIM), np.nan, np.float32), np.zeros((1, DIM), np.float32), np.ones((1, DIM + 1))):
        with pytest.raises(rx.InputError):
            points.upsert([1], bad)
    with pytest.raises(rx.InputError, match="2 keys"):
        points.upsert([1, 2], some(1))
    with pytest.raises(rx.InputError, match="binary"):
        client.create("d", dim=DIM, element="binary")
    for bad in ("localhost:6333", "http://localhost:6333/prefix", "ftp://localhost"):
        with pytest.raises(rx.InputError, match="address"):
            Client(bad)
    with pytest.raises(rx.DeviceError, match="refused"):
        Client("http://127.0.0.1:9").collections()
    assert len(points) == 0
    again = pickle.loads(pickle.dumps(client))
    assert again.url == url and again.collections() == ["c"]


def test_threads_share_a_client_and_connections_that_were_closed_open_again(client):
    points, vectors, failed = client.create("c", dim=DIM), some(400), []
    points.upsert(range(400), vectors)

    def search(first):
        try:
            for i in range(first, 400, 4):
                assert points.search(vectors[i], 1, list_size=100).keys == [[i]]
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=search, args=(first,)) for first in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed, failed
    # As a server does that was idle too long.
    client._connection().sock.shutdown(2)
    assert len(points) == 400
    client._connection().sock.shutdown(2)
    assert points.search(vectors[5], 1).keys == [[5]]
    # What may have been done is not done again unasked.
    client._connection().sock.shutdown(2)
    with pytest.raises(rx.DeviceError):
        points.delete([7])
    assert len(points) == 400


class TestOfAServer(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, client):
        yield RoxanneVectorStore(self.get_embeddings(), client=client, collection="standard")


class TestHere(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        store = RoxanneVectorStore(self.get_embeddings(), tmp_path / "standard")
        yield store
        store.close()


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_store_filters_and_is_found_again(client, tmp_path, place):
    embedding = VectorStoreIntegrationTests.get_embeddings()
    where = {"path": tmp_path / "s"} if place == "here" else {"client": client, "collection": "s"}
    store = RoxanneVectorStore.from_texts(["a", "b", "c"], embedding, [{"lang": "en"}, {"lang": "de"}, {"lang": "en"}], ids=["1", "2", "x"], **where)
    english = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}
    assert sorted(one.page_content for one in store.similarity_search("a", k=3, filter=english)) == ["a", "c"]
    found = store.similarity_search_with_score("b", k=3)
    assert found[0][0].page_content == "b" and found[0][1] == pytest.approx(0, abs=1e-5) and found[0][1] <= found[1][1] <= found[2][1]
    assert store.similarity_search_with_relevance_scores("b", k=1)[0][1] == pytest.approx(1, abs=1e-5)
    assert len(store.max_marginal_relevance_search("a", k=2, fetch_k=3)) == 2
    assert [one.id for one in store.get_by_ids(["2", "none", "x"])] == ["2", "x"]
    store.close()
    again = RoxanneVectorStore(embedding, **where)
    assert [one.id for one in again.similarity_search("a", k=1)] == ["1"]
    assert again.delete() and again.similarity_search("a") == []
    again.close()
    with pytest.raises(rx.InputError, match="one of both"):
        RoxanneVectorStore(embedding)


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_store_for_llama_index_does_what_theirs_does(client, tmp_path, place):
    where = {"path": tmp_path / "s"} if place == "here" else {"client": client, "collection": "s"}
    store = LlamaIndexStore(**where)
    # Before the first nodes there is nothing.
    assert store.client is None and store.get_nodes() == [] and store.query(VectorStoreQuery(query_embedding=[1.0])).nodes == []
    store.delete("document-0")
    llama_index_store(store, lambda: len(store.client))
    store.close()
    store, nodes = LlamaIndexStore(**where), llama_index_nodes()
    index = VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=HashEmbedding())
    assert len(store.client) == 6 and [one.text for one in index.as_retriever(similarity_top_k=2).retrieve("dates")] == nearest("dates", TEXTS)[:2]
    # Near alone is as it was; else the nearest is the first all the same.
    for threshold in (1.0, 0.3):
        query = VectorStoreQuery(query_embedding=embed("figs"), similarity_top_k=3, mode=VectorStoreQueryMode.MMR, mmr_threshold=threshold)
        found = [one.text for one in store.query(query).nodes]
        assert found[0] == "figs" and len(set(found)) == 3 and (threshold < 1 or found == nearest("figs", TEXTS)[:3])
    tags = nodes[0].model_copy(update={"id_": "with tags"})
    tags.metadata = {"tags": ["red", "round"]}
    assert store.add([tags, nodes[1], tags]) == ["with tags", nodes[1].node_id, "with tags"] and len(store.client) == 7
    for operator, value, expected in [("contains", "red", 1), ("any", ["blue", "round"], 1), ("all", ["red", "round"], 1), ("all", ["red", "blue"], 0)]:
        filters = MetadataFilters(filters=[MetadataFilter(key="tags", value=value, operator=operator)])
        assert len(store.get_nodes(filters=filters)) == expected, (operator, value)
    wrong = MetadataFilters(filters=[MetadataFilter(key="tags", value="e", operator="text_match")])
    for call in (lambda: store.get_nodes(filters=wrong), lambda: store.query(VectorStoreQuery()), store.delete_nodes):
        with pytest.raises(rx.InputError):
            call()
    wrong = MetadataFilters(filters=[MetadataFilter(key="n", value=None, operator=">")])
    with pytest.raises(rx.InputError):
        store.delete_nodes(filters=wrong)
    assert len(store.client) == 7
    # Times are texts in JSON.
    nodes[2].metadata["when"] = datetime.datetime(2026, 11, 27)
    store.add(nodes[2:3])
    assert store.get_nodes([nodes[2].node_id])[0].metadata["when"] == "2026-11-27T00:00:00"
    if place == "there":
        assert pickle.loads(pickle.dumps(store)).get_nodes([nodes[1].node_id])[0].text == nodes[1].text
    else:
        with pytest.raises(TypeError, match="belongs to the process"):
            pickle.dumps(store)
    assert asyncio.run(store.aquery(VectorStoreQuery(query_embedding=embed("figs")))).nodes[0].text == "figs"
    store.delete_nodes([f"none {i}" for i in range(70_000)] + ["with tags"])
    assert len(store.client) == 6
    store.client.upsert(["other"], np.ones((1, len(embed("figs"))), dtype=np.float32), [{"text": "by another"}])
    with pytest.raises(rx.InputError, match="no node of LlamaIndex"):
        store.get_nodes()
    store.clear()
    assert len(store.client) == 0 and store.get_nodes() == []
    store.close()


def test_a_store_for_llama_index_finds_what_another_has_made(client):
    one, other = (LlamaIndexStore(client=client, collection="s") for _ in range(2))
    assert one.add(llama_index_nodes()) and len(other.get_nodes()) == 6


def test_a_store_for_llama_index_takes_an_empty_collection_for_one(tmp_path):
    nodes, path = llama_index_nodes(), tmp_path / "s"
    store = LlamaIndexStore(path)
    rx.create(path, dim=len(nodes[0].embedding), metric="l2", keys="strings").close()
    assert store.client is not None and len(store.client) == 0 and store.client is store.client
    assert store.add(nodes) and store.client.info["metric"] == "l2" and len(store.get_nodes()) == 6
    store.close()
