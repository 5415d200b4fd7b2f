//! Indexes of other systems: taken, and given.
#![allow(clippy::unwrap_used)]

use crate::shell::{Place, SIFT_BASE, roxanne};
use roxanne::{
    Budget, Change, Collection, CollectionConfig, CollectionOptions, ElementType, Index, KeyKind, Metric, Point, PointKey, SearchError,
    foreign::{Foreign, Reading, System},
};
use std::{collections::BTreeMap, fs};

fn data(name: &str) -> String {
    format!("{}/../tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn sample() -> Vec<u8> {
    fs::read(SIFT_BASE).unwrap()
}

/// The rows of a u8bin by their keys.
fn rows(vectors: &str, keys: &str) -> BTreeMap<String, Vec<u8>> {
    let (bytes, keys) = (fs::read(vectors).unwrap(), fs::read_to_string(keys).unwrap());
    let dim = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let rows: BTreeMap<_, _> = keys.lines().map(String::from).zip(bytes[8..].chunks_exact(dim).map(<[u8]>::to_vec)).collect();
    assert_eq!(rows.len() * dim + 8, bytes.len());
    rows
}

#[test]
fn what_diskann_made_is_imported_and_given_back() {
    let place = Place::new();
    let [index, vectors, keys, name] = ["my.rx", "v.u8bin", "keys.txt", "back"].map(|name| place.at(name));
    let import = ["import", "diskann", &data("foreign/ann"), "-o", &index, "--metric", "l2", "--element", "u8", "--verify", "0.95"];
    let run = roxanne(&import).well();
    assert!(run.stdout.contains("240 x 32"), "{run:?}");
    assert!(roxanne(&import).well().stderr.contains("complete already"));
    roxanne(&["export", &index, &vectors, "--keys-to", &keys]).well();
    let sample = sample();
    let expected: BTreeMap<_, _> = (0..240).map(|row| (format!("{}", 2 * row + 5), sample[8 + 128 * row..][..32].to_vec())).collect();
    assert!(rows(&vectors, &keys) == expected);

    // As DiskANN would have it: the same edges, the same entry. And taken from there once more.
    roxanne(&["export", &index, &name, "--diskann"]).well();
    let opened = Index::open(&index, Budget::default()).unwrap();
    let how = Reading { element: Some(ElementType::U8), ..Reading::default() };
    let given = Foreign::open(System::DiskAnn, name.as_ref(), &how).unwrap();
    let mut seen = 0;
    opened
        .each_node(&mut |node| {
            assert_eq!(given.links.row(node.id.index()), node.neighbors);
            seen += 1;
            Ok::<_, SearchError>(())
        })
        .unwrap();
    assert_eq!((seen, fs::read(&name).unwrap()[12..16].to_vec()), (240, opened.entry().0.to_le_bytes().to_vec()));
    let again = place.at("again.rx");
    roxanne(&["import", "diskann", &name, "-o", &again, "--metric", "l2", "--element", "u8", "--verify", "0.95"]).well();
    let [vectors, keys] = ["again.u8bin", "again.txt"].map(|name| place.at(name));
    roxanne(&["export", &again, &vectors, "--keys-to", &keys]).well();
    assert!(rows(&vectors, &keys) == expected);
    // Nothing is written over, and nothing else is left.
    for args in [vec!["export", &index, &vectors, "--keys-to", "other"], vec!["export", &index, &name, "--diskann"]] {
        roxanne(&args).failed(3, &["exists already"]);
    }
    let left: Vec<_> = fs::read_dir(place.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with('.')) && left.len() == 9, "{left:?}");
}

#[test]
fn a_collection_is_exported_as_it_is_now() {
    let place = Place::new();
    let [docs, vectors, keys] = ["docs", "v.u8bin", "keys.txt"].map(|name| place.at(name));
    roxanne(&["create", &docs, "--dim", "128", "--element", "u8", "--metric", "l2", "--keys", "strings"]).well();
    let names = place.write("names", (0..50).map(|row| format!("doc {row}\n")).collect::<String>());
    roxanne(&["insert", &docs, SIFT_BASE, "--limit", "50", "--keys", &names]).well();
    roxanne(&["delete", &docs, "doc 7"]).well();
    roxanne(&["export", &docs, &vectors, "--keys-to", &keys]).well();
    let sample = sample();
    let expected: BTreeMap<_, _> =
        (0..50).filter(|&row| row != 7).map(|row| (format!("doc {row}"), sample[8 + 128 * row..][..128].to_vec())).collect();
    assert!(rows(&vectors, &keys) == expected);
}

