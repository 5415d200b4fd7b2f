//! `--json`: one object a run, with the fields that programs were promised.

use crate::shell::{Place, ROXANNE, SIFT_BASE, SIFT_QUERIES, SMALL, roxanne};
use serde_json::Value;
use std::process::Command;

/// Holds that `value` has every field of `names`, none of them null.
#[track_caller]
fn has(value: &Value, names: &[&str]) {
    for name in names {
        assert!(!value[name].is_null(), "{name} is missing: {value}");
    }
}

#[test]
fn build_reports_time_phases_memory_and_size() {
    let place = Place::new();
    let run = roxanne(&["build", SIFT_BASE, "-o", &place.at("index"), "--json"]).well();
    let value = run.json();
    assert!(run.stderr.is_empty(), "{run:?}");
    has(&value, &["n", "dim", "seconds", "phases", "peak_rss_bytes", "index_bytes"]);
    assert_eq!((value["n"].as_u64(), value["dim"].as_u64()), (Some(4000), Some(128)));
    let phases = value["phases"].as_array().unwrap();
    assert!(phases.len() >= 5);
    phases.iter().for_each(|phase| has(phase, &["name", "seconds", "units", "unit", "rate"]));
    let seconds = |value: &Value| value["seconds"].as_f64().unwrap();
    assert!(phases.iter().map(seconds).sum::<f64>() <= seconds(&value) * 1.001, "phases are parts of the whole");
    assert!(value["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    let graph = place.root().join("index/graph.rx").metadata().unwrap().len();
    assert!(value["index_bytes"].as_u64().unwrap() > graph);
    // Pairs and their rates are what a build's floor is stated in.
    has(&value["work"], &["assign_pairs", "leaf_pairs", "assign_pairs_per_second", "leaf_pairs_per_second", "fixed_edges"]);
}

#[test]
fn progress_as_json_is_a_line_an_event_and_stdout_stays_data() {
    let place = Place::new();
    let run = roxanne(&["build", SIFT_BASE, "-o", &place.at("index"), "--json", "--progress", "json"]).well();
    has(&run.json(), &["n"]);
    let events: Vec<Value> = run.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    events.iter().for_each(|event| has(event, &["event", "phase", "done", "total", "unit", "seconds", "rate"]));
    let named = |kind: &str| events.iter().filter(|e| e["event"] == kind).map(|e| e["phase"].to_string()).collect::<Vec<_>>();
    assert_eq!(named("phase"), named("end"), "every phase begins and ends");
    let in_report: Vec<String> = run.json()["phases"].as_array().unwrap().iter().map(|p| p["name"].to_string()).collect();
    assert_eq!(named("phase"), in_report);
    assert!(events.iter().filter(|e| e["event"] == "end").all(|e| e["done"] == e["total"]));
}

#[test]
fn plan_and_info_agree_on_what_an_index_is() {
    let place = Place::new();
    let index = place.build(SIFT_BASE, "index", &[]);
    let plan = roxanne(&["plan", SIFT_BASE, "--degree", "16", "--json"]).well().json();
    let info = roxanne(&["info", &index, "--json"]).well().json();
    for name in ["n", "dim", "element", "metric", "code_bytes", "record_bytes", "records_per_page", "page_bytes"] {
        assert_eq!(plan[name], info[name], "{name}");
        assert!(!info[name].is_null(), "{name}");
    }
    has(&plan, &["index_bytes", "peak_ram_bytes", "serve_ram_bytes", "disk_bytes", "fits"]);
    has(&info, &["path", "generation", "keys", "max_degree", "index_bytes", "resident_bytes", "nav_nodes", "page_count", "params"]);
    assert!(plan["serve_ram_bytes"].as_u64() >= info["resident_bytes"].as_u64());
    assert_eq!(info["params"]["degree"], "16");
    // Under its own eyes an opened index is the same.
    let eval_index = {
        let truth = place.at("gt.bin");
        roxanne(&["truth", SIFT_BASE, SIFT_QUERIES, "-k", "10", "-o", &truth]).well();
        roxanne(&["eval", &index, "-q", SIFT_QUERIES, "-g", &truth, "--sweep", "16", "--json"]).well().json()["index"].clone()
    };
    assert_eq!(eval_index, info);
}

#[test]
fn search_gives_keys_distances_and_costs() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let value = roxanne(&["search", &index, "-q", SMALL, "--limit", "5", "-k", "3", "--json"]).well().json();
    has(&value["index"], &["n", "dim", "path"]);
    let queries = value["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 5);
    for (number, query) in queries.iter().enumerate() {
        has(query, &["query", "hits", "reads", "cache_hits", "distances", "micros"]);
        let hits = query["hits"].as_array().unwrap();
        assert_eq!((query["query"].as_u64(), hits.len()), (Some(number as u64), 3));
        assert_eq!((hits[0]["key"].as_u64(), hits[0]["distance"].as_f64()), (Some(number as u64), Some(0.0)), "a row finds itself");
    }
    // The same as lines.
    let text = roxanne(&["search", &index, "-q", SMALL, "--limit", "5", "-k", "3"]).well().stdout;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 15);
    assert!(lines.iter().all(|line| line.len() == 4) && lines[3][..3] == ["1", "1", "1"], "{text}");
}

#[test]
fn more_hits_than_vectors_are_all_vectors() {
    let place = Place::new();
    let index = place.build("synth:n=7,dim=3", "index", &[]);
    let value = roxanne(&["search", &index, "-q", "v=0.5,-1,2", "-k", "1000000", "--json"]).well().json();
    assert_eq!(value["queries"][0]["hits"].as_array().unwrap().len(), 7);
}

#[test]
fn string_keys_come_back_as_strings() {
    let place = Place::new();
    let text: String = (0..300).map(|row| format!("doc {row}\tδ\n")).collect();
    let keys = place.write("keys.txt", text);
    let index = place.build(SMALL, "index", &["--keys", &keys]);
    let value = roxanne(&["search", &index, "-q", SMALL, "--limit", "2", "-k", "1", "--json"]).well().json();
    assert_eq!(value["queries"][1]["hits"][0]["key"], "doc 1\tδ");
    assert_eq!(value["index"]["keys"], "strings");
    let line = roxanne(&["search", &index, "-q", SMALL, "--limit", "1", "-k", "1"]).well().stdout;
    assert_eq!(line, "0\t1\tdoc 0\\tδ\t0\n", "a tab in a key does not make a column");
}

#[test]
fn verify_truth_and_convert_say_what_they_did() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let verified = roxanne(&["verify", &index, "--json"]).well().json();
    has(&verified, &["pages", "nodes", "edges", "unreachable", "bytes", "seconds"]);
    assert_eq!((verified["ok"].as_bool(), verified["nodes"].as_u64(), verified["unreachable"].as_u64()), (Some(true), Some(300), Some(0)));
    let truth = roxanne(&["truth", SMALL, SMALL, "-k", "7", "-o", &place.at("gt.bin"), "--json"]).well().json();
    assert_eq!((truth["queries"].as_u64(), truth["k"].as_u64(), truth["base"].as_u64()), (Some(300), Some(7), Some(300)));
    let bytes = std::fs::metadata(place.at("gt.bin")).unwrap().len();
    assert_eq!(bytes, 8 + 300 * 7 * 8);
    let converted = roxanne(&["convert", SMALL, &place.at("x.npy"), "--json"]).well().json();
    assert_eq!((converted["n"].as_u64(), converted["dim"].as_u64()), (Some(300), Some(8)));
    assert_eq!(converted["bytes"].as_u64(), Some(std::fs::metadata(place.at("x.npy")).unwrap().len()));
}

