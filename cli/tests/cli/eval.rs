//! `eval`: recall against an exact truth, and which truths, keys and ties it accepts.

use crate::shell::{Place, SIFT_BASE, SIFT_QUERIES, SMALL, fbin, roxanne};
use serde_json::Value;
use std::fs;

fn recall(value: &Value, point: usize) -> f64 {
    value["points"][point]["recall"].as_f64().expect("a recall")
}

#[test]
fn a_sweep_is_one_object_with_a_point_a_list_size() {
    let place = Place::new();
    let index = place.build(SIFT_BASE, "index", &[]);
    let (truth, plot) = (place.at("gt.bin"), place.at("plot.svg"));
    roxanne(&["truth", SIFT_BASE, SIFT_QUERIES, "-o", &truth]).well();
    let run = roxanne(&[
        "eval",
        &index,
        "-q",
        SIFT_QUERIES,
        "-g",
        &truth,
        "-k",
        "10",
        "--sweep",
        "list-size=16,32,64,128",
        "--threads",
        "2",
        "--cold",
        "--plot",
        &plot,
        "--json",
    ])
    .well();
    let value = run.json();
    assert_eq!(value["index"]["n"], 4000);
    let points = value["points"].as_array().unwrap();
    let sizes: Vec<u64> = points.iter().map(|point| point["list_size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [16, 32, 64, 128]);
    for point in points {
        for name in ["recall", "qps", "reads", "mean_us", "p50_us", "p99_us", "p999_us", "rss_bytes"] {
            assert!(point[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {point}");
        }
        let us = |name: &str| point[name].as_f64().unwrap();
        assert!(us("p50_us") <= us("p99_us") && us("p99_us") <= us("p999_us"), "{point}");
    }
    assert!(recall(&value, 0) >= 0.93 && recall(&value, 3) >= 0.98, "{value}");
    let reads: Vec<f64> = points.iter().map(|point| point["reads"].as_f64().unwrap()).collect();
    assert!(reads.is_sorted(), "a longer list reads more: {reads:?}");
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("recall@10"), "{svg}");
}

#[test]
fn threads_and_table_change_no_recall() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let truth = place.at("gt.bin");
    roxanne(&["truth", SMALL, "synth:n=50,dim=8,clusters=8,part=query", "-o", &truth, "-k", "10"]).well();
    let args = ["eval", &index, "-q", "synth:n=50,dim=8,clusters=8,part=query", "-g", &truth, "--sweep", "300", "--beam-width", "1"];
    let with = |threads: &str| roxanne(&[&args[..], &["--json", "--threads", threads]].concat()).well().json();
    let (one, many) = (with("1"), with("4"));
    assert_eq!((recall(&one, 0), recall(&many, 0)), (1.0, 1.0), "a list of all nodes finds all");
    assert_eq!(one["points"][0]["reads"], many["points"][0]["reads"]);
    let table = roxanne(&args).well().stdout;
    assert!(table.trim_start().starts_with("effort"), "{table}");
    assert!(table.lines().count() == 2 && table.contains("1.0000"), "{table}");
}

#[test]
fn recall_under_l2_counts_the_rows_that_the_truth_names_and_no_ties() {
    let place = Place::new();
    // Ten rows at one place and ninety at another: which ten of the ninety are named is the truth's choice.
    let rows: Vec<Vec<f32>> = (0..100).map(|row| vec![if row < 10 { 1.0 } else { 5.0 }; 4]).collect();
    let base = place.write("base.fbin", fbin(&rows));
    let index = place.build(&base, "index", &[]);
    let measured = |query: f32| {
        let name = format!("q{query}.fbin");
        let (queries, truth) = (place.write(&name, fbin(&[vec![query; 4]])), place.at(&format!("{query}.bin")));
        roxanne(&["truth", &base, &queries, "-k", "10", "-o", &truth]).well();
        recall(&roxanne(&["eval", &index, "-q", &queries, "-g", &truth, "--sweep", "100", "--json"]).well().json(), 0)
    };
    assert_eq!(measured(1.0), 1.0, "no tie at the border: these ten and no others");
    // Row numbers of the crowd are a matter of luck, so recall is at most right, never above 1.
    assert!(measured(5.0) <= 1.0);
}

#[test]
fn recall_under_hamming_counts_rows_at_the_distance_of_the_last() {
    let place = Place::new();
    let base = "synth:n=600,dim=16,type=binary,clusters=4";
    let index = place.build(base, "index", &["-m", "hamming"]);
    let truth = place.at("gt.bin");
    roxanne(&["truth", base, "synth:n=20,dim=16,type=binary,clusters=4,part=query", "-m", "hamming", "-k", "10", "-o", &truth]).well();
    let queries = "synth:n=20,dim=16,type=binary,clusters=4,part=query";
    let value = roxanne(&["eval", &index, "-q", queries, "-g", &truth, "--sweep", "600", "--json"]).well().json();
    assert_eq!(recall(&value, 0), 1.0, "of 16 bits nearly all distances tie");
}

#[test]
fn keys_of_ones_own_are_led_back_to_rows() {
    let place = Place::new();
    let queries = "synth:n=40,dim=8,clusters=8,part=query";
    let truth = place.at("gt.bin");
    roxanne(&["truth", SMALL, queries, "-o", &truth, "-k", "10"]).well();
    let numbers = place.write("numbers.txt", (0..300u64).map(|row| format!("{}\n", row * 7919 + 1_000_000)).collect::<String>());
    let strings = place.write("strings.txt", (0..300).map(|row| format!("doc {}\n", 299 - row)).collect::<String>());
    let rows_index = place.build(SMALL, "rows", &[]);
    let number_index = place.build(SMALL, "numbers", &["--keys", &numbers]);
    let string_index = place.build(SMALL, "strings", &["--keys", &strings]);
    let eval = |index: &str, more: &[&str]| {
        let args = ["eval", index, "-q", queries, "-g", &truth, "--sweep", "12", "--beam-width", "1", "--json"];
        roxanne(&[&args[..], more].concat())
    };
    let expected = recall(&eval(&rows_index, &[]).well().json(), 0);
    assert!(expected > 0.8, "{expected}");
    assert_eq!(recall(&eval(&string_index, &[]).well().json(), 0), expected);
    assert_eq!(recall(&eval(&number_index, &["--keys", &numbers]).well().json(), 0), expected);
    eval(&number_index, &[]).failed(2, &["--keys", "row numbers"]);
    eval(&number_index, &["--keys", &strings]).failed(3, &["strings.txt", "300"]);
    let others = place.write("others.txt", (0..300).map(|row| format!("{row}\n")).collect::<String>());
    eval(&number_index, &["--keys", &others]).failed(3, &["key", "--keys"]);
}

#[test]
fn a_truth_of_something_else_is_refused() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let truth = |base: &str, queries: &str, k: &str, name: &str| {
        roxanne(&["truth", base, queries, "-o", &place.at(name), "-k", k]).well();
        place.at(name)
    };
    let queries = "synth:n=20,dim=8,clusters=8,part=query";
    let good = truth(SMALL, queries, "10", "good.bin");
    let eval = |truth: &str, queries: &str, more: &[&str]| {
        roxanne(&[&["eval", &index, "-q", queries, "-g", truth, "--sweep", "16"][..], more].concat())
    };
    eval(&good, queries, &[]).well();
    eval(&good, queries, &["-k", "11"]).failed(3, &["good.bin", "10", "11"]);
    eval(&good, &queries.replace("n=20", "n=21"), &[]).failed(3, &["20", "21"]);
    eval(&good, &queries.replace("n=20", "n=19"), &[]).failed(3, &["20", "19"]);
    eval(&good, queries, &["--limit", "5"]).well();
    eval(&good, "synth:n=20,dim=9", &[]).failed(3, &["9", "8"]);
    let larger = truth("synth:n=5000,dim=8,clusters=8", queries, "10", "larger.bin");
    eval(&larger, queries, &[]).failed(3, &["larger.bin", "another base", "300"]);
    eval(&place.at("absent.bin"), queries, &[]).failed(3, &["absent.bin"]);
    let bytes = fs::read(&good).unwrap();
    for (name, bytes) in [("cut.bin", &bytes[..bytes.len() - 1]), ("head.bin", &bytes[..5]), ("none.bin", &[]), ("x.txt", b"1")] {
        eval(&place.write(name, bytes), queries, &[]).failed(3, &[name]);
    }
    let lying = place.write("lying.bin", [[0xFF; 8].as_slice(), &bytes[8..]].concat());
    eval(&lying, queries, &[]).failed(3, &["lying.bin"]);
}

#[test]
fn a_truth_may_be_ivecs() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let queries = "synth:n=20,dim=8,clusters=8,part=query";
    let recalls: Vec<f64> = ["gt.bin", "gt.ivecs"]
        .iter()
        .map(|name| {
            roxanne(&["truth", SMALL, queries, "-o", &place.at(name), "-k", "10"]).well();
            let args = ["eval", &index, "-q", queries, "-g", &place.at(name), "--sweep", "12", "--beam-width", "1", "--json"];
            recall(&roxanne(&args).well().json(), 0)
        })
        .collect();
    assert_eq!(recalls[0], recalls[1]);
}
