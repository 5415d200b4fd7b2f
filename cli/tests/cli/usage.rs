//! Called wrongly: exit 2 and the way to do it right. Too little room or no such device: 4 and 8.

use crate::shell::{Place, ROXANNE, Run, SIFT_BASE, SMALL, roxanne};
use std::process::Command;

/// Holds that it was called wrongly, and that stderr names what was wrong.
#[track_caller]
fn wrong(args: &[&str], words: &[&str]) {
    let run = roxanne(args);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {run:?}");
    for word in words {
        assert!(run.stderr.contains(word), "{args:?}: {word:?} is not said: {run:?}");
    }
}

#[test]
fn flags_with_values_out_of_range_are_refused() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let out = place.at("x");
    for k in ["0", "-1", "many", "4294967296"] {
        wrong(&["search", &index, "-q", SMALL, "-k", k], &[k]);
        wrong(&["truth", SMALL, SMALL, "-o", &out, "-k", k], &[k]);
    }
    wrong(&["search", &index, "-q", SMALL, "-k", "3000000"], &["k", "1048576"]);
    wrong(&["search", &index, "-q", SMALL, "--list-size", "0"], &["--list-size"]);
    wrong(&["search", &index, "-q", SMALL, "--list-size", "3000000"], &["list_size", "1048576"]);
    wrong(&["search", &index, "-q", SMALL, "--beam-width", "65"], &["beam_width", "64"]);
    wrong(&["search", &index, "-q", "v=1,NaN"], &["coordinate 1"]);
    wrong(&["search", &index, "-q", "v="], &["coordinate 0"]);
    for (flag, value) in [("--degree", "1"), ("--degree", "2000"), ("--alpha", "0.9"), ("--leaf-k", "0"), ("--reservoir", "9999")] {
        wrong(&["build", SMALL, "-o", &out, flag, value], &[flag.trim_start_matches('-')]);
    }
    wrong(&["build", SMALL, "-o", &out, "--alpha", "NaN"], &["alpha"]);
    wrong(&["build", SMALL, "-o", &out, "--pq-bytes", "0"], &["--pq-bytes"]);
    wrong(&["build", SMALL, "-o", &out, "--pq-bytes", "9"], &["9 bytes a code", "1 to 8"]);
    wrong(&["build", SMALL, "-o", &out, "--metric", "euclid"], &["euclid", "l2, cos, dot, l1, hamming"]);
    wrong(&["build", SMALL, "-o", &out, "--ram", "64GB"], &["--ram", "64G"]);
    wrong(&["build", SMALL, "-o", &out, "--threads", "x"], &["--threads"]);
    wrong(&["build", SMALL, "-o", &out, "--device", "tpu"], &["auto, cpu"]);
    wrong(&["build", SMALL, "-o", &out, "--limit", "0"], &["--limit"]);
    assert!(!place.root().join("x").exists());
}

#[test]
fn a_sweep_that_makes_no_sense_is_refused() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    for sweep in ["", "list-size=", "list-size=0", "list-size=16,,32", "256..16", "beam=4", "list-size=16;32", "list-size=1..", "x"] {
        wrong(&["eval", &index, "-q", SMALL, "-g", "gt.bin", "--sweep", sweep], &["--sweep"]);
    }
}

#[test]
fn missing_and_unknown_words_are_refused() {
    wrong(&["build", SMALL], &["--output"]);
    wrong(&["search", "index"], &["--queries"]);
    wrong(&["eval", "index", "-q", SMALL], &["--truth"]);
    wrong(&["bild"], &["bild", "build"]);
    wrong(&["info"], &["IDX"]);
    wrong(&["info", "index", "--colour"], &["--colour"]);
    wrong(&[], &["Usage"]);
}

#[test]
fn help_and_version_are_data() {
    let commands = ["plan", "build", "truth", "eval", "search", "info", "verify", "convert", "doctor"];
    let run = roxanne(&["--help"]).well();
    assert!(commands.iter().all(|command| run.stdout.contains(command)) && run.stderr.is_empty(), "{run:?}");
    for command in commands {
        let help = roxanne(&[command, "--help"]).well();
        assert!(help.stdout.contains("Example") && help.stdout.contains("--json"), "{help:?}");
    }
    assert!(roxanne(&["--version"]).well().stdout.starts_with("roxanne "));
}

