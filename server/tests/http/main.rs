//! A server on loopback, asked as a client of Qdrant asks, and as others do.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod access;
mod jobs;
mod server;

use serde_json::{Value, json};
use server::{Server, options};

fn ids(points: &Value) -> Vec<Value> {
    points.as_array().unwrap().iter().map(|point| point["id"].clone()).collect()
}

#[test]
fn points_are_written_found_changed_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    assert_eq!(
        server.well("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Euclid"}, "hnsw_config": {"m": 16}})),
        json!(true)
    );
    server.refused("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}}), 409, "already exists");
    assert_eq!(server.well("GET", "/collections/c/exists", Value::Null)["exists"], json!(true));
    assert_eq!(server.well("GET", "/collections", Value::Null), json!({"collections": [{"name": "c"}]}));
    let uuid = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26";
    let points = json!({"points": [
        {"id": 1, "vector": [0.0, 0.0], "payload": {"city": "Rom", "n": 1}},
        {"id": 2, "vector": [3.0, 4.0], "payload": {"city": "Ulm", "n": 2}},
        {"id": uuid, "vector": {"": [6.0, 8.0]}},
        {"id": 1, "vector": [0.0, 1.0], "payload": {"city": "Rom", "n": 3}},
    ]});
    assert_eq!(server.well("PUT", "/collections/c/points?wait=true", points)["status"], "completed");
    let batch = json!({"batch": {"ids": [10, 11], "vectors": [[10.5, 0.0], [11.0, 0.0]], "payloads": [null, {"city": "Ulm"}]}});
    server.well("PUT", "/collections/c/points", batch);
    assert_eq!(server.well("GET", "/collections/c", Value::Null)["points_count"], json!(5));

    let found = server.well("POST", "/collections/c/points/search", json!({"vector": [0.0, 0.0], "limit": 3, "with_payload": true}));
    assert_eq!(ids(&found), [json!(1), json!(2), json!(uuid)]);
    assert_eq!((found[0]["score"].as_f64(), found[1]["score"].as_f64()), (Some(1.0), Some(5.0)));
    assert_eq!((&found[0]["payload"]["n"], &found[2]["payload"]), (&json!(3), &json!({})));
    let ulm = json!({"must": [{"key": "city", "match": {"value": "Ulm"}}]});
    let asked = json!({"query": [0.0, 0.0], "filter": ulm, "with_vector": true, "with_payload": ["n"], "params": {"exact": true}});
    let found = server.well("POST", "/collections/c/points/query", asked)["points"].clone();
    assert_eq!((ids(&found), &found[0]["vector"], &found[0]["payload"]), (vec![json!(2), json!(11)], &json!([3.0, 4.0]), &json!({"n": 2})));
    let found = server.well("POST", "/collections/c/points/query", json!({"query": 2, "limit": 2, "offset": 1}));
    assert_eq!(found["points"].as_array().unwrap().len(), 2);
    assert!(!ids(&found["points"]).contains(&json!(2)));
    let near = json!({"vector": [0.0, 0.0], "limit": 10, "score_threshold": 5.0});
    assert_eq!(ids(&server.well("POST", "/collections/c/points/search", near)), [json!(1), json!(2)]);
    let many = json!({"searches": [{"query": [0.0, 0.0], "limit": 1}, {"query": {"nearest": uuid}, "limit": 1}]});
    let many = server.well("POST", "/collections/c/points/query/batch", many);
    assert_eq!((ids(&many[0]["points"]), ids(&many[1]["points"])), (vec![json!(1)], vec![json!(2)]));

    assert_eq!(server.well("POST", "/collections/c/points/count", json!({"filter": ulm}))["count"], json!(2));
    // One UUID in all its forms, in a body, in a path and in a filter.
    let upper = uuid.to_uppercase().replace('-', "");
    assert_eq!(ids(&server.well("POST", "/collections/c/points", json!({"ids": [upper]}))), [json!(uuid)]);
    assert_eq!(server.well("GET", &format!("/collections/c/points/{}", upper.replace('F', "%66")), Value::Null)["id"], json!(uuid));
    let named = json!({"filter": {"must": [{"has_id": [upper, 1]}]}});
    assert_eq!(server.well("POST", "/collections/c/points/count", named)["count"], json!(2));
    let page = server.well("POST", "/collections/c/points/scroll", json!({"limit": 3}));
    let next = page["next_page_offset"].clone();
    let rest = server.well("POST", "/collections/c/points/scroll", json!({"limit": 3, "offset": next}));
    let mut all = [ids(&page["points"]), ids(&rest["points"])].concat();
    all.sort_by_key(Value::to_string);
    assert_eq!((all.len(), &rest["next_page_offset"], &all[0]), (5, &Value::Null, &json!(uuid)));

    server.well("POST", "/collections/c/points/payload", json!({"payload": {"seen": true}, "filter": ulm}));
    server.well("POST", "/collections/c/points/payload/delete", json!({"keys": ["n"], "points": [2, 77]}));
    let got = server.well("GET", "/collections/c/points/2", Value::Null);
    assert_eq!((&got["payload"], &got["vector"]), (&json!({"city": "Ulm", "seen": true}), &json!([3.0, 4.0])));
    server.well("PUT", "/collections/c/points/payload", json!({"payload": {"only": 1}, "points": [2]}));
    let got = server.well("POST", "/collections/c/points", json!({"ids": [2, 78], "with_vector": false}));
    assert_eq!(got, json!([{"id": 2, "payload": {"only": 1}}]));
    let seen = json!({"filter": {"must": [{"key": "seen", "match": {"value": true}}]}});
    let operations = json!({"operations": [{"clear_payload": {"points": [2]}}, {"delete": {"points": [1, 10]}}, {"delete": seen}]});
    assert_eq!(server.well("POST", "/collections/c/points/batch", operations).as_array().unwrap().len(), 3);
    assert_eq!(server.well("POST", "/collections/c/points/count", json!({}))["count"], json!(2));
    server.refused("GET", "/collections/c/points/1", Value::Null, 404, "does not exist");

    // What was answered is there when it comes back.
    server.end();
    let server = Server::start(options(data.path(), None));
    assert_eq!(server.well("POST", "/collections/c/points/count", Value::Null)["count"], json!(2));
    // One of the same name may come at once, after searches of every kind.
    for dim in [3, 2] {
        let asked = json!({"vector": [0.0, 0.0], "filter": {"must_not": [{"key": "city", "match": {"value": "Rom"}}]}});
        if dim == 3 {
            server.well("POST", "/collections/c/points/search", asked);
        }
        assert_eq!(server.well("DELETE", "/collections/c", Value::Null), json!(true));
        server.well("PUT", "/collections/c", json!({"vectors": {"size": dim, "distance": "Dot"}}));
    }
    assert_eq!(server.well("DELETE", "/collections/c", Value::Null), json!(true));
    assert_eq!(server.well("DELETE", "/collections/c", Value::Null), json!(false));
    server.refused("GET", "/collections/c", Value::Null, 404, "doesn't exist");
    server.end();
}