#[test]
fn vectors_survive_every_format_and_build_the_same_index() {
    let place = Place::new();
    for (kind, extensions) in
        [("f32", &["fbin", "fvecs", "npy"][..]), ("u8", &["u8bin", "bvecs", "npy"]), ("i8", &["i8bin", "npy"]), ("f16", &["f16bin", "npy"])]
    {
        let source = format!("synth:n=200,dim=12,type={kind},clusters=8");
        let graphs: Vec<Vec<u8>> = extensions
            .iter()
            .map(|extension| {
                let file = place.at(&format!("{kind}.{extension}"));
                roxanne(&["convert", &source, &file]).well();
                let index = place.build(&file, &format!("{kind}-{extension}"), &[]);
                std::fs::read(format!("{index}/graph.rx")).unwrap()
            })
            .collect();
        let direct = place.build(&source, kind, &[]);
        assert!(graphs.iter().all(|graph| *graph == std::fs::read(format!("{direct}/graph.rx")).unwrap()), "{kind}");
    }
}

#[test]
fn doctor_tells_what_the_machine_offers() {
    let place = Place::new();
    let value = roxanne(&["doctor", "--disk", place.root().to_str().unwrap(), "--json"]).well().json();
    has(&value, &["version", "cpu", "ram", "io_uring", "disk", "gpus"]);
    has(&value["cpu"], &["name", "threads", "simd", "simd_available"]);
    assert!(value["io_uring"]["available"].is_boolean());
    for gpu in value["gpus"].as_array().unwrap() {
        has(gpu, &["device", "available", "memory_bytes"]);
        let told = if gpu["available"] == true { "name" } else { "reason" };
        assert!(!gpu[told].as_str().unwrap().is_empty(), "{gpu}");
    }
    assert!(value["disk"]["reads_per_second_depth_1"].as_f64().unwrap() > 0.0);
    assert!(place.names().is_empty(), "its file is gone");
    roxanne(&["doctor", "--disk", &place.at("absent")]).failed(3, &["absent"]);
}

#[test]
fn the_binary_needs_no_library_but_those_of_the_c_compiler() {
    let Ok(output) = Command::new("ldd").arg(ROXANNE).output() else {
        println!("SKIPPED: there is no ldd");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let own = [
        "linux-vdso",
        "linux-gate",
        "libc.so",
        "libm.so",
        "libgcc_s.so",
        "libpthread.so",
        "libdl.so",
        "librt.so",
        "ld-linux",
        "statically",
    ];
    for line in text.lines() {
        assert!(own.iter().any(|name| line.contains(name)), "{line}");
    }
}
