//! RobustPrune of whole reservoirs by the CPU backend, on one thread: rows a second. Beside it `core::prune::robust_prune`, which is the
//! textbook that the backend's must equal, so that the gain of the dense form stays visible.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roxanne_bench::inputs;
use roxanne_builder::{
    BuildParams,
    backend::{Backend, BuildCodes, Groups, cpu::Cpu},
    partition::{cut_to_leaves, top_level},
    reservoir::Reservoirs,
};
use roxanne_core::{
    dataset::Dataset,
    element::ElementType,
    id::NodeId,
    metric::Metric,
    neighbor::Neighbor,
    prune::{PruneParams, robust_prune},
    tile::{entry_distance, entry_row},
};
use std::{error::Error, time::Duration};

/// Partition, all pairs and merge, as a build does them: rows in cell order, and the reservoirs before the prune.
fn reservoirs(codes: BuildCodes, params: &BuildParams) -> Result<(BuildCodes, Reservoirs), Box<dyn Error>> {
    let (cpu, graph) = (Cpu::default(), params.graph(codes.stride)?);
    let top = top_level(&cpu, codes, &graph.partition, params.seed, &|_| ())?;
    let mut reservoirs = Reservoirs::new(top.codes.n(), params.reservoir);
    let mut join = |leaves: Groups| {
        let lists = cpu.leaf_knn(&&top.codes, &leaves, params.leaf_k)?;
        cpu.merge(&leaves, &lists, params.leaf_k, &mut reservoirs)
    };
    join(top.cut.leaves)?;
    cut_to_leaves(&cpu, &&top.codes, top.cut.open, 1, &graph.partition, &mut join)?;
    Ok((top.codes, reservoirs))
}

fn textbook(codes: &BuildCodes, reservoirs: &Reservoirs, params: &PruneParams) -> usize {
    let (mut sorted, mut candidates, mut kept, mut edges) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for row in 0..codes.n() {
        reservoirs.sorted(row, &mut sorted);
        candidates.clear();
        candidates.extend(sorted.iter().map(|&e| Neighbor { distance: entry_distance(e), id: NodeId(entry_row(e)) }));
        let distance = |a: NodeId, b: NodeId| codes.metric.distance(codes.row(a.0), codes.row(b.0));
        robust_prune(NodeId(row as u32), &mut candidates, params, distance, &mut kept);
        edges += kept.len();
    }
    edges
}

fn measure(c: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let params = BuildParams::default();
    let prune = params.graph(128)?.prune;
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for (name, dataset) in
        [("sift 128", Dataset::open(inputs::SIFT_SAMPLE)?), ("mixture 384", inputs::mixture(4000, 384, ElementType::U8)?)]
    {
        let (codes, _) = inputs::build_codes(&dataset, Metric::L2, params.seed)?;
        let (codes, reservoirs) = reservoirs(codes, &params)?;
        let mut group = c.benchmark_group("prune");
        group.throughput(Throughput::Elements(codes.n() as u64));
        group.bench_function(format!("{name} cpu"), |bench| {
            bench.iter(|| {
                one_thread.install(|| Cpu::default().prune(&&codes, &reservoirs, &prune, &|_| ())).map(|graph| graph.edge_count())
            });
        });
        group.bench_function(format!("{name} textbook"), |bench| bench.iter(|| textbook(&codes, &reservoirs, &prune)));
        group.finish();
    }
    Ok(())
}

fn bench(c: &mut Criterion) {
    measure(c).expect("the sample can be built");
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    targets = bench
);
criterion_main!(benches);
