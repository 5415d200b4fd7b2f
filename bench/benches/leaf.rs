//! All pairs of one leaf and the nearest `leaf_k` of each row: where a build spends most of its time. The rate is pairs a second on one
//! core, n * (n - 1) pairs a leaf of n, as `roxanne build` counts them.
//!
//! 143 rows is the mean leaf of a build, 256 the largest.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roxanne_bench::inputs;
use roxanne_builder::backend::BuildCodes;
use roxanne_core::{
    dataset::Dataset,
    element::ElementType,
    metric::Metric,
    simd::SimdLevel,
    tile::{Rows, Tile, TopLists},
};
use std::{error::Error, time::Duration};

/// A leaf as a build makes it: the `n` rows nearest to one, in order of their ids.
fn leaf(dim: usize, n: usize) -> Result<BuildCodes, Box<dyn Error>> {
    let dataset = match dim {
        128 => Dataset::open(inputs::SIFT_SAMPLE)?,
        _ => inputs::mixture(4000, dim, ElementType::U8)?,
    };
    let (codes, _) = inputs::build_codes(&dataset, Metric::L2, 1)?;
    let mut order: Vec<u32> = (0..codes.n() as u32).collect();
    order.sort_by_key(|&id| codes.metric.distance(codes.row(0), codes.row(id)));
    order.truncate(n);
    order.sort_unstable();
    let bytes = order.iter().flat_map(|&id| codes.row(id)).copied().collect();
    Ok(BuildCodes { bytes, ..codes })
}

fn nearest_within(c: &mut Criterion, name: String, codes: &BuildCodes, level: SimdLevel, leaf_k: usize) {
    let tile = Tile::at_level(level, codes.metric, codes.stride);
    let (mut rows, mut lists) = (Rows::default(), TopLists::default());
    let mut group = c.benchmark_group("leaf");
    group.throughput(Throughput::Elements(codes.n() as u64 * (codes.n() as u64 - 1)));
    group.bench_function(name, |bench| {
        bench.iter(|| {
            // Packing the rows is part of the work: a leaf is loaded once and compared once.
            tile.load((0..codes.n() as u32).map(|id| codes.row(id)), &mut rows);
            tile.nearest_within(&rows, leaf_k, &mut lists);
            lists.list(0)[0]
        });
    });
    group.finish();
}

fn measure(c: &mut Criterion) -> Result<(), Box<dyn Error>> {
    for dim in [96, 128, 384, 768] {
        for n in [143, 256] {
            let codes = leaf(dim, n)?;
            for leaf_k in [3, 5, 8, 10] {
                nearest_within(c, format!("dim {dim} rows {n} k {leaf_k}"), &codes, SimdLevel::detected(), leaf_k);
            }
        }
    }
    let codes = leaf(128, 143)?;
    for level in SimdLevel::available() {
        nearest_within(c, format!("dim 128 rows 143 k 5 {level}"), &codes, level, 5);
    }
    Ok(())
}

fn bench(c: &mut Criterion) {
    measure(c).expect("the sample can be read");
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = bench
);
criterion_main!(benches);
