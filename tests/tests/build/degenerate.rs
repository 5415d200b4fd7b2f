//! Sets of vectors that no one has in mind: tiny, all alike, of odd widths. Every vector must still be found.

use roxanne_builder::{BuildError, BuildParams, Builder};
use roxanne_core::{ErrorClass, dataset::DatasetError, element::ElementType, metric::Metric};
use roxanne_engine::{Index, verify::verify};
use roxanne_tests::{build, contents, dataset, names, open, rows, scratch, scratch_in_memory, search, small, write_as, write_fbin};
use std::path::Path;

/// Builds, verifies, and finds every key by a search that keeps all nodes.
fn all_are_found(source: &str, metric: Metric, params: BuildParams) -> Index {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    let n = build(source, metric, params, &path).n;
    let verified = verify(&path, &mut |_, _| {}).expect("a whole index");
    assert_eq!((verified.unreachable, verified.nodes), (0, n), "{source}");
    let index = open(&path);
    let mut searcher = index.searcher().expect("a searcher");
    let queries = rows(source, metric);
    for query in [0, queries.len() / 2, queries.len() - 1].map(|row| &queries[row]) {
        let answer = search(&mut searcher, query, n as usize, n as usize);
        let mut keys: Vec<u64> = answer.hits.iter().map(|hit| hit.key.0).collect();
        assert!(answer.hits.is_sorted_by(|a, b| a.distance <= b.distance), "{source}: hits out of order");
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..n), "{source}: not every key is found");
        let more = search(&mut searcher, query, n as usize + 5, 1);
        assert_eq!(more.hits.len() as u64, n, "{source}: k above n gives n");
    }
    index
}

#[test]
fn one_two_and_three_vectors_are_an_index() {
    for n in 1..=3 {
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
            all_are_found(&format!("synth:n={n},dim=5"), metric, BuildParams::default());
        }
        all_are_found(&format!("synth:n={n},dim=16,type=binary"), Metric::Hamming, BuildParams::default());
    }
}

#[test]
fn fewer_vectors_than_the_degree_are_an_index() {
    for n in [4, 17, 47, 48, 49] {
        all_are_found(&format!("synth:n={n},dim=12,type=u8"), Metric::L2, BuildParams::default());
    }
}

#[test]
fn counts_at_the_edges_of_leaves_tiles_and_lanes_are_an_index() {
    for n in [12, 24, 31, 32, 33, 64, 96, 255, 256, 257, 384, 512, 768, 1000] {
        all_are_found(&format!("synth:n={n},dim=16,type=u8,clusters=8"), Metric::L2, small());
    }
}

#[test]
fn vectors_that_are_all_equal_are_all_found() {
    let dir = scratch();
    for n in [1, 2, 300, 3000] {
        for (metric, value) in [(Metric::L2, 0.0), (Metric::Cosine, 0.5), (Metric::InnerProduct, -3.25), (Metric::Manhattan, 7.0)] {
            let source = write_fbin(&dir.path().join(format!("{n}-{metric}.fbin")), &vec![vec![value; 20]; n]);
            all_are_found(&source, metric, small());
        }
        let source = write_as(&dir.path().join(format!("{n}.u8bin")), ElementType::U8, &vec![vec![255.0; 4]; n]);
        all_are_found(&source, Metric::Hamming, small());
        all_are_found(&source, Metric::L2, BuildParams { max_degree: 2, ..small() });
    }
}

#[test]
fn vectors_of_two_values_are_all_found() {
    let dir = scratch();
    for (n, every) in [(2, 2), (300, 2), (1000, 999), (1500, 3)] {
        let value = |row: usize| if row.is_multiple_of(every) { 1.0 } else { -1.0 };
        let source = write_fbin(&dir.path().join(format!("{n}.fbin")), &(0..n).map(|row| vec![value(row); 9]).collect::<Vec<_>>());
        for metric in [Metric::L2, Metric::Cosine] {
            all_are_found(&source, metric, small());
        }
    }
}

#[test]
fn one_vector_far_from_all_others_is_found() {
    let dir = scratch();
    let mut far = rows("synth:n=700,dim=10,clusters=4", Metric::L2);
    far[350] = vec![1e6; 10];
    let index = all_are_found(&write_fbin(&dir.path().join("far.fbin"), &far), Metric::L2, small());
    let answer = index.search(&far[350], &Default::default()).unwrap();
    assert_eq!((answer.hits[0].key.0, answer.hits[0].distance), (350, 0.0));
}

#[test]
fn every_dimension_is_an_index() {
    for dim in [1, 2, 3, 7, 8, 9, 31, 32, 33, 100, 1024] {
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
            all_are_found(&format!("synth:n=130,dim={dim},clusters=4"), metric, small());
        }
        all_are_found(&format!("synth:n=130,dim={},type=binary,clusters=4", dim * 8), Metric::Hamming, small());
    }
}

#[test]
fn the_widest_vectors_are_an_index() {
    for dim in [4096, 8192] {
        all_are_found(&format!("synth:n=40,dim={dim},clusters=4"), Metric::L2, small());
        all_are_found(&format!("synth:n=40,dim={dim},type=u8,clusters=4"), Metric::Manhattan, small());
    }
    all_are_found("synth:n=40,dim=8192,type=binary,clusters=4", Metric::Hamming, small());
}

