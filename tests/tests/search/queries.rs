//! Queries that make no sense are refused with a reason, and those that barely do are answered.

use roxanne_core::{ErrorClass, element::ElementType, metric::Metric};
use roxanne_engine::{Index, SearchError, SearchParams};
use roxanne_tests::{build, open, rows, scratch_in_memory, small};
use tempfile::TempDir;

fn index(source: &str, metric: Metric) -> (TempDir, Index) {
    let dir = scratch_in_memory();
    build(source, metric, small(), &dir.path().join("index"));
    let index = open(&dir.path().join("index"));
    (dir, index)
}

fn refused(index: &Index, query: &[f32]) -> SearchError {
    let error = index.search(query, &SearchParams::default()).expect_err("a refusal");
    assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
    error
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let (_dir, index) = index("synth:n=100,dim=4", Metric::L2);
    let good = SearchParams::default();
    for (name, params) in [
        ("k", SearchParams { k: 0, ..good }),
        ("k", SearchParams { k: usize::MAX, ..good }),
        ("list_size", SearchParams { list_size: 0, ..good }),
        ("list_size", SearchParams { list_size: 1 << 40, ..good }),
        ("beam_width", SearchParams { beam_width: 0, ..good }),
        ("beam_width", SearchParams { beam_width: 1000, ..good }),
    ] {
        let error = index.search(&[0.5; 4], &params).unwrap_err();
        assert!(matches!(&error, SearchError::Param { name: named, .. } if *named == name), "{error}");
        assert_eq!(error.class(), ErrorClass::Usage);
    }
    // The largest that are allowed cost nothing where there are few vectors.
    let answer =
        index.search(&[0.5; 4], &SearchParams { k: 1 << 20, list_size: 1 << 20, beam_width: 64, ..SearchParams::DEFAULT }).unwrap();
    assert_eq!(answer.hits.len(), 100);
}

#[test]
fn a_list_shorter_than_k_is_as_long_as_k() {
    let (_dir, index) = index("synth:n=100,dim=4", Metric::L2);
    let answer = index.search(&[0.5; 4], &SearchParams { k: 100, list_size: 1, beam_width: 2, ..SearchParams::DEFAULT }).unwrap();
    assert_eq!(answer.hits.len(), 100);
}

#[test]
fn a_query_of_another_dimension_is_refused_with_both() {
    let (_dir, index) = index("synth:n=100,dim=4", Metric::L2);
    for query in [&[][..], &[1.0; 3], &[1.0; 5]] {
        let error = refused(&index, query);
        assert!(matches!(error, SearchError::DimensionMismatch { found: 4, asked, .. } if asked == query.len()), "{error}");
    }
}

#[test]
fn a_query_that_is_not_finite_is_refused_by_coordinate() {
    for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
        let (_dir, index) = index("synth:n=100,dim=4", metric);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let text = refused(&index, &[1.0, 0.0, bad, bad]).to_string();
            assert!(text.contains("coordinate 2"), "{text}");
        }
        // Finite, but its length is not.
        refused(&index, &[1e38; 4]);
    }
}

#[test]
fn a_zero_query_has_no_direction_and_is_a_place_all_the_same() {
    let (_cosine_dir, cosine) = index("synth:n=100,dim=4", Metric::Cosine);
    assert!(refused(&cosine, &[0.0, -0.0, 0.0, 0.0]).to_string().contains("zero vector"));
    let (_dir, l2) = index("synth:n=100,dim=4", Metric::L2);
    assert_eq!(l2.search(&[0.0; 4], &SearchParams::default()).unwrap().hits.len(), 10);
}

#[test]
fn a_query_beyond_the_element_type_is_refused_by_coordinate() {
    for (kind, bad) in [("u8", [256.0, 0.5]), ("u8", [-1.0, 1e9]), ("i8", [128.0, 0.25]), ("f16", [1e6, -70000.0])] {
        let (_dir, index) = index(&format!("synth:n=100,dim=4,type={kind}"), Metric::L2);
        for value in bad {
            let error = refused(&index, &[1.0, 2.0, 3.0, value]);
            let SearchError::NotRepresentable(place) = error else { panic!("{error}") };
            assert_eq!((place.at, place.element.name()), (3, kind));
        }
    }
    let (_dir, index) = index("synth:n=100,dim=16,type=binary", Metric::Hamming);
    let SearchError::NotRepresentable(place) = refused(&index, &[0.5; 16]) else { panic!("half a bit") };
    assert_eq!((place.at, place.element), (0, ElementType::Binary));
}

#[test]
fn the_distance_of_a_hit_is_that_of_the_metric() {
    let far = |a: &[f32], b: &[f32], metric: Metric| -> f64 {
        let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let dot = || pairs().map(|(x, y)| x * y).sum::<f64>();
        let length = |v: &[f32]| v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        match metric {
            Metric::L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum(),
            Metric::Cosine => 1.0 - dot() / (length(a) * length(b)),
            Metric::InnerProduct => -dot(),
            Metric::Manhattan => pairs().map(|(x, y)| (x - y).abs()).sum(),
            Metric::Hamming => pairs().filter(|(x, y)| x != y).count() as f64,
        }
    };
    for metric in Metric::ALL {
        let kinds = if metric == Metric::Hamming { &["binary"][..] } else { &["f32", "f16", "u8", "i8"] };
        for kind in kinds {
            let base = format!("synth:n=300,dim=40,type={kind},clusters=8");
            let (_dir, index) = index(&base, metric);
            let (base, queries) = (rows(&base, metric), rows(&base.replace("n=300", "n=5,part=query"), metric));
            for query in &queries {
                for hit in
                    index.search(query, &SearchParams { k: 300, list_size: 300, beam_width: 4, ..SearchParams::DEFAULT }).unwrap().hits
                {
                    let exact = far(query, &base[hit.key.0 as usize], metric);
                    let allowed = 1e-5 * exact.abs().max(1.0);
                    assert!((f64::from(hit.distance) - exact).abs() <= allowed, "{metric} {kind}: {} for {exact}", hit.distance);
                }
            }
        }
    }
}
