//! A server on loopback, asked as a client of Qdrant asks, and as others do.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use roxanne_engine::collection::{CollectionOptions, Durability};
use roxanne_server::{ServeError, ServerOptions, serve};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

fn options(data: &Path, api_key: Option<&str>) -> ServerOptions {
    ServerOptions {
        data: data.to_path_buf(),
        bind: "127.0.0.1:0".parse().unwrap(),
        api_key: api_key.map(String::from),
        insecure: false,
        collection: CollectionOptions { durability: Durability::Os, ..CollectionOptions::default() },
    }
}

impl Server {
    fn start(options: ServerOptions) -> Server {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let stopped = async { drop(stopped.await) };
            runtime.block_on(serve(options, |address| ready.send(address).unwrap(), stopped))
        });
        Server { address: address.recv_timeout(Duration::from_secs(30)).unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Sends a request and reads the answer, to the end of the connection.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // One that is refused early may find the door closed.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn with(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let answer = self.raw(&[head.as_bytes(), body.as_bytes()].concat());
        let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{method} {path}: {answer:?}")).parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }

    #[track_caller]
    fn well(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.with(method, path, "", &body.to_string());
        assert!(status == 200 && answer["status"] == "ok" && answer["time"].is_number(), "{method} {path}: {status} {answer}");
        answer["result"].clone()
    }

    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: Value, status: u16, said: &str) {
        let (got, answer) = self.with(method, path, "", &body.to_string());
        let error = answer["status"]["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(said), "{method} {path}: {got} {answer}");
    }

    /// Ends it as a signal would.
    fn end(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

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
        ("PUT", points, json!({"points": [{"id": -1, "vector": [1.0, 0.0]}]}), 400, "-1 is no id"),
        ("PUT", points, json!({"points": [{"id": 1, "vector": "x"}]}), 400, "points[0].vector"),
        ("PUT", points, json!({"points": [{"id": 1, "vector": [1.0, 1.0], "payload": 3}]}), 400, "payload"),
        ("PUT", points, json!({"points": [{"vector": [1.0, 1.0]}]}), 400, "points[0].id"),
        ("PUT", points, json!({"batch": {"ids": [1], "vectors": []}}), 400, "as many"),
        ("POST", "/collections/c/points/search", json!({}), 400, "vector is missing"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "limit": 0}), 400, "limit"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "filter": {"must": [{"key": "a"}]}}), 400, "filter.must[0]"),
        ("POST", "/collections/c/points/search", json!({"vector": [1.0, 1.0], "params": {"hnsw_ef": 0}}), 400, "list_size"),
        ("POST", "/collections/c/points/query", json!({"query": 5}), 404, "id 5"),
        ("POST", "/collections/c/points/query", json!({"query": {"fusion": "rrf"}, "prefetch": [{}]}), 501, "prefetch"),
        ("POST", "/collections/c/points/recommend", json!({}), 501, "docs/HTTP.md"),
        ("POST", "/collections/c/points/payload/delete", json!({"keys": ["a.b"], "points": [1]}), 501, "within a payload"),
        ("POST", "/collections/c/points/search", json!({"vector": {"name": "text", "vector": [1.0, 1.0]}}), 501, "a name"),
        ("GET", "/collections/c/snapshots/one", Value::Null, 501, "snapshots as files"),
        ("PUT", "/collections/c/snapshots/recover", json!({"location": "https://other/one"}), 501, "another server"),
        ("PUT", "/collections/c/snapshots/recover", json!({"location": "file:///../.."}), 404, "doesn't exist"),
        ("DELETE", "/collections/c/snapshots/..", Value::Null, 404, "doesn't exist"),
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
        ("POST", "/v1/collections/c/promote", json!({"index": "../x", "sequence": 0}), 400, "index"),
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
    ] {
        server.refused(method, path, body, status, said);
    }
    let (status, answer) = server.with("POST", "/collections/c/points/search", "", "{\"vector\": [1,");
    assert!(status == 400 && answer["status"]["error"].as_str().unwrap().contains("JSON"), "{answer}");
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
fn who_may_not_ask_is_not_answered() {
    let data = tempfile::tempdir().unwrap();
    let open = ServerOptions { bind: "0.0.0.0:0".parse().unwrap(), ..options(data.path(), None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(matches!(runtime.block_on(serve(open, |_| (), async {})), Err(ServeError::Insecure { .. })));
    let server = Server::start(options(data.path(), Some("secret")));
    for (path, headers, status) in [
        ("/collections", "", 401),
        ("/collections", "api-key: wrong!\r\n", 401),
        ("/collections", "api-key: secret\r\n", 200),
        ("/collections", "authorization: Bearer secret\r\n", 200),
        ("/collections", "authorization: secret\r\n", 401),
        ("/metrics", "", 401),
        ("/", "", 401),
        ("/nowhere", "", 401),
        ("/readyz", "", 200),
        ("/healthz", "", 200),
    ] {
        assert_eq!(server.with("GET", path, headers, "").0, status, "{path} {headers}");
    }
    server.end();
    let server = Server::start(options(data.path(), None));
    let asked =
        |host: &str, more: &str| server.raw(format!("GET / HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n").as_bytes());
    assert!(asked("localhost:6333", "").contains("\"title\":\"roxanne\""));
    assert!(asked("localhost:6333", "").starts_with("HTTP/1.1 200") && asked("127.0.0.1", "").starts_with("HTTP/1.1 200"));
    assert!(asked("[::1]:80", "").starts_with("HTTP/1.1 200"));
    // A page somewhere whose name was made to lead here, and one that asks across.
    assert!(asked("evil.example", "").starts_with("HTTP/1.1 403"));
    assert!(asked("localhost", "origin: http://evil.example\r\n").starts_with("HTTP/1.1 403"));
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