#[test]
fn what_cannot_be_taken_or_given_is_said() {
    let place = Place::new();
    let [index, out, sq8, live, dot] = ["my.rx", "out", "sq8.rx", "live.rx", "dot.rx"].map(|name| place.at(name));
    for (args, code, told) in [
        (vec!["import", "hnswlib", &data("foreign/hnswlib.bin"), "-o", &index], 2, "a metric must be given"),
        (vec!["import", "faiss", &data("foreign/faiss.index"), "-o", &index, "-m", "l2"], 2, "near means dot"),
        (vec!["import", "faiss", &data("foreign/hnswlib.bin"), "-o", &index], 3, "read are IndexHNSWFlat"),
        (vec!["import", "usearch", &data("foreign/f16.usearch"), "-o", &index, "--element", "u8"], 3, "its coordinates are f16"),
        (vec!["import", "diskann", &data("foreign/none"), "-o", &index, "-m", "l2"], 3, "No such file"),
        (vec!["import", "annoy", &data("foreign/none"), "-o", &index], 2, "known: hnswlib, faiss, usearch, diskann"),
        (vec!["import", "diskann", &data("foreign/ann"), "-o", &index, "-m", "l2", "--element", "u8", "--ram", "1M"], 4, "bytes of memory"),
        (vec!["import", "diskann", &data("foreign/ann"), "-o", &index, "-m", "l2", "--element", "u8", "--ram", "4K"], 4, "keys and edges"),
    ] {
        let run = roxanne(&args);
        assert!(run.code == Some(code) && run.stderr.contains(told), "{run:?}");
    }
    roxanne(&["build", "synth:n=300,dim=16", "-o", &sq8, "--vectors", "sq8"]).well();
    roxanne(&["build", "synth:n=300,dim=16", "-o", &live, "--capacity", "400"]).well();
    roxanne(&["build", "synth:n=300,dim=16,type=f16", "-o", &index]).well();
    roxanne(&["build", "synth:n=300,dim=16,type=u8", "-o", &dot, "--metric", "dot"]).well();
    for (args, code, told) in [
        (vec!["export", &sq8, &out, "--keys-to", "k"], 3, "a byte a coordinate"),
        (vec!["export", &live, &out, "--diskann"], 3, "changed in place"),
        (vec!["export", &index, &out, "--diskann"], 3, "f32, u8 and i8"),
        (vec!["export", &dot, &out, "--diskann"], 3, "of f32 under dot"),
        (vec!["export", &index, &out, "--keys-to", &out], 2, "two files"),
        (vec!["export", &index, "out.fbin", "--keys-to", "k"], 3, "f16"),
        (vec!["export", &index, "out.f16bin"], 2, "--keys-to"),
    ] {
        let run = roxanne(&args);
        assert!(run.code == Some(code) && run.stderr.contains(told), "{run:?}");
    }
}

#[test]
fn diskann_is_given_vectors_of_length_one_under_cos_and_no_key_of_two_lines_goes_out() {
    let place = Place::new();
    let [index, name, docs, out] = ["my.rx", "ann", "docs", "v.fbin"].map(|name| place.at(name));
    roxanne(&["build", "synth:n=200,dim=16", "-o", &index, "--metric", "cos"]).well();
    roxanne(&["export", &index, &name, "--diskann"]).well();
    let data = fs::read(format!("{name}.data")).unwrap();
    let values: Vec<f32> = data[8..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert!(values.len() == 200 * 16 && values.chunks_exact(16).all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
    let config = CollectionConfig { dim: 2, metric: Metric::L2, element: ElementType::F32, keys: KeyKind::Strings };
    let collection = Collection::create(&docs, &config, &CollectionOptions::default()).unwrap();
    let point = |key: &str| Change::Upsert(Point { key: PointKey::Text(key.into()), vector: vec![1.0, 2.0], payload: "".into() });
    collection.write(vec![point("one"), point("two\nlines")]).unwrap();
    drop(collection);
    roxanne(&["export", &docs, &out, "--keys-to", &place.at("keys")]).failed_last(3, &["more than one line"]);
    assert!(!fs::exists(&out).unwrap() && !fs::exists(place.at("keys")).unwrap());
}
