//! How fast a device does each stage, and whole builds, beside the floor of each: what `roxanne bench-gpu` prints.
//!
//! A *pair* is one row against one candidate. Stages run on vectors of the seeded mixture (`synth:`), cut by the real partition, since what
//! selection costs depends on the order in which distances come. Each figure is the best of a few runs; the floor says what the device
//! could do if the named resource were all that counted.

use crate::{
    BuildError, BuildParams, Builder, Device,
    backend::{Backend, BuildCodes, Groups},
    codebook::{self, Sample},
    graph_build::build_graph,
    input,
    partition::{self, TopLevel},
    progress::{Silent, Watch},
};
use roxanne_core::{build_codes::BuildCodec, dataset::Dataset, metric::Metric};
use std::{sync::atomic::AtomicBool, time::Instant};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was done: `leaf_knn`, `assign`, `prune`, `build_100M`.
    pub name: String,
    /// Coordinates of a vector; 0 where there is none.
    pub dim: usize,
    /// `leaf_k`, or the fanout; 0 where there is none.
    pub k: usize,
    /// How much of it a second.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// The most that the device could do of it, where that was measured.
    pub floor: Option<f64>,
}

/// What a device can do at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roofs {
    /// int8 multiply-adds a second.
    pub multiply_adds: Option<f64>,
    /// Bytes a second that its memory reads, while it writes as many.
    pub copy: Option<f64>,
    /// Bytes a second from the host, through pinned slots, as builds copy.
    pub upload: Option<f64>,
    /// Bytes a second to the host, likewise.
    pub download: Option<f64>,
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Vectors that stages run on.
    pub vectors: u64,
    /// Dimensions that `assign` and `leaf_knn` run on.
    pub dims: Vec<usize>,
    /// Vectors of each whole build.
    pub builds: Vec<u64>,
}

/// Each figure is the best of at least this many runs, and of as many as this time allows.
const RUNS: usize = 3;
const SECONDS: f64 = 0.5;
/// Neighbors of `leaf_knn`, and leaders of `assign`, on each dimension.
const LEAF_KS: [usize; 4] = [3, 5, 8, 10];
const FANOUTS: [usize; 3] = [1, 3, 10];
/// Dimension of the stages that are measured once.
const DIM: usize = 128;

impl Roofs {
    /// Rows of their own.
    pub fn rows(&self) -> Vec<Row> {
        let list = [
            ("int8_roof", self.multiply_adds, "multiply-adds/s"),
            ("device_copy", self.copy, "bytes/s"),
            ("upload_staged", self.upload, "bytes/s"),
            ("download_staged", self.download, "bytes/s"),
        ];
        let row =
            |(name, value, unit): (&str, Option<f64>, _)| Some(Row { name: name.into(), dim: 0, k: 0, value: value?, unit, floor: None });
        list.into_iter().filter_map(row).collect()
    }
}

