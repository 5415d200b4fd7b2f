//! What product quantization costs: encoding rows in a build; filling the table of a query and summing codes in a search.
//!
//! Codes are those of the sample, repeated up to a million vectors: what a search pays for is that a neighbor's code is in no near
//! cache, not what stands in it.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roxanne_bench::inputs;
use roxanne_builder::codebook::{self, Sample};
use roxanne_core::{
    dataset::Dataset,
    element::ElementType,
    id::NodeId,
    metric::Metric,
    pq::{LookupKind, LookupScratch, LookupTable},
    random::CounterRng,
};
use std::{error::Error, time::Duration};

/// Vectors whose codes are scanned: 32 to 48 MB of codes.
const N: usize = 1_000_000;
/// Ids that one call asks for: the neighbors of one node.
const NEIGHBORS: usize = 48;
/// Such calls to time together, each with ids of its own.
const CALLS: usize = 64;

fn measure(c: &mut Criterion) -> Result<(), Box<dyn Error>> {
    for (name, dataset) in
        [("sift 128", Dataset::open(inputs::SIFT_SAMPLE)?), ("mixture 384", inputs::mixture(4000, 384, ElementType::U8)?)]
    {
        let (rows, codec) = inputs::build_codes(&dataset, Metric::L2, 1)?;
        let code_bytes = codebook::auto_pq_bytes(Metric::L2, dataset.dim());
        let (codebook, _) = Sample::of(&rows, &codec, 1).train(Metric::L2, code_bytes, 1)?;
        let mut codes = vec![0; rows.n() * code_bytes];
        let mut group = c.benchmark_group("pq");

        group.throughput(Throughput::Elements(rows.n() as u64));
        group.bench_function(format!("{name} encode {code_bytes} bytes"), |bench| {
            bench.iter(|| codebook.encode_rows(&rows.bytes, rows.stride, &mut codes));
        });

        let query: Vec<f32> = rows.row(0)[..codec.pq_dim()].iter().map(|&x| f32::from(x)).collect();
        let (mut table, mut scratch) = (LookupTable::new(), LookupScratch::default());
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name} fill"), |bench| {
            bench.iter(|| table.fill(&codebook, LookupKind::L2, &query, &mut scratch));
        });

        let codes: Vec<u8> = codes.iter().copied().cycle().take(N * code_bytes).collect();
        let rng = CounterRng::new(1);
        let ids: Vec<NodeId> = (0..(CALLS * NEIGHBORS) as u64).map(|i| NodeId(rng.below(i, N as u64) as u32)).collect();
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(ids.len() as u64));
        group.bench_function(format!("{name} distances"), |bench| {
            bench.iter(|| {
                ids.chunks(NEIGHBORS).fold(0u32, |sum, ids| {
                    table.distances(&codes, ids, &mut out);
                    sum.wrapping_add(out[0])
                })
            });
        });
        group.finish();
    }
    Ok(())
}

fn bench(c: &mut Criterion) {
    measure(c).expect("the sample can be encoded");
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    targets = bench
);
criterion_main!(benches);