#[test]
fn what_makes_no_sense_is_told() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    let create =
        |name: &str, vectors: Value| server.with("PUT", &format!("/collections/{name}"), "", &json!({"vectors": vectors}).to_string()).0;
    assert_eq!(create("c", json!({"size": 2, "distance": "Cosine"})), 200);
    for name in ["..", "a%2fb", ".hidden", "a%00", &"x".repeat(201)] {
        assert_eq!(create(name, json!({"size": 2, "distance": "Cosine"})), 400, "{name}");
    }
    assert_eq!(create("d", json!({"size": 0, "distance": "Cosine"})), 400);
    assert_eq!(create("d", json!({"text": {"size": 2, "distance": "Cosine"}})), 501);
    let points = "/collections/c/points";
    for (method, path, body, status, said) in [
        ("PUT", points, json!({"points": [{"id": 1, "vector": [1.0]}]}), 400, "1 coordinates where the collection has 2"),
        ("PUT", points, json!({"points": [{"id": 1, "vector": [0.0, 0.0]}]}), 400, "point 0"),
        ("PUT", points, json!({"points": [{"id": -1, "vector": [1.0, 0.0]}]}), 400, "points[0].id: invalid type: integer `-1`"),
        ("PUT", points, json!({"points": [{"id": 1, "vector": "x"}]}), 400, "points[0].vector"),
        ("PUT", points, json!({"points": [{"id": 1, "vector": [1.0, 1.0], "payload": 3}]}), 400, "payload"),
        ("PUT", points, json!({"points": [{"vector": [1.0, 1.0]}]}), 400, "points[0]: missing field `id`"),
        ("PUT", points, json!({"batch": {"ids": [1], "vectors": []}}), 400, "as many"),
        ("POST", "/collections/c/points/search", json!({}), 400, "missing field `vector`"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "limit": 0}), 400, "limit"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "filter": {"must": [{"key": "a"}]}}), 400, "filter.must[0]"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "params": {"hnsw_ef": 0}}), 400, "list_size"),
        ("POST", "/collections/c/points/query", json!({"query": 5}), 404, "id 5"),
        ("POST", points, json!({"ids": [1], "more": 1}), 400, "unknown field `more`"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "limit": 20_000}), 400, "it is 1 to 10000"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "filter": {"must": [{"nested": {}}]}}), 501, "nested"),
        ("POST", "/collections/c/points/query", json!({"query": {"nearest": [1.0, 1.0], "mmr": {"diversity": 3}}}), 400, "0 to 1"),
        ("POST", "/collections/c/points/query", json!({"query": {"fusion": "rrf"}, "prefetch": [{}]}), 501, "prefetch"),
        ("POST", "/collections/c/points/recommend", json!({}), 501, "docs/HTTP.md"),
        ("POST", "/collections/c/points/payload/delete", json!({"keys": ["a.b"], "points": [1]}), 501, "within a payload"),
        ("POST", "/collections/c/points/search", json!({"vector": {"name": "text", "vector": [1.0, 1.0]}}), 501, "has a name"),
        ("GET", "/collections/c/snapshots/one", Value::Null, 501, "GET /collections/c/snapshots/one"),
        ("PUT", "/collections/c/snapshots/recover", json!({"location": "https://other/one"}), 501, "another server"),
        ("PUT", "/collections/c/snapshots/recover", json!({"location": "file:///../.."}), 404, "doesn't exist"),
        ("DELETE", "/collections/c/snapshots/..", Value::Null, 400, "a name is"),
        ("POST", "/collections/aliases", json!({}), 400, "actions"),
        ("POST", "/collections/aliases", json!({"actions": [{"create_alias": {"collection_name": "no", "alias_name": "a"}}]}), 404, "`no`"),
        (
            "POST",
            "/collections/aliases",
            json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "c"}}]}),
            400,
            "same name",
        ),
        (
            "POST",
            "/collections/aliases",
            json!({"actions": [{"create_alias": {"collection_name": "c", "alias_name": "a/b"}}]}),
            400,
            "a name is",
        ),
        ("POST", "/collections/aliases", json!({"actions": [{"delete_alias": {"alias_name": "a"}}]}), 404, "Alias a"),
        ("POST", "/collections/aliases", json!({"actions": [{"drop": {}}]}), 400, "actions[0]"),
        ("POST", "/v1/collections/c/promote", json!({"index": "../x", "sequence": 0}), 400, "index: a name is"),
        ("POST", "/v1/collections/c/promote", json!({"index": "x"}), 400, "sequence"),
        ("POST", "/v1/collections/c/promote", json!({"index": "x", "sequence": 0}), 404, "incoming"),
        ("POST", "/v1/collections/c/rollback", json!({}), 409, "nothing to go back to"),
        ("POST", "/v1/collections/c/rebuild", json!({}), 501, "building"),
        ("GET", "/v1/jobs/7", Value::Null, 404, "job 7"),
        ("GET", "/v1/jobs/x", Value::Null, 400, "number of a job"),
        ("DELETE", "/v1/jobs/1", Value::Null, 404, "job 1"),
        ("GET", "/v1/nowhere", Value::Null, 404, "/v1/nowhere"),
        ("POST", "/collections/none/points/search", json!({"vector": [1.0]}), 404, "`none` doesn't exist"),
        ("GET", "/nowhere", Value::Null, 404, "GET /nowhere"),
        ("DELETE", "/metrics", Value::Null, 405, "takes GET"),
        ("PATCH", "/collections/c", json!({}), 501, "PATCH"),
    ] {
        server.refused(method, path, body, status, said);
    }
    let (status, answer) = server.with("POST", "/collections/c/points/search", "", "{\"vector\": [1,");
    assert!(status == 400 && answer["status"]["error"].as_str().unwrap().contains("JSON"), "{answer}");
    // Programs read what is wrong, where, and what is allowed.
    let (_, answer) = server.with("PUT", points, "x-request-id: mine\r\n", &json!({"points": [{"id": 1, "vector": [1.0]}]}).to_string());
    assert_eq!(
        (&answer["code"], &answer["field"], &answer["got"], &answer["limit"], &answer["request_id"], &answer["title"]),
        (&json!("dimension_mismatch"), &json!("points[0].vector"), &json!(1), &json!(2), &json!("mine"), &json!("Bad Request"))
    );
    // Nothing that is asked comes back at length.
    let long = json!({"points": [], "x".repeat(100_000): 1}).to_string();
    let (status, answer) = server.with("PUT", points, "", &long);
    assert!(status == 400 && answer.to_string().len() < 5000);
    assert_eq!(server.with("PUT", points, "content-type: text/plain\r\n", "{}").0, 415);
    assert_eq!(server.with("PUT", points, "content-encoding: gzip\r\n", "{}").0, 415);
    let twice = "{\"points\": [{\"id\": 1, \"vector\": [1, 2], \"payload\": {\"a\": 1, \"a\": 2}}]}";
    assert!(server.with("PUT", points, "", twice).1["detail"].as_str().unwrap().contains("duplicate field `a`"));
    let deep = "[".repeat(100_000);
    assert_eq!(server.with("POST", "/collections/c/points/search", "", &deep).0, 400);
    let bomb = "POST /collections/c/points/search HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n";
    assert!(server.raw(bomb.as_bytes()).starts_with("HTTP/1.1 413"));
    assert!(server.raw(b"\x16\x03\x01 hello\r\n\r\n").starts_with("HTTP/1.1 400") || server.raw(b"\x16\x03\x01").is_empty());
    // Who says nothing is not waited for.
    assert_eq!(server.raw(b"GET / HT"), "");
    let (status, metrics) = server.with("GET", "/metrics", "", "");
    let metrics = metrics.as_str().unwrap();
    assert!(
        status == 200 && metrics.contains("roxanne_collection_points{collection=\"c\"} 0") && metrics.contains("status=\"4xx\""),
        "{metrics}"
    );
    server.end();
}