#[test]
fn a_build_beyond_its_budget_is_refused_with_both_numbers_before_any_work() {
    let place = Place::new();
    let out = place.at("x");
    let plan = roxanne(&["plan", SIFT_BASE, "--json"]).well().json();
    let [ram, disk] = ["peak_ram_bytes", "disk_bytes"].map(|name| plan[name].as_u64().unwrap());
    roxanne(&["build", SIFT_BASE, "-o", &out, "--ram", "1M"]).failed(4, &["memory", &ram.to_string(), "1048576"]);
    roxanne(&["build", SIFT_BASE, "-o", &out, "--disk", "1000"]).failed(4, &["disk", &disk.to_string(), "1000"]);
    assert!(place.names().is_empty());
    // A plan says so too, and prints its bill all the same.
    let run = roxanne(&["plan", SIFT_BASE, "--ram", "1M", "--json"]).failed(4, &["memory", &ram.to_string()]);
    assert_eq!((run.json()["fits"].as_bool(), run.json()["peak_ram_bytes"].as_u64()), (Some(false), Some(ram)));
    roxanne(&["build", SIFT_BASE, "-o", &out, "--ram", &ram.to_string(), "--disk", &disk.to_string()]).well();
}

#[test]
fn an_index_beyond_the_budget_is_not_opened() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    roxanne(&["search", &index, "-q", SMALL, "--ram", "1M"]).failed(4, &["1048576", "memory"]);
    roxanne(&["search", &index, "-q", SMALL, "--ram", "1G", "--limit", "1"]).well();
}

#[test]
fn a_device_that_is_not_there_is_said_to_be_absent_and_the_cpu_is_named() {
    let place = Place::new();
    for device in ["cuda:999", "wgpu:no-adapter-is-called-so"] {
        roxanne(&["build", SMALL, "-o", &place.at("x"), "--device", device]).failed(8, &[device, "cpu"]);
    }
    // Refused by the plan, before any device is looked for.
    roxanne(&["build", SMALL, "-o", &place.at("x"), "--device", "cuda:0", "--vram", "1M"]).failed(4, &["device memory", "1048576"]);
    assert!(place.names().is_empty());
    place.build(SMALL, "x", &["--device", "cpu"]);
}

#[test]
fn the_devices_of_this_machine_are_listed_and_one_can_be_measured() {
    let found = roxanne(&["doctor", "--json"]).well().stdout;
    assert!(found.contains("\"device\":\"cuda:0\"") && found.contains("\"device\":\"wgpu"), "{found}");
    let args = ["bench-gpu", "--device", "cpu", "--vectors", "1500", "--dims", "96", "--builds", "1200", "--json"];
    let found = roxanne(&args).well().stdout;
    for name in
        ["\"name\":\"leaf_knn\"", "\"name\":\"assign\"", "\"name\":\"prune\"", "\"name\":\"build_1k\"", "\"commit\":", "\"floor\":null"]
    {
        assert!(found.contains(name), "{name} is not in {found}");
    }
    roxanne(&["bench-gpu", "--device", "auto"]).failed(2, &["cuda:0"]);
    roxanne(&["bench-gpu", "--device", "cpu", "--builds", "1M"]).failed(2, &["--builds"]);
}

#[test]
fn an_unknown_way_of_reading_is_an_error_and_the_known_ones_are_not() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let search = |way: &str| {
        let args = ["search", &index, "-q", SMALL, "--limit", "20", "--beam-width", "1"];
        Run::of(Command::new(ROXANNE).args(args).env("ROXANNE_IO", way).output().unwrap())
    };
    search("telepathy").failed(8, &["ROXANNE_IO", "telepathy", "pread"]);
    assert_eq!(search("pread").well().stdout, search("").well().stdout);
}
