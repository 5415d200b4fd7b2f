"""Drives an unmodified qdrant-client against a server of ours: python3 qdrant.py ROXANNE"""

import random
import sys
import tempfile
import uuid
import warnings

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from serving import serving

warnings.simplefilter("error")
COLORS = ["red", "blue"]


def points(count, dim):
    rng = random.Random(1)
    for number in range(count):
        payload = {"color": COLORS[number % 2], "n": number, "nested": {"tags": ["a", "b"] if number % 3 else ["c"]}}
        yield models.PointStruct(id=number, vector=[rng.random() for _ in range(dim)], payload=payload)


def collections(client):
    assert client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    assert client.collection_exists("docs") and not client.collection_exists("other")
    assert [c.name for c in client.get_collections().collections] == ["docs"]
    info = client.get_collection("docs")
    assert info.status == models.CollectionStatus.GREEN and info.points_count == 0
    assert info.config.params.vectors == models.VectorParams(size=4, distance=models.Distance.COSINE)
    try:
        client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
        raise AssertionError("a collection was made twice")
    except UnexpectedResponse as error:
        assert error.status_code == 409


def writes(client):
    name = str(uuid.UUID(int=7))
    assert client.upsert("docs", points=list(points(200, 4)), wait=True).status == models.UpdateStatus.COMPLETED
    client.upsert("docs", points=models.Batch(ids=[name, 1000], vectors=[[1, 0, 0, 0], [0, 1, 0, 0]], payloads=[{"n": -1}, {"n": -2}]))
    client.upload_points("docs", [models.PointStruct(id=2000 + i, vector=[1, 1, 1, i + 1.0]) for i in range(50)], batch_size=16)
    assert client.count("docs").count == 252
    return name


def searches(client, name):
    best = client.query_points("docs", query=[1, 0, 0, 0], limit=3, with_payload=True, with_vectors=True).points[0]
    assert best.id == name and abs(best.score - 1) < 1e-6 and best.vector == [1, 0, 0, 0] and best.payload == {"n": -1}
    condition = models.Filter(
        must=[
            models.FieldCondition(key="color", match=models.MatchValue(value="blue")),
            models.FieldCondition(key="n", range=models.Range(gte=10, lt=50)),
        ],
        must_not=[models.FieldCondition(key="nested.tags[]", match=models.MatchAny(any=["c"]))],
    )
    expected = {n for n in range(10, 50) if n % 2 == 1 and n % 3}
    found = client.query_points("docs", query=[1, 0, 0, 0], query_filter=condition, limit=100).points
    assert {point.id for point in found} == expected
    assert [point.score for point in found] == sorted((point.score for point in found), reverse=True)
    assert client.count("docs", count_filter=condition).count == len(expected)
    batch = [models.QueryRequest(query=[0, 1, 0, 0], limit=1), models.QueryRequest(query=3, limit=2)]
    first, second = client.query_batch_points("docs", requests=batch)
    assert first.points[0].id == 1000 and len(second.points) == 2 and 3 not in [point.id for point in second.points]
    assert client.query_points("docs", query=[1, 0, 0, 0], score_threshold=0.9999, limit=10).points[0].id == name
    seen, offset = [], None
    while True:
        page, offset = client.scroll("docs", limit=64, offset=offset)
        seen += [point.id for point in page]
        if offset is None:
            break
    assert len(seen) == 252 and len(set(seen)) == 252
    assert client.retrieve("docs", ids=[name, 77_777], with_vectors=True)[0].vector == [1, 0, 0, 0]


def changes(client, name):
    def payload(number):
        return client.retrieve("docs", [number])[0].payload

    client.set_payload("docs", payload={"x": 1}, points=[3, 5])
    client.overwrite_payload("docs", payload={"y": 1}, points=[7])
    client.delete_payload("docs", keys=["n"], points=[9])
    client.clear_payload("docs", points_selector=[11])
    assert payload(3)["x"] == 1 and payload(3)["color"] == "blue" and payload(7) == {"y": 1}
    assert "n" not in payload(9) and payload(11) == {}
    client.create_payload_index("docs", field_name="color", field_schema="keyword")
    red = models.Filter(must=[models.FieldCondition(key="color", match=models.MatchValue(value="red"))])
    client.delete("docs", points_selector=models.FilterSelector(filter=red))
    assert client.count("docs").count == 152
    point = models.PointStruct(id=1, vector=[1, 2, 3, 4])
    operations = [
        models.UpsertOperation(upsert=models.PointsList(points=[point])),
        models.DeleteOperation(delete=models.PointIdsList(points=[2000])),
    ]
    client.batch_update_points("docs", update_operations=operations)
    named = models.Filter(must=[models.HasIdCondition(has_id=[1, 2000, name])])
    assert client.count("docs", count_filter=named).count == 2


def aliases(client):
    make = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="docs", alias_name="live"))
    assert client.update_collection_aliases(change_aliases_operations=[make])
    assert [(a.alias_name, a.collection_name) for a in client.get_aliases().aliases] == [("live", "docs")]
    assert client.count("live").count == client.count("docs").count
    rename = models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name="live", new_alias_name="now"))
    client.update_collection_aliases(change_aliases_operations=[rename])
    assert [a.alias_name for a in client.get_collection_aliases("docs").aliases] == ["now"] and not client.collection_exists("live")
    remove = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="now"))
    client.update_collection_aliases(change_aliases_operations=[remove])
    assert client.get_aliases().aliases == []


def snapshots(client):
    before = client.count("docs").count
    made = client.create_snapshot("docs")
    assert [snapshot.name for snapshot in client.list_snapshots("docs")] == [made.name] and made.size > 0
    client.delete("docs", points_selector=[1])
    assert client.count("docs").count == before - 1
    assert client.recover_snapshot("docs", location=f"file:///snapshots/docs/{made.name}")
    assert client.count("docs").count == before and client.retrieve("docs", [1])[0].id == 1
    assert client.delete_snapshot("docs", made.name) and client.list_snapshots("docs") == []


def what_is_not_there(client):
    for ask in [
        lambda: client.query_points("docs", query=[1, 0, 0, 0], using="text"),
        lambda: client.create_collection("many", vectors_config={"a": models.VectorParams(size=2, distance=models.Distance.DOT)}),
    ]:
        try:
            ask()
            raise AssertionError("it was answered")
        except UnexpectedResponse as error:
            assert error.status_code == 501, error


def main(roxanne):
    with tempfile.TemporaryDirectory() as data, serving(roxanne, data) as url:
        client = QdrantClient(url=url, prefer_grpc=False, timeout=30)
        collections(client)
        name = writes(client)
        searches(client, name)
        changes(client, name)
        aliases(client)
        snapshots(client)
        what_is_not_there(client)
        assert client.delete_collection("docs") and not client.collection_exists("docs")
    print("qdrant-client: collections, upserts, queries, filters, scroll, payloads, deletes, aliases, snapshots as they should be")


main(sys.argv[1])