#[test]
fn aliases_and_copies_outlive_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    for name in ["c", "d"] {
        server.well("PUT", &format!("/collections/{name}"), json!({"vectors": {"size": 2, "distance": "Euclid"}}));
        server.well("PUT", &format!("/collections/{name}/points"), json!({"points": [{"id": 1, "vector": [1.0, 2.0]}]}));
    }
    let alias = |name: &str, of: &str| json!({"create_alias": {"collection_name": of, "alias_name": name}});
    server.well("POST", "/collections/aliases", json!({"actions": [alias("a", "c"), alias("b", "d")]}));
    // All of a request or nothing.
    server.refused("POST", "/collections/aliases", json!({"actions": [alias("a", "d"), alias("e", "none")]}), 404, "`none`");
    server.refused("PUT", "/collections/a", json!({"vectors": {"size": 2, "distance": "Dot"}}), 409, "already exists");
    let name = server.well("POST", "/collections/a/snapshots", json!({}))["name"].as_str().unwrap().to_string();
    server.well("PUT", "/collections/a/points", json!({"points": [{"id": 2, "vector": [3.0, 4.0]}]}));
    assert_eq!(server.well("POST", "/collections/c/points/count", json!({}))["count"], json!(2));
    server.end();
    // What crashes leave of recoveries: one that had begun, one that had put the old away.
    let at = |name: &str| data.path().join("collections").join(name);
    std::fs::create_dir(at(".c.recovered")).unwrap();
    std::fs::rename(at("d"), at(".d.recovered")).unwrap();

    let server = Server::start(options(data.path(), None));
    assert!(!at(".c.recovered").exists());
    assert_eq!(server.well("POST", "/collections/a/points/count", json!({}))["count"], json!(2));
    assert_eq!(server.well("POST", "/collections/b/points/count", json!({}))["count"], json!(1));
    assert_eq!(server.well("GET", "/collections/c/snapshots", Value::Null)[0]["name"], json!(name));
    // Over the one that is there, and into one that is not.
    server.well("PUT", "/collections/c/snapshots/recover", json!({"location": name}));
    assert_eq!(server.well("POST", "/collections/c/points/count", json!({}))["count"], json!(1));
    let copy = data.path().join("snapshots/c").join(&name);
    std::fs::write(copy.join("READERS"), "x").unwrap();
    server.refused("PUT", "/collections/c/snapshots/recover", json!({"location": name}), 422, "cannot be restored");
    assert_eq!(server.well("POST", "/collections/c/points/count", json!({}))["count"], json!(1));
    server.well("DELETE", &format!("/collections/c/snapshots/{name}"), Value::Null);
    assert_eq!(server.well("GET", "/collections/c/snapshots", Value::Null), json!([]));
    server.well("DELETE", "/collections/c", Value::Null);
    assert_eq!(server.well("GET", "/aliases", Value::Null)["aliases"].as_array().unwrap().len(), 1);
    server.end();
}

