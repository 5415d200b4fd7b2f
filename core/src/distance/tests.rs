//! Every level that this processor has against the scalar oracle, and the oracle against sums done by hand.

use super::*;
use crate::random::CounterRng;

const DIMS: [usize; 11] = [1, 3, 31, 32, 33, 100, 127, 128, 384, 1024, 8192];

fn distance(level: SimdLevel, metric: Metric, element: ElementType, dim: usize, a: &[u8], b: &[u8]) -> f32 {
    DistanceFn::at_level(level, metric, element, dim).unwrap().distance(a, b)
}

fn row(element: ElementType, values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    element.encode(values, &mut bytes).unwrap();
    bytes
}

fn random_row(element: ElementType, dim: usize, rng: CounterRng) -> Vec<u8> {
    let unit = |i: usize| (rng.at(i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0; // -1..1
    match element {
        ElementType::F32 | ElementType::F16 | ElementType::Bf16 => row(element, &(0..dim).map(unit).collect::<Vec<_>>()),
        _ => (0..element.row_bytes(dim)).map(|i| rng.at(i as u64) as u8).collect(),
    }
}

fn metrics_of(element: ElementType) -> Vec<Metric> {
    Metric::ALL.into_iter().filter(|&m| DistanceFn::new(m, element, 8).is_ok()).collect()
}

fn is_exact(element: ElementType) -> bool {
    matches!(element, ElementType::U8 | ElementType::I8 | ElementType::Binary)
}

#[test]
fn every_level_agrees_with_the_oracle_at_any_dimension_and_alignment() {
    // Every tail length of every vector width, then the dimensions of real data.
    let dims = (1..=70).chain([100, 127, 128, 129, 384, 1024, 8192]);
    for (seed, dim, element) in dims.flat_map(|d| (0..4).map(move |s| (s, d))).flat_map(|(s, d)| ElementType::ALL.map(|e| (s, d, e))) {
        let rng = CounterRng::new(seed).part(dim as u64).part(element as u64);
        let (a, b) = (random_row(element, dim, rng.part(0)), random_row(element, dim, rng.part(1)));
        // One byte in front moves the row off any alignment; bytes behind must not be read as part of it.
        let shifted = [&[0xee][..], &b, &[0xee; 64]].concat();
        let b_shifted = &shifted[1..1 + b.len()];
        for (metric, level) in metrics_of(element).into_iter().flat_map(|m| SimdLevel::available().into_iter().map(move |l| (m, l))) {
            let wanted = distance(SimdLevel::Scalar, metric, element, dim, &a, &b);
            let got = distance(level, metric, element, dim, &a, &b);
            let case = format!("{metric} {element} dim {dim} {level}, seed {seed}: got {got}, wanted {wanted}");
            assert_eq!(got, distance(level, metric, element, dim, &a, b_shifted), "alignment changed {case}");
            assert_eq!(got, distance(level, metric, element, dim, &b, &a), "order of the rows changed {case}");
            // Rounding scales with the terms of the sum, which for an inner product may cancel: |x||y| <= dim here.
            let scale = match metric {
                Metric::Cosine => 1.0,
                Metric::InnerProduct => dim as f32,
                _ => wanted,
            };
            let tolerance = if is_exact(element) { 0.0 } else { scale * 2e-6 };
            assert!((got - wanted).abs() <= tolerance, "{case}");
        }
    }
}

#[test]
fn distances_of_three_dimensions_are_what_the_hand_finds() {
    let dim = 3;
    for level in SimdLevel::available() {
        for element in [ElementType::F32, ElementType::F16, ElementType::Bf16, ElementType::U8, ElementType::I8] {
            let (a, b) = (row(element, &[1.0, 2.0, 2.0]), row(element, &[4.0, 0.0, 3.0]));
            let found = [Metric::L2, Metric::Manhattan, Metric::InnerProduct, Metric::Cosine]
                .map(|metric| distance(level, metric, element, dim, &a, &b));
            // 9 + 4 + 1; 3 + 2 + 1; 4 + 0 + 6; 1 - 10 / (3 * 5)
            assert_eq!(found, [14.0, 6.0, -10.0, (1.0f64 - 10.0 / 15.0) as f32], "{element} {level}");
        }
        let (a, b) = ([0b1100_0001, 0b0000_1111], [0b0100_0001, 0b1111_1111]);
        assert_eq!(distance(level, Metric::Hamming, ElementType::Binary, 16, &a, &b), 5.0, "{level}");
    }
}

#[test]
fn equal_rows_are_at_zero_and_it_is_not_minus_zero() {
    for (dim, element) in DIMS.into_iter().flat_map(|d| ElementType::ALL.map(|e| (d, e))) {
        let a = random_row(element, dim, CounterRng::new(5));
        for (metric, level) in metrics_of(element).into_iter().flat_map(|m| SimdLevel::available().into_iter().map(move |l| (m, l))) {
            if metric != Metric::InnerProduct {
                let found = distance(level, metric, element, dim, &a, &a);
                assert_eq!(found.to_bits(), 0, "{metric} {element} dim {dim} {level}, seed 5: got {found}");
            }
        }
    }
}

#[test]
fn the_extremes_of_bytes_do_not_saturate() {
    let dim = MAX_DIM;
    for level in SimdLevel::available() {
        let (least, most) = (vec![0u8; dim], vec![255u8; dim]);
        let found = |metric, a, b| distance(level, metric, ElementType::U8, dim, a, b);
        assert_eq!(found(Metric::L2, &least, &most), (8192 * 255 * 255) as f32, "{level}");
        assert_eq!(found(Metric::Manhattan, &least, &most), (8192 * 255) as f32, "{level}");
        assert_eq!(found(Metric::InnerProduct, &most, &most), -(8192 * 255 * 255) as f32, "{level}");
        assert_eq!(found(Metric::Cosine, &most, &most), 0.0, "{level}");

        let (least, most) = (vec![-128i8 as u8; dim], vec![127u8; dim]);
        let found = |metric, a, b| distance(level, metric, ElementType::I8, dim, a, b);
        assert_eq!(found(Metric::L2, &least, &most), (8192 * 255 * 255) as f32, "{level}");
        assert_eq!(found(Metric::Manhattan, &least, &most), (8192 * 255) as f32, "{level}");
        assert_eq!(found(Metric::InnerProduct, &least, &most), (8192 * 128 * 127) as f32, "{level}");
        assert_eq!(found(Metric::InnerProduct, &least, &least), -(8192 * 128 * 128) as f32, "{level}");
        assert_eq!(found(Metric::Cosine, &least, &most), 2.0, "{level}");

        let (none, all) = (vec![0u8; dim / 8], vec![255u8; dim / 8]);
        assert_eq!(distance(level, Metric::Hamming, ElementType::Binary, dim, &none, &all), 8192.0, "{level}");
    }
}

#[test]
fn a_row_without_length_is_at_cosine_one_from_all() {
    for (level, element) in SimdLevel::available().into_iter().flat_map(|l| ElementType::ALL.map(|e| (l, e))) {
        if element == ElementType::Binary {
            continue;
        }
        let (zero, other) = (row(element, &[0.0; 33]), row(element, &[1.0; 33]));
        for (a, b) in [(&zero, &other), (&other, &zero), (&zero, &zero)] {
            assert_eq!(distance(level, Metric::Cosine, element, 33, a, b), 1.0, "{element} {level}");
        }
        let product = distance(level, Metric::InnerProduct, element, 33, &zero, &other);
        assert_eq!(product.to_bits(), 0, "{element} {level}: got {product}");
    }
}

#[test]
fn cosine_survives_squares_that_f32_cannot_hold() {
    for (scale, level) in
        [1e-40, 1e-22, 1e-13, 1e15, 1e30].into_iter().flat_map(|s| SimdLevel::available().into_iter().map(move |l| (s, l)))
    {
        let a = row(ElementType::F32, &[3.0 * scale, 4.0 * scale]);
        let b = row(ElementType::F32, &[3.0 * scale, -4.0 * scale]);
        let found = distance(level, Metric::Cosine, ElementType::F32, 2, &a, &b);
        assert!((found - 1.28).abs() < 1e-4, "scale {scale:e} {level}: got {found}"); // 1 - (9 - 16) / 25; 1e-40 itself is rough
        let found = distance(level, Metric::InnerProduct, ElementType::F32, 2, &a, &b);
        assert!(!found.is_nan() && found >= 0.0, "scale {scale:e} {level}: got {found}");
    }
}

#[test]
fn every_half_float_is_read_exactly() {
    for (level, element) in SimdLevel::available().into_iter().flat_map(|l| [(l, ElementType::F16), (l, ElementType::Bf16)]) {
        let from_zero = DistanceFn::at_level(level, Metric::Manhattan, element, 1).unwrap();
        for bits in 0..=u16::MAX {
            let mut value = [0.0];
            element.decode(&bits.to_le_bytes(), &mut value);
            if value[0].is_finite() {
                assert_eq!(from_zero.distance(&bits.to_le_bytes(), &[0, 0]), value[0].abs(), "{element} {bits:#06x} {level}");
            }
        }
    }
}

#[test]
fn a_metric_that_is_not_defined_is_refused_with_those_that_are() {
    let refused = |metric, element| DistanceFn::new(metric, element, 8).unwrap_err().to_string();
    assert_eq!(refused(Metric::L2, ElementType::Binary), "the metric l2 is not defined on binary vectors; on these use hamming");
    assert_eq!(
        refused(Metric::Hamming, ElementType::F16),
        "the metric hamming is not defined on f16 vectors; on these use l2, cos, dot, l1"
    );
    for (metric, element) in Metric::ALL.into_iter().flat_map(|m| ElementType::ALL.map(|e| (m, e))) {
        let defined = (metric == Metric::Hamming) == (element == ElementType::Binary);
        assert_eq!(DistanceFn::new(metric, element, 8).is_ok(), defined, "{metric} {element}");
    }
}

#[test]
#[should_panic(expected = "rows of 4 and 3 bytes, not 4")]
fn a_row_of_another_length_is_a_bug() {
    DistanceFn::new(Metric::L2, ElementType::U8, 4).unwrap().distance(&[0; 4], &[0; 3]);
}