/// Measures the stages on `backend`, and tells `each` row as it comes.
///
/// # Errors
/// What the backend says.
pub fn stages<B: Backend>(backend: &B, roofs: &Roofs, plan: &Plan, each: &mut dyn FnMut(Row)) -> Result<(), BuildError> {
    let mut dims = plan.dims.clone();
    if !dims.contains(&DIM) {
        dims.push(DIM);
    }
    for dim in dims {
        let (codes, codec) = vectors(plan.vectors, dim)?;
        let params = BuildParams { leaf_max: Some(256), ..BuildParams::default() };
        let graph = params.graph(dim)?;
        let TopLevel { codes, cut, .. } = partition::top_level(backend, codes, &graph.partition, params.seed, &|_| ())?;
        let rows = backend.load(&codes)?;
        // Rows a second times multiply-adds a row is what the roof counts.
        let pair_floor = roofs.multiply_adds.map(|roof| roof / codes.stride as f64);

        if plan.dims.contains(&dim) {
            let n = codes.n() as u64;
            let all = Groups { offsets: vec![0, n], members: backend.place((0..codes.n() as u32).collect())? };
            let places: Vec<u64> = (0..1000.min(n)).map(|i| i * n / 1000.min(n)).collect();
            let leaders = Groups { offsets: vec![0, places.len() as u64], members: backend.pick(&all.members, &places)? };
            for k in FANOUTS {
                let seconds = best(backend, || backend.assign(&rows, &all, &leaders, k))?;
                let value = n as f64 * places.len() as f64 / seconds;
                each(Row { name: "assign".into(), dim, k, value, unit: "pairs/s", floor: pair_floor });
            }
        }

        // As many leaves as have about as many members as there are vectors.
        let mut leaves: Vec<Groups<B::Ids>> = Vec::new();
        let batch = cut.open.batches((4 * plan.vectors).min(backend.batch_members(params.leaf_k))).into_iter().next();
        let mut collect = |some| {
            leaves.push(some);
            Ok(())
        };
        match batch {
            Some(batch) => {
                let part = cut.open.part(backend, batch)?;
                partition::cut_to_leaves(backend, &rows, part, 1, &graph.partition, &mut collect)?;
            }
            None => collect(cut.leaves)?,
        }
        let pairs: u64 = leaves.iter().flat_map(|l| (0..l.len()).map(|g| l.size(g) * (l.size(g) - 1))).sum();
        let members: u64 = leaves.iter().map(Groups::total).sum();
        if plan.dims.contains(&dim) {
            for k in LEAF_KS {
                let seconds = best(backend, || leaves.iter().map(|l| backend.leaf_knn(&rows, l, k)).collect::<Result<Vec<_>, _>>())?;
                each(Row { name: "leaf_knn".into(), dim, k, value: pairs as f64 / seconds, unit: "pairs/s", floor: pair_floor });
            }
        }
        if dim != DIM {
            continue;
        }

        let k = params.leaf_k;
        let mut reservoirs = backend.reservoirs(codes.n(), params.reservoir)?;
        let lists = leaves.iter().map(|l| backend.leaf_knn(&rows, l, k)).collect::<Result<Vec<_>, _>>()?;
        backend.wait()?;
        let start = Instant::now();
        for (leaves, lists) in leaves.iter().zip(&lists) {
            backend.merge(leaves, lists, k, &mut reservoirs)?;
        }
        backend.wait()?;
        // An entry is read, written twice on its way to its row, and read again there.
        let value = (members * k as u64) as f64 / start.elapsed().as_secs_f64();
        each(Row { name: "merge".into(), dim, k, value, unit: "entries/s", floor: roofs.copy.map(|copy| copy / (2.0 * 16.0)) });

        let seconds = best(backend, || backend.prune(&rows, &reservoirs, &graph.prune, &|_| ()))?;
        let gathered = (params.reservoir * codes.stride) as f64;
        let value = codes.n() as f64 / seconds;
        // Twice the copy's rate: nothing is written.
        let floor = roofs.copy.map(|copy| 2.0 * copy / gathered);
        each(Row { name: "prune".into(), dim, k: params.max_degree, value, unit: "rows/s", floor });

        let bytes = codebook::auto_pq_bytes(Metric::L2, dim);
        let (codebook, _) = Sample::of(&codes, &codec, params.seed).train(Metric::L2, bytes, params.seed)?;
        let seconds = best(backend, || backend.encode(&rows, &codec, &codebook, 0..codes.n()))?;
        // Every coordinate against 256 centroids, at the rate of int8, which 16-bit products do not reach.
        let floor = roofs.multiply_adds.map(|roof| roof / (256 * dim) as f64);
        each(Row { name: "encode".into(), dim, k: bytes, value: codes.n() as f64 / seconds, unit: "vectors/s", floor });
    }
    Ok(())
}