#[test]
fn a_name_is_never_a_path() {
    let around = tempfile::tempdir().unwrap();
    let data = around.path().join("data");
    let server = Server::start(options(&data, None));
    // What a removal of `../../victim` would take for the rest of a recovery.
    let victims = [around.path().join("victim.recovered"), data.join("victim.recovered"), around.path().join(".victim.recovered")];
    victims.iter().for_each(|victim| std::fs::create_dir_all(victim).unwrap());
    let long = "x".repeat(300);
    for name in ["%2f..%2f..%2fvictim", "%2f..%2fvictim", "..%2f..%2f..%2f.victim", "..", "%2e%2e", "a%2fb", "a%00b", "a%5cb", &*long] {
        for (method, path) in [
            ("DELETE", format!("/collections/{name}")),
            ("PUT", format!("/collections/{name}")),
            ("POST", format!("/collections/{name}/points/count")),
            ("PUT", format!("/collections/{name}/snapshots/recover")),
            ("DELETE", format!("/collections/c/snapshots/{name}")),
        ] {
            let (status, answer) = server.with(method, &path, "", "{}");
            assert!(matches!(status, 400 | 404), "{method} {path}: {status} {answer}");
        }
    }
    assert!(victims.iter().all(|victim| victim.is_dir()));
    server.end();
}

