//! `plan --time`, and the document that shows what it says.

use crate::shell::{Place, SIFT_BASE, roxanne};
use std::fs;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where a block begins.
const BLOCK: &str = "```\n$ roxanne ";

/// Commands and outputs of the blocks of docs/SCALE.md.
fn blocks(text: &str) -> Vec<(String, String)> {
    let block = |part: &str| {
        let (command, output) = part.split_once("```")?.0.split_once('\n')?;
        Some((command.to_string(), output.to_string()))
    };
    text.split(BLOCK).skip(1).filter_map(block).collect()
}

/// With WRITE_SCALE=1 in the environment the document is written anew.
#[test]
fn the_document_shows_what_the_command_prints() {
    let path = format!("{ROOT}/docs/SCALE.md");
    let mut text = fs::read_to_string(&path).unwrap();
    let blocks = blocks(&text);
    assert_eq!(blocks.len(), 3);
    for (command, shown) in blocks {
        let words = command.replace("bench/results", &format!("{ROOT}/bench/results"));
        let printed = roxanne(&words.split(' ').collect::<Vec<_>>()).well().stdout;
        if std::env::var_os("WRITE_SCALE").is_some() {
            text = text.replace(&format!("{BLOCK}{command}\n{shown}```"), &format!("{BLOCK}{command}\n{printed}```"));
            fs::write(&path, &text).unwrap();
        } else {
            assert_eq!(printed, shown, "docs/SCALE.md shows something else for: roxanne {command}");
        }
    }
}

#[test]
fn a_probe_tells_time_rates_and_traffic_and_leaves_nothing_behind() {
    let place = Place::new();
    let args = ["plan", SIFT_BASE, "--time", "--directory", &place.at("")];
    let json = roxanne(&[&args[..], &["--json", "--shards", "2"]].concat()).well().json();
    assert!(json["time"]["seconds"].as_f64().unwrap() > 0.0 && json["rates"]["vectors"].as_u64() == Some(4000), "{json}");
    let stages = json["time"]["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["name"] == "between shards"), "{json}");
    assert_eq!(json["time"]["passes"].as_u64(), Some(3));
    // The rates of one run are good for another.
    let rates = place.write("rates.json", json.to_string());
    let again = roxanne(&["plan", SIFT_BASE, "--time", "--rates", &rates, "--json", "--shards", "2"]).well().json();
    assert_eq!(again["time"], json["time"]);
    let run = roxanne(&["plan", SIFT_BASE, "--time", "--rates", &rates]).well();
    assert!(["time to build", "disk traffic", "reads a query"].iter().all(|word| run.stdout.contains(word)), "{run:?}");
    assert_eq!(place.names(), ["rates.json"]);
}

#[test]
fn more_vectors_than_one_index_names_are_several() {
    let json = roxanne(&["plan", "synth:n=10000000000,dim=8,type=u8", "--json"]).well().json();
    assert_eq!((json["indexes"].as_u64(), json["n"].as_u64()), (Some(3), Some(3_333_333_334)));
    let none = roxanne(&["plan", SIFT_BASE, "--json"]).well().json();
    assert!(none["indexes"].as_u64() == Some(1) && none["time"].is_null(), "{none}");
}

#[test]
fn rates_that_are_none_are_refused() {
    let place = Place::new();
    let bad = place.write("bad.json", "{}");
    roxanne(&["plan", SIFT_BASE, "--time", "--rates", &bad]).failed(3, &["bad.json", "plan INPUT --time --json"]);
    roxanne(&["plan", SIFT_BASE, "--time", "--directory", &place.at("nowhere")]).failed(3, &["nowhere"]);
    let run = roxanne(&["plan", SIFT_BASE, "--rates", &bad]);
    assert!(run.code == Some(2) && run.stderr.contains("--time"), "{run:?}");
}
