//! One exact distance between two rows that lie in the first caches: every level and element type, dimensions 128 and 384.
//!
//! A call goes over 256 pairs of rows, so that the rows come from the second cache at the worst, as those of a page do.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roxanne_bench::inputs;
use roxanne_core::{distance::DistanceFn, element::ElementType, metric::Metric, simd::SimdLevel};
use std::{error::Error, hint::black_box, time::Duration};

const PAIRS: usize = 256;

/// Every element type under its usual metric, and the metrics that have a loop of their own.
const KINDS: [(Metric, ElementType); 8] = [
    (Metric::L2, ElementType::F32),
    (Metric::L2, ElementType::F16),
    (Metric::L2, ElementType::Bf16),
    (Metric::L2, ElementType::U8),
    (Metric::L2, ElementType::I8),
    (Metric::Hamming, ElementType::Binary),
    (Metric::Cosine, ElementType::F32),
    (Metric::InnerProduct, ElementType::F32),
];

fn measure(c: &mut Criterion) -> Result<(), Box<dyn Error>> {
    for dim in [128, 384] {
        let mut group = c.benchmark_group(format!("distance/{dim}"));
        group.throughput(Throughput::Elements(PAIRS as u64));
        for (metric, element) in KINDS {
            let dataset = inputs::mixture(2 * PAIRS as u64, dim, element)?;
            let rows = inputs::raw_rows(&dataset)?;
            let (a, b) = rows.split_at(rows.len() / 2);
            for level in SimdLevel::available() {
                let distance = DistanceFn::at_level(level, metric, element, dim)?;
                group.bench_function(format!("{metric} {element} {level}"), |bench| {
                    let pairs = || a.chunks_exact(dataset.row_bytes()).zip(b.chunks_exact(dataset.row_bytes()));
                    bench.iter(|| pairs().map(|(a, b)| distance.distance(black_box(a), b)).sum::<f32>());
                });
            }
        }
    }
    Ok(())
}

fn bench(c: &mut Criterion) {
    measure(c).expect("generated rows have distances");
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    targets = bench
);
criterion_main!(benches);