#[test]
fn one_that_does_not_open_is_said_and_stays() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    server.well("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}}));
    server.end();
    let path = data.path().join("collections/c");
    std::fs::write(path.join("store/CURRENT"), "nothing").unwrap();
    let server = Server::start(options(data.path(), None));
    server.refused("GET", "/collections/c", Value::Null, 503, "could not be opened");
    // Neither what makes sense nor what does not takes its place.
    for size in [2, 8192, 9000] {
        server.refused("PUT", "/collections/c", json!({"vectors": {"size": size, "distance": "Dot"}}), 409, "already exists");
    }
    assert!(path.join("store/CURRENT").exists());
    assert!(server.with("GET", "/metrics", "", "").1.as_str().unwrap().contains("roxanne_collections_not_open 1"));
    // It goes when it is told to.
    assert_eq!(server.well("DELETE", "/collections/c", Value::Null), json!(true));
    assert!(!path.exists());
    server.well("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Dot"}}));
    server.end();
}

#[test]
fn no_answer_and_no_list_is_longer_than_one_holds() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    server.well("PUT", "/collections/c", json!({"vectors": {"size": 4000, "distance": "Dot"}}));
    let vector = vec![1.0; 4000];
    server.well(
        "PUT",
        "/collections/c/points",
        json!({"points": [{"id": "hello", "vector": vector}, {"id": "urn:uuid:hello", "vector": vector}]}),
    );
    // Two texts are two ids.
    assert_eq!(server.well("POST", "/collections/c/points/count", json!({}))["count"], json!(2));
    let search = |limit: usize, with_vector: bool| json!({"vector": vector, "limit": limit, "with_vector": with_vector});
    assert_eq!(server.well("POST", "/collections/c/points/search", search(10_000, false)).as_array().unwrap().len(), 2);
    server.refused("POST", "/collections/c/points/search", search(10_000, true), 400, "more than an answer holds");
    server.refused("POST", "/collections/c/points/scroll", json!({"limit": 10_000, "with_vector": true}), 400, "more than an answer holds");
    let many = json!({"searches": vec![json!({"query": "hello", "limit": 10_000}); 100]});
    server.refused("POST", "/collections/c/points/query/batch", many, 400, "more than an answer holds");
    server.refused("POST", "/collections/c/points/delete", json!({"points": vec![1; 200_001]}), 400, "more than 200000 entries");
    server.refused("POST", "/collections/c/points", json!({"ids": vec![1; 200_001]}), 400, "more than 200000 entries");
    server.end();
}

