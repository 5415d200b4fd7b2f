//! Distances from a query in floats to rows of one byte a coordinate (SQ8), as records hold them where that was asked for.
//!
//! The query is not rounded; a row's coordinate c stands for `low + c / scale` in the units of the build codes (`crate::build_codes`). Sums are of
//! f32 in one fixed order of lanes, never fused, so every level gives the same bits.
#![allow(unsafe_code)] // calls of one safe body compiled for each level

use crate::{build_codes::BuildCodec, metric::Metric, simd::SimdLevel};

/// Sums that go on side by side.
const LANES: usize = 32;

/// A query that rows of one byte a coordinate are compared with; its memory is used again.
#[derive(Clone, Debug)]
pub struct Sq8Query {
    values: Vec<f32>,
    sum: fn(&[f32], &[u8]) -> f32,
    /// The distance is `offset + factor * sum`.
    offset: f32,
    factor: f32,
}

impl Default for Sq8Query {
    fn default() -> Sq8Query {
        Sq8Query { values: Vec::new(), sum: sum_any::<SQUARES>, offset: 0.0, factor: 1.0 }
    }
}

impl Sq8Query {
    /// Takes the row `query` `[dim]`, which must have passed [`BuildCodec::check_row`].
    pub fn fill(&mut self, codec: &BuildCodec, query: &[f32]) {
        self.fill_at(SimdLevel::detected(), codec, query);
    }

    fn fill_at(&mut self, level: SimdLevel, codec: &BuildCodec, query: &[f32]) {
        codec.pq_query(query, &mut self.values);
        self.values.truncate(query.len());
        let unit = codec.unit();
        let (sum, offset, factor) = match codec.metric() {
            Metric::InnerProduct => (at_level::<PRODUCTS>(level), -codec.low() * query.iter().sum::<f32>(), -unit),
            Metric::Manhattan => (at_level::<DIFFERENCES>(level), 0.0, unit),
            // Of two vectors of length 1.
            Metric::Cosine => (at_level::<SQUARES>(level), 0.0, unit * unit / 2.0),
            _ => (at_level::<SQUARES>(level), 0.0, unit * unit),
        };
        (self.sum, self.offset, self.factor) = (sum, offset, factor);
    }

    /// How far `row` `[dim]` is, in the terms of [`super::DistanceFn::distance`].
    #[inline]
    pub fn distance(&self, row: &[u8]) -> f32 {
        self.offset + self.factor * (self.sum)(&self.values, row)
    }
}

const SQUARES: u8 = 0;
const PRODUCTS: u8 = 1;
const DIFFERENCES: u8 = 2;

#[inline(always)]
fn sum_any<const TERM: u8>(query: &[f32], row: &[u8]) -> f32 {
    let term = |q: f32, c: u8| {
        let c = f32::from(c);
        match TERM {
            SQUARES => (q - c) * (q - c),
            PRODUCTS => q * c,
            _ => (q - c).abs(),
        }
    };
    let mut sums = [0f32; LANES];
    let (queries, query_rest) = query.as_chunks::<LANES>();
    let (rows, row_rest) = row.as_chunks::<LANES>();
    for (q, c) in queries.iter().zip(rows) {
        for ((sum, &q), &c) in sums.iter_mut().zip(q).zip(c) {
            *sum += term(q, c);
        }
    }
    for ((sum, &q), &c) in sums.iter_mut().zip(query_rest).zip(row_rest) {
        *sum += term(q, c);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
    }
    sums[0]
}

/// The same, compiled for a level that this processor has.
fn at_level<const TERM: u8>(level: SimdLevel) -> fn(&[f32], &[u8]) -> f32 {
    match level {
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx2 => |query, row| {
            #[target_feature(enable = "avx2")]
            fn inner<const TERM: u8>(query: &[f32], row: &[u8]) -> f32 {
                sum_any::<TERM>(query, row)
            }
            // SAFETY: levels come from `SimdLevel::detected` or `available`, and these two include AVX2.
            unsafe { inner::<TERM>(query, row) }
        },
        _ => sum_any::<TERM>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{distance::DistanceFn, element::ElementType, random::CounterRng};

    #[test]
    fn distances_are_those_of_the_decoded_rows_and_equal_at_every_level() {
        let rng = CounterRng::new(11);
        for dim in [1usize, 31, 32, 33, 100, 384] {
            let value = |i: u64| (rng.below(i, 2001) as f32 - 900.0) / 250.0;
            let sample: Vec<f32> = (0..(40 * dim) as u64).map(value).collect();
            for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::Manhattan] {
                let codec = BuildCodec::learn(ElementType::F32, metric, dim, &sample).unwrap();
                let exact = DistanceFn::new(metric, ElementType::F32, dim).unwrap();
                let query = &sample[..dim];
                for row in sample.chunks_exact(dim).skip(1) {
                    let (mut raw, mut code, mut decoded) = (Vec::new(), Vec::new(), vec![0.0; dim]);
                    ElementType::F32.encode(row, &mut raw).unwrap();
                    codec.encode(&raw, &mut Vec::new(), &mut code);
                    codec.decode(&code[..dim], &mut decoded);
                    let mut of_level = SimdLevel::available().into_iter().map(|level| {
                        let mut sq8 = Sq8Query::default();
                        sq8.fill_at(level, &codec, query);
                        sq8.distance(&code[..dim])
                    });
                    let got = of_level.next().unwrap();
                    assert!(of_level.all(|other| other.to_bits() == got.to_bits()));
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    ElementType::F32.encode(query, &mut a).unwrap();
                    ElementType::F32.encode(&decoded, &mut b).unwrap();
                    let want = exact.distance(&a, &b);
                    // Cosine of a decoded row whose length is not quite 1 differs by the square of that.
                    let slack = 2e-3 * want.abs().max(1.0) * if metric == Metric::Cosine { 5.0 } else { 1.0 };
                    assert!((got - want).abs() <= slack, "{metric} dim {dim}: {got}, {want}");
                }
            }
        }
    }
}
