//! Same input, parameters and seed: the same bytes, whatever computes them.

use roxanne_builder::{BuildParams, Builder};
use roxanne_core::{metric::Metric, simd::SimdLevel};
use roxanne_tests::{SIFT_BASE, build, contents, dataset, open, scratch, small, write_fbin};
use std::collections::BTreeMap;

fn built(source: &str, metric: Metric, params: &BuildParams, threads: usize, level: SimdLevel) -> BTreeMap<String, Vec<u8>> {
    let dir = scratch();
    let path = dir.path().join("index");
    let builder = Builder::new(metric).params(params.clone()).threads(threads).simd(level).dataset(dataset(source, metric));
    builder.build(&path).expect("a built index");
    contents(&path)
}

/// Compares every file; a difference is told by name and place, not by a megabyte of bytes.
fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert!(a.keys().eq(b.keys()), "{what}: {:?} and {:?}", a.keys(), b.keys());
    for (name, bytes) in a {
        let at = bytes.iter().zip(&b[name]).position(|(x, y)| x != y);
        assert!(
            at.is_none() && bytes.len() == b[name].len(),
            "{what}: {name} differs at {at:?}, {} and {} bytes",
            bytes.len(),
            b[name].len()
        );
    }
}

/// Builds on 1 and 2 threads, and at every SIMD level.
fn same_everywhere(source: &str, metric: Metric) {
    let params = BuildParams { max_degree: 24, ..BuildParams::default() };
    let first = built(source, metric, &params, 2, SimdLevel::detected());
    assert_eq!(first.len(), 6, "{:?}", first.keys());
    assert_same(&first, &built(source, metric, &params, 1, SimdLevel::detected()), "1 thread");
    for level in SimdLevel::available() {
        assert_same(&first, &built(source, metric, &params, 3, level), level.name());
    }
}

#[test]
fn real_bytes_build_the_same_index_everywhere() {
    same_everywhere(SIFT_BASE, Metric::L2);
}

#[test]
fn floats_build_the_same_index_everywhere() {
    same_everywhere("synth:n=1500,dim=50,clusters=32", Metric::L2);
}

#[test]
fn floats_under_cosine_build_the_same_index_everywhere() {
    same_everywhere("synth:n=1500,dim=33,clusters=32", Metric::Cosine);
}

#[test]
fn halves_under_inner_product_build_the_same_index_everywhere() {
    same_everywhere("synth:n=1000,dim=40,type=f16,clusters=32", Metric::InnerProduct);
}

#[test]
fn signed_bytes_under_manhattan_build_the_same_index_everywhere() {
    same_everywhere("synth:n=1000,dim=40,type=i8,clusters=32", Metric::Manhattan);
}

#[test]
fn packed_bits_build_the_same_index_everywhere() {
    same_everywhere("synth:n=1000,dim=128,type=binary,clusters=32", Metric::Hamming);
}

#[test]
fn a_second_build_gives_the_same_index_and_another_seed_another() {
    let source = "synth:n=1200,dim=24,clusters=32";
    let with_seed = |seed| built(source, Metric::L2, &BuildParams { seed, ..BuildParams::default() }, 2, SimdLevel::detected());
    let first = with_seed(1);
    assert_same(&first, &with_seed(1), "again");
    let other = with_seed(2);
    assert!(first["graph.rx"] != other["graph.rx"] && first["MANIFEST"] != other["MANIFEST"]);
}

#[test]
fn one_changed_coordinate_is_another_generation() {
    let dir = scratch();
    let mut rows = roxanne_tests::rows("synth:n=3000,dim=4,clusters=8", Metric::L2);
    let generation = |rows: &[Vec<f32>], name: &str| {
        let source = write_fbin(&dir.path().join(format!("{name}.fbin")), rows);
        let path = dir.path().join(name);
        build(&source, Metric::L2, small(), &path);
        open(&path).info().generation
    };
    let before = generation(&rows, "before");
    assert_eq!(before, generation(&rows, "again"));
    // Several, because a sample of the rows is noted apart.
    for row in [1, 999, 2017, 2998] {
        let was = rows[row][3];
        rows[row][3] += 1e-6;
        assert_ne!(before, generation(&rows, &format!("row {row}")));
        rows[row][3] = was;
    }
}