#[test]
fn what_is_near_and_not_all_alike() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    server.well("PUT", "/collections/c", json!({"vectors": {"": {"size": 2, "distance": "Euclid"}}}));
    let points = [(1, [1.0, 0.0]), (2, [1.1, 0.0]), (3, [0.0, 2.0]), (4, [9.0, 9.0])];
    let points: Vec<Value> = points.iter().map(|(id, vector)| json!({"id": id, "vector": {"": vector}})).collect();
    server.well("PUT", "/collections/c/points", json!({"points": points}));
    let found = |mmr: Value| {
        let asked = json!({"query": {"nearest": [0.0, 0.0], "mmr": mmr}, "limit": 2, "using": ""});
        ids(&server.well("POST", "/collections/c/points/query", asked)["points"])
    };
    assert_eq!(found(Value::Null), [json!(1), json!(2)]);
    // Of three, the third is twice as far and in another direction.
    assert_eq!(found(json!({"candidates_limit": 3})), [json!(1), json!(3)]);
    assert_eq!(found(json!({"diversity": 0.0, "candidates_limit": 4})), [json!(1), json!(2)]);
    assert_eq!(found(json!({"diversity": 1.0, "candidates_limit": 4})), [json!(1), json!(4)]);
    server.end();
}

#[test]
fn rows_are_searched_and_a_search_is_explained() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    server.well("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Euclid"}}));
    let points: Vec<Value> = (0..20).map(|id| json!({"id": id, "vector": [id, 0]})).collect();
    server.well("PUT", "/collections/c/points", json!({"points": points}));
    let rows: Vec<u8> = [0f32, 0.0, 19.0, 0.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let answer = server.bytes("POST", "/v1/collections/c/search?limit=2&list_size=30", "content-type: application/octet-stream\r\n", &rows);
    let mut expected = 2u32.to_le_bytes().to_vec();
    for hits in [[("0", 0f32), ("1", 1.0)], [("19", 0.0), ("18", 1.0)]] {
        expected.extend(2u32.to_le_bytes());
        for (id, score) in hits {
            expected.extend(score.to_le_bytes());
            expected.extend((id.len() as u16).to_le_bytes());
            expected.extend(id.as_bytes());
        }
    }
    assert_eq!(answer, (200, expected));
    let status = |path: &str, body: &[u8]| server.bytes("POST", path, "", body).0;
    assert_eq!(status("/v1/collections/c/search", &rows[1..]), 400);
    assert_eq!(status("/v1/collections/c/search?limit=0", &rows), 400);
    assert_eq!(status("/v1/collections/c/search?limit=x", &rows), 400);
    let explained = server.well("POST", "/v1/collections/c/explain", json!({"query": 3, "limit": 30}));
    assert_eq!((&explained["recall"], &explained["fewer"]), (&json!(1.0), &json!("there are no more points")));
    assert_eq!(explained["hits"], explained["exact"]);
    server.end();
}

#[test]
fn the_description_is_of_what_is_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    let (status, document) = server.with("GET", "/openapi.json", "", "");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    // All that is referred to is there.
    let mut refs = Vec::new();
    collect(&document, &mut refs);
    assert!(refs.len() > 100);
    for name in refs {
        assert!(!document.pointer(name.strip_prefix('#').unwrap()).unwrap().is_null(), "{name}");
    }
    // And every path is answered, by something else than 404 for its form.
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path
                .replace("{collection}", "none")
                .replace("{job}", "1")
                .replace("{id}", "1")
                .replace("{snapshot}", "s")
                .replace("{field}", "f");
            let (status, answer) = server.with(&method.to_uppercase(), &path, "", "{}");
            assert!(
                status != 405 && !answer.to_string().contains(&format!("{} {path}", method.to_uppercase())),
                "{method} {path}: {answer}"
            );
        }
    }
    let (status, page) = server.with("GET", "/dashboard", "", "");
    assert!(status == 200 && page.as_str().unwrap().contains("<title>roxanne"));
    server.end();
}

fn collect(value: &Value, refs: &mut Vec<String>) {
    match value {
        Value::Object(parts) => parts.iter().for_each(|(name, part)| match part.as_str() {
            Some(text) if name == "$ref" => refs.push(text.to_string()),
            _ => collect(part, refs),
        }),
        Value::Array(parts) => parts.iter().for_each(|part| collect(part, refs)),
        _ => {}
    }
}