/// Builds whole indexes of `synth:` vectors on `device`, every page included, and keeps none of them.
///
/// # Errors
/// What a build says.
pub fn builds(device: &Device, roofs: &Roofs, plan: &Plan, each: &mut dyn FnMut(Row)) -> Result<(), BuildError> {
    for &n in &plan.builds {
        let (dim, size) = (dim_of_build(n), size_name(n));
        let params = BuildParams::default();
        let report = Builder::new(Metric::L2).params(params.clone()).device(device.clone()).input(&source(n, dim))?.rehearse(None)?;
        // Rows go up three times (cells, graph, codes), the graph and the codes come down.
        let floor = roofs.upload.zip(roofs.download).map(|(up, down)| {
            let (rows, back) = (3 * dim.next_multiple_of(32), 4 * (params.max_degree + 1) + report.code_bytes);
            1.0 / (rows as f64 / up + back as f64 / down)
        });
        let row =
            |name: String, seconds: f64, floor| Row { name, dim, k: params.leaf_k, value: n as f64 / seconds, unit: "vectors/s", floor };
        each(row(format!("build_{size}"), report.seconds, floor));
        let work = &report.work;
        let stages = work.assign_seconds + work.leaf_seconds + work.merge_seconds + work.prune_seconds;
        // With what the host does inside of them: no time of the device alone.
        each(row(format!("build_{size}_stages"), stages, None));
        for phase in report.phases.iter().filter(|phase| phase.seconds > 0.01 * report.seconds) {
            each(row(format!("build_{size}_phase_{}", phase.name.replace(' ', "_")), phase.seconds, None));
        }
    }
    Ok(())
}

/// The graph and the codes of `n` generated vectors, made and dropped: all that a build asks of a device but for the navigation graph, of a
/// hundredth of them.
///
/// # Errors
/// What a build says.
pub fn one_build<B: Backend>(backend: &B, n: u64) -> Result<(), BuildError> {
    let dim = dim_of_build(n);
    let ((codes, codec), params, stop) = (vectors(n, dim)?, BuildParams::default(), AtomicBool::new(false));
    let built = build_graph(codes, &params.graph(dim)?, backend, &Watch::new(&Silent, &stop))?;
    let code_bytes = codebook::auto_pq_bytes(Metric::L2, dim);
    let (codebook, _) = Sample::of(&built.codes, &codec, params.seed).train(Metric::L2, code_bytes, params.seed)?;
    let rows = backend.load(&built.codes)?;
    backend.encode(&rows, &codec, &codebook, 0..built.codes.n())?;
    Ok(())
}

/// Coordinates of a whole build's vectors: the large ones are of the length that the largest public sets have.
pub(crate) fn dim_of_build(n: u64) -> usize {
    if n <= 1_000_000 { 128 } else { 96 }
}

/// How rows call so many vectors.
pub(crate) fn size_name(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{}k", n / 1_000),
        _ => format!("{}M", n / 1_000_000),
    }
}

fn source(n: u64, dim: usize) -> String {
    format!("synth:n={n},dim={dim},type=u8,seed=1")
}

fn vectors(n: u64, dim: usize) -> Result<(BuildCodes, BuildCodec), BuildError> {
    let dataset = Dataset::open(&source(n, dim))?;
    let codec = input::learn_codec(&dataset, Metric::L2, 1)?;
    let (codes, _) = input::encode_all(&dataset, &codec, &Watch::new(&Silent, &AtomicBool::new(false)), Metric::L2)?;
    Ok((codes, codec))
}

/// Seconds of the fastest run.
fn best<B: Backend, T>(backend: &B, run: impl Fn() -> Result<T, crate::backend::BackendError>) -> Result<f64, BuildError> {
    let (mut best, begun, mut runs) = (f64::INFINITY, Instant::now(), 0);
    while runs < RUNS || begun.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        let result = run()?;
        backend.wait()?;
        best = best.min(start.elapsed().as_secs_f64());
        drop(result);
        runs += 1;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn one_build_goes_through_every_stage() {
        one_build(&Cpu::default(), 400).unwrap();
    }
}