#[test]
fn the_widest_vectors_are_an_index_under_inner_product() {
    for dim in [8160, 8191, 8192] {
        all_are_found(&format!("synth:n=12,dim={dim},clusters=4"), Metric::InnerProduct, small());
    }
}

#[test]
fn every_element_type_is_an_index() {
    for element in ["f32", "f16", "bf16", "u8", "i8"] {
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
            let source = format!("synth:n=200,dim=24,type={element},clusters=8");
            let index = all_are_found(&source, metric, small());
            // The vector that is kept is the vector that was given, to the bit.
            assert_eq!(index.get("123").unwrap().unwrap(), rows(&source, metric)[123], "{element} {metric}");
        }
    }
}

#[test]
fn a_dimension_beyond_the_widest_is_refused() {
    let error = Builder::new(Metric::L2).input("synth:n=3,dim=8193").err().unwrap();
    assert_eq!(error.class(), ErrorClass::BadInput);
    assert!(error.to_string().contains("8193") && error.to_string().contains("8192"), "{error}");
    // Packed bits count as dimensions.
    let dir = scratch();
    let wide = write_as(&dir.path().join("wide.u8bin"), ElementType::U8, &[vec![1.0; 1025]]);
    let error = Builder::new(Metric::Hamming).input(&wide).unwrap().build(dir.path().join("x")).unwrap_err();
    assert!(matches!(error, BuildError::Dataset(DatasetError::NotPacked { .. })), "{error}");
    assert_eq!(names(dir.path()), ["wide.u8bin"]);
}

#[test]
fn no_vectors_are_refused() {
    let dir = scratch();
    let error = Builder::new(Metric::L2).input("synth:n=0,dim=4").unwrap().build(dir.path().join("x")).unwrap_err();
    assert!(matches!(error, BuildError::Count { n: 0, .. }), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_metric_that_does_not_go_with_the_vectors_is_refused() {
    let dir = scratch();
    for (source, metric) in [("synth:n=9,dim=8", Metric::Hamming), ("synth:n=9,dim=8,type=binary", Metric::L2)] {
        let error = Builder::new(metric).input(source).unwrap().build(dir.path().join("x")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
        assert!(error.to_string().contains("hamming") || error.to_string().contains("packed"), "{error}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let dir = scratch();
    let defaults = BuildParams::default;
    let cases = [
        ("degree", BuildParams { max_degree: 1, ..defaults() }),
        ("degree", BuildParams { max_degree: 5000, ..defaults() }),
        ("alpha", BuildParams { alpha: 0.5, ..defaults() }),
        ("alpha", BuildParams { alpha: f64::NAN, ..defaults() }),
        ("leaf-k", BuildParams { leaf_k: 0, ..defaults() }),
        ("leaf-k", BuildParams { leaf_k: 17, ..defaults() }),
        ("reservoir", BuildParams { reservoir: 0, ..defaults() }),
        ("leaf-max", BuildParams { leaf_max: Some(1), ..defaults() }),
        ("bytes a code", BuildParams { pq_bytes: Some(0), ..defaults() }),
        ("bytes a code", BuildParams { pq_bytes: Some(9), ..defaults() }),
    ];
    for (name, params) in cases {
        let error = Builder::new(Metric::L2).params(params).input("synth:n=50,dim=8").unwrap().build(dir.path().join("x")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn parameters_at_the_ends_of_their_ranges_build() {
    let ends = [
        BuildParams { max_degree: 2, leaf_k: 1, reservoir: 1, leaf_max: Some(8), ..BuildParams::default() },
        BuildParams { max_degree: 512, leaf_k: 16, reservoir: 1024, leaf_max: Some(4096), alpha: 10.0, ..BuildParams::default() },
        BuildParams { alpha: 1.0, pq_bytes: Some(1), seed: u64::MAX, ..BuildParams::default() },
    ];
    for params in ends {
        all_are_found("synth:n=600,dim=8,clusters=16", Metric::L2, params);
    }
}

/// The parts of a bad build: nothing may stand beside the input.
fn refused(source: &str, metric: Metric, dir: &Path) -> String {
    let error = Builder::new(metric).dataset(dataset(source, metric)).build(dir.join("x")).expect_err("a refusal");
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
    error.to_string()
}

#[test]
fn a_row_that_cannot_be_indexed_is_named_and_nothing_is_left() {
    for (value, metric, why) in [
        (f32::NAN, Metric::L2, "not finite"),
        (f32::NEG_INFINITY, Metric::Cosine, "not finite"),
        (1e30, Metric::L2, "overflows"),
        (0.0, Metric::Cosine, "zero vector"),
    ] {
        let dir = scratch();
        // Beyond the sample that is looked at first, so that the whole is what is checked.
        let mut all = vec![vec![1.0f32, 2.0]; 20_000];
        all[19_998] = vec![value; 2];
        let raw: Vec<u8> =
            [20_000u32, 2].into_iter().flat_map(u32::to_le_bytes).chain(all.iter().flatten().flat_map(|v| v.to_le_bytes())).collect();
        let path = dir.path().join("bad.fbin");
        std::fs::write(&path, raw).unwrap();
        let text = refused(path.to_str().unwrap(), metric, dir.path());
        assert!(text.contains("row 19998") && text.contains(why) && text.contains("bad.fbin"), "{text}");
        assert_eq!(contents(dir.path()).into_keys().collect::<Vec<_>>(), ["bad.fbin"]);
    }
}
