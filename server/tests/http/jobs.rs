//! Jobs: what they find, how they are watched, and that they outlive a server.

use crate::server::{Server, options};
use serde_json::{Value, json};
use std::fs;

fn with_points(server: &Server) {
    server.well("PUT", "/collections/c", json!({"vectors": {"size": 2, "distance": "Euclid"}}));
    let points: Vec<Value> = (0..50).map(|id| json!({"id": id, "vector": [id, 1]})).collect();
    server.well("PUT", "/collections/c/points", json!({"points": points}));
}

#[test]
fn a_job_is_watched_to_its_end() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    with_points(&server);
    let (status, answer) =
        server.with("POST", "/v1/collections/c/measure", "", &json!({"queries": 20, "list_sizes": [10, 40]}).to_string());
    assert_eq!((status, &answer["result"]["kind"], &answer["result"]["id"]), (202, &json!("measure"), &json!(1)));
    let job = server.well("GET", "/v1/jobs/1?wait=30", Value::Null);
    assert_eq!((&job["state"], &job["collection"]), (&json!("done"), &json!("c")));
    let points = job["result"]["points"].as_array().unwrap();
    assert!(points.len() == 2 && points.iter().all(|point| point["recall"] == 1.0 && point["qps"].as_f64() > Some(0.0)), "{job}");
    // The last event is the job as it has ended, and ends the answer.
    let events = server.raw(b"GET /v1/jobs/1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(
        events.contains("text/event-stream") && events.contains("event: job\ndata: {") && events.contains("\"state\":\"done\""),
        "{events}"
    );
    assert_eq!(server.with("GET", "/v1/jobs/2/events", "", "").0, 404);
    let (status, snapshot) = server.with("POST", "/v1/collections/c/snapshot", "", "");
    assert_eq!(status, 202, "{snapshot}");
    let job = server.well("GET", "/v1/jobs/2?wait=30", Value::Null);
    assert_eq!(server.well("GET", "/collections/c/snapshots", Value::Null)[0]["name"], job["result"]["name"]);
    server.refused("POST", "/v1/collections/c/measure", json!({"queries": 0}), 400, "queries");
    server.refused("POST", "/v1/builds", json!({"input": "../x", "output": "y", "metric": "l2"}), 400, "input");
    server.refused("POST", "/v1/verifications", json!({"index": "none"}), 404, "incoming");
    server.refused("POST", "/v1/plan", json!({"n": 1, "dim": 1}), 501, "no other programs");
    server.end();
}

#[test]
fn what_a_server_s_end_cut_off_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(options(data.path(), None));
    with_points(&server);
    server.with("POST", "/v1/collections/c/snapshot", "", "");
    server.well("GET", "/v1/jobs/1?wait=30", Value::Null);
    server.end();
    // As the file would be had the server ended before the job did; one that was begun too often; and one that is none.
    let file = |id: u64| data.path().join(format!("jobs/{id:08}.json"));
    let mut job: Value = serde_json::from_slice(&fs::read(file(1)).unwrap()).unwrap();
    assert_eq!(job["state"], "done");
    job["state"] = json!("running");
    fs::write(file(1), job.to_string()).unwrap();
    (job["id"], job["attempts"]) = (json!(2), json!(3));
    fs::write(file(2), job.to_string()).unwrap();
    fs::write(file(3), "{}").unwrap();
    (job["id"], job["attempts"], job["is_cancelled"]) = (json!(4), json!(1), json!(true));
    fs::write(file(4), job.to_string()).unwrap();
    let server = Server::start(options(data.path(), None));
    let job = server.well("GET", "/v1/jobs/1?wait=30", Value::Null);
    assert_eq!((&job["state"], &job["attempts"]), (&json!("done"), &json!(2)));
    assert_eq!(server.well("GET", "/collections/c/snapshots", Value::Null).as_array().unwrap().len(), 2);
    let job = server.well("GET", "/v1/jobs/2?wait=30", Value::Null);
    assert!(job["state"] == "failed" && job["error"].as_str().unwrap().contains("3 times"), "{job}");
    // What was told to stop does not come back.
    let job = server.well("GET", "/v1/jobs/4?wait=30", Value::Null);
    assert_eq!(job["state"], "cancelled", "{job}");
    // Numbers go on behind the last, whatever was in its file.
    assert_eq!(server.with("POST", "/v1/collections/c/snapshot", "", "").1["result"]["id"], json!(5));
    server.end();
}
