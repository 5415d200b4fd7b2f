//! An index that is damaged or newer: exit 6 from every command, with file and offset.

use crate::shell::{Place, SMALL, roxanne};
use std::{fs, path::Path};

/// Flips a bit of a file of the index.
fn flip(index: &str, file: &str, at: usize) {
    let path = Path::new(index).join(file);
    let mut bytes = fs::read(&path).expect("a file of the index");
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).expect("a damaged file");
}

#[test]
fn verify_names_file_and_offset_of_damage() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let run = roxanne(&["verify", &index]).well();
    assert!(run.stdout.contains("whole") && run.stdout.contains("300 nodes"), "{run:?}");
    for (file, at, offset) in [("graph.rx", 70_000, 69_632), ("codes.rx", 77, 0), ("nav.rx", 300, 0), ("keys.rx", 65_000, 0)] {
        flip(&index, file, at);
        roxanne(&["verify", &index]).failed(6, &[file, &format!("byte {offset}"), "checksum", "restore"]);
        let run = roxanne(&["verify", &index, "--json"]).failed(6, &[file]);
        assert_eq!(run.json()["ok"], false);
        assert!(run.json()["error"].as_str().unwrap().contains(file));
        flip(&index, file, at);
    }
    flip(&index, "graph.rx", 9);
    roxanne(&["verify", &index]).failed(6, &["graph.rx", "byte 9", "superblock"]);
    // The other superblock is whole, so the index still serves.
    roxanne(&["search", &index, "-q", SMALL, "--limit", "3"]).well();
}

#[test]
fn search_and_info_refuse_what_is_damaged() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let search = ["search", &index, "-q", SMALL, "--list-size", "300"];
    flip(&index, "graph.rx", 70_000);
    roxanne(&search).failed(6, &["graph.rx", "byte 69632"]);
    flip(&index, "graph.rx", 70_000);
    for file in ["codes.rx", "codebook.rx", "nav.rx"] {
        flip(&index, file, 1000);
        roxanne(&search).failed(6, &[file, "byte 0"]);
        flip(&index, file, 1000);
    }
    for (file, command) in [("MANIFEST", "info"), ("MANIFEST", "verify"), ("keys.rx", "info"), ("nav.rx", "info")] {
        flip(&index, file, 50);
        roxanne(&[command, &index]).failed(6, &[file]);
        flip(&index, file, 50);
    }
    fs::remove_file(Path::new(&index).join("codes.rx")).unwrap();
    for args in [&search[..], &["info", &index], &["verify", &index]] {
        roxanne(args).failed(6, &["codes.rx", "missing"]);
    }
    roxanne(&search[..4]).failed(6, &["codes.rx"]);
}

#[test]
fn a_newer_index_asks_for_a_newer_program() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let manifest = Path::new(&index).join("MANIFEST");
    let text = fs::read_to_string(&manifest).unwrap().replace("roxanne-generation 1", "roxanne-generation 7");
    fs::write(&manifest, text).unwrap();
    for args in [&["search", &index, "-q", SMALL][..], &["info", &index], &["verify", &index]] {
        roxanne(args).failed(6, &["version 7", "newer"]);
    }
    // And a build leaves it alone.
    roxanne(&["build", SMALL, "-o", &index]).failed(3, &["version 7", "untouched"]);
}
