//! Vectors in, one index generation out.
//!
//! ```no_run
//! use roxanne_builder::Builder;
//! use roxanne_core::metric::Metric;
//! let report = Builder::new(Metric::L2).input("base.fbin")?.build("my.rx")?;
//! println!("{} vectors in {:.1} s", report.n, report.seconds);
//! # Ok::<(), roxanne_builder::BuildError>(())
//! ```
//! The flow: rows are read once and become bytes ([`input`]); overlapping clusters, all pairs in each leaf, reservoirs, prune, fix-up
//! ([`graph_build`]) on a [`backend`]; codebook and codes ([`codebook`]); the order on disk ([`shuffle`]); files ([`emit`]). Same input,
//! parameters and seed: the same bytes, on any number of threads and at every SIMD level.

pub mod backend;
pub mod codebook;
pub mod device;
pub mod emit;
mod error;
pub mod fixup;
pub mod foreign;
pub mod graph_build;
pub mod input;
pub mod measure;
mod output;
mod params;
pub mod partition;
pub mod plan;
pub mod progress;
pub mod reservoir;
pub mod scale;
mod sharded;
pub mod shuffle;
mod steps;
pub mod vamana;

pub use device::Device;
pub use error::BuildError;
pub use params::BuildParams;
pub use plan::Plan;
pub use progress::{Observer, Phase, Silent};
pub use roxanne_core::Budget;
pub use sharded::Traffic;

use backend::{Backend, BackendError, BuildCodes, cpu::Cpu};
use codebook::Sample;
use foreign::{Foreign, Links, System};
use graph_build::{BuiltGraph, GraphParams, StageWork, build_graph};
use progress::Watch;
use rayon::prelude::*;
use roxanne_core::{
    dataset::Dataset,
    element::ElementType,
    format::{
        self,
        keys::KeyList,
        manifest::{self, Manifest},
        nav::Nav,
        record::Stored,
    },
    huge,
    id::{MAX_NODES, NodeId},
    metric::Metric,
    prune::PruneParams,
    random::CounterRng,
    simd::SimdLevel,
};
use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};
use steps::Job;
use xxhash_rust::xxh3::xxh3_64;

/// What a build did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Vectors.
    pub n: u64,
    /// Coordinates.
    pub dim: usize,
    /// Wall time.
    pub seconds: f64,
    /// Where it went.
    pub phases: Vec<Phase>,
    /// Pairs and seconds of the graph's stages.
    pub work: StageWork,
    /// Most memory the process ever had (the kernel's own high-water mark).
    pub peak_rss_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes of a PQ code.
    pub code_bytes: usize,
    /// Whether codes are of rotated vectors (OPQ).
    pub rotated: bool,
    /// Recall@10 by code alone on held-out vectors; `None` where there were too few to hold any out.
    pub pq_quality: Option<f64>,
    /// The index was there already, complete and of the same parameters and input; nothing was done.
    pub already_complete: bool,
    /// What computed it.
    pub backend: String,
    /// Shards it was built in.
    pub shards: usize,
    /// Vectors that shards borrowed from each other, counted once for each.
    pub ghosts: u64,
    /// What a build in shards moved to and from the disk; nothing where all fits memory.
    pub traffic: Traffic,
}

impl Report {
    /// Before any work.
    fn of(plan: &Plan) -> Report {
        Report {
            n: plan.n,
            dim: plan.dim,
            seconds: 0.0,
            phases: Vec::new(),
            work: StageWork::default(),
            peak_rss_bytes: 0,
            index_bytes: 0,
            code_bytes: plan.code_bytes,
            rotated: false,
            pq_quality: None,
            already_complete: false,
            backend: String::new(),
            shards: plan.shards,
            ghosts: 0,
            traffic: Traffic::default(),
        }
    }

    /// After all of it.
    fn finished(mut self, phases: Vec<Phase>, index_bytes: u64, start: Instant) -> Report {
        // A phase that every shard has is told once.
        for phase in phases {
            match self.phases.iter_mut().find(|known| known.name == phase.name) {
                Some(known) => {
                    known.seconds += phase.seconds;
                    known.units += phase.units;
                }
                None => self.phases.push(phase),
            }
        }
        self.index_bytes = index_bytes;
        self.seconds = start.elapsed().as_secs_f64();
        self.peak_rss_bytes = peak_rss_bytes();
        self
    }
}

/// Looks at a complete index before it is published; says why not to.
pub type Judge = dyn Fn(&Path) -> Result<(), String> + Send + Sync;

/// A build, described step by step and then run.
pub struct Builder {
    metric: Metric,
    params: BuildParams,
    budget: Budget,
    threads: usize,
    level: SimdLevel,
    device: Device,
    shards: Option<usize>,
    fresh: bool,
    observer: Arc<dyn Observer>,
    stop: Arc<AtomicBool>,
    keys: Option<KeyList>,
    dataset: Option<Dataset>,
    /// Whose graph is taken, in the place of one that is made.
    links: Option<(System, Links)>,
    judge: Option<Box<Judge>>,
}

impl Builder {
    /// A build under `metric` with default parameters, no limits, all threads.
    pub fn new(metric: Metric) -> Builder {
        Builder {
            metric,
            params: BuildParams::default(),
            budget: Budget::default(),
            threads: 0,
            level: SimdLevel::detected(),
            device: Device::default(),
            shards: None,
            fresh: false,
            observer: Arc::new(Silent),
            stop: Arc::default(),
            keys: None,
            dataset: None,
            links: None,
            judge: None,
        }
    }

    /// Parameters of the index.
    pub fn params(self, params: BuildParams) -> Builder {
        Builder { params, ..self }
    }

    /// Limits: planned for, refused when too small, never exceeded.
    pub fn budget(self, budget: Budget) -> Builder {
        Builder { budget, ..self }
    }

    /// Threads; 0 is one a core.
    pub fn threads(self, threads: usize) -> Builder {
        Builder { threads, ..self }
    }

    /// SIMD level of the kernels, one that this processor has; all give the same index.
    pub fn simd(self, level: SimdLevel) -> Builder {
        Builder { level, ..self }
    }

    /// Where to compute; all devices give the same index.
    pub fn device(self, device: Device) -> Builder {
        Builder { device, ..self }
    }

    /// So many shards (1 to 4,096) instead of as few as memory allows. More than one are built one after the other, on disk; the number is
    /// part of what the index is.
    pub fn shards(self, shards: usize) -> Builder {
        Builder { shards: Some(shards), ..self }
    }

    /// Starts over where a build of shards was stopped, instead of going on.
    pub fn fresh(self) -> Builder {
        Builder { fresh: true, ..self }
    }

    /// Hears of progress.
    pub fn observer(self, observer: Arc<dyn Observer>) -> Builder {
        Builder { observer, ..self }
    }

    /// Setting it to true stops the build at its next step; nothing is left behind but the checkpoint of a build in shards.
    pub fn stop(self, stop: Arc<AtomicBool>) -> Builder {
        Builder { stop, ..self }
    }

    /// Shows the complete index, in its temporary directory, to `judge`: what is refused is not published, and nothing of it is left.
    pub fn judge(self, judge: Box<Judge>) -> Builder {
        Builder { judge: Some(judge), ..self }
    }

    /// The users' own keys, one a row; without them keys are row numbers.
    pub fn keys(self, keys: KeyList) -> Builder {
        Builder { keys: Some(keys), ..self }
    }

    /// The vectors: a file, or `synth:…`. Under Hamming u8 rows are packed bits.
    ///
    /// # Errors
    /// Absent, malformed, of an unknown format.
    pub fn input(self, source: &str) -> Result<Builder, BuildError> {
        let dataset = Dataset::open(source)?;
        Ok(self.dataset(dataset))
    }

    /// The vectors, opened.
    pub fn dataset(self, dataset: Dataset) -> Builder {
        Builder { dataset: Some(dataset), links: None, ..self }
    }

    /// Vectors, keys and graph of another system's index: its edges are pruned to ours and repaired, which takes a part of the time that it takes to find them. All is
    /// done in memory, in one shard, the graph on the CPU.
    pub fn foreign(self, foreign: Foreign) -> Builder {
        let Foreign { system, dataset, keys, links, .. } = foreign;
        Builder { dataset: Some(dataset), keys: Some(keys), links: Some((system, links)), ..self }
    }

    /// The dataset as the metric sees it.
    fn prepare(&mut self) -> Result<&Dataset, BuildError> {
        let dataset = self.dataset.take().ok_or(BuildError::NoInput)?;
        let packed = self.metric == Metric::Hamming && dataset.element() == ElementType::U8;
        let dataset = if packed { dataset.into_binary()? } else { dataset };
        if dataset.n() == 0 || dataset.n() > MAX_NODES {
            return Err(BuildError::Count { source_name: dataset.source().to_string(), n: dataset.n() });
        }
        if let Some(keys) = &self.keys {
            keys.check(dataset.n())?;
        }
        Ok(self.dataset.insert(dataset))
    }

    /// The keys, given or not.
    fn keys_of(&self, dataset: &Dataset) -> Cow<'_, KeyList> {
        self.keys.as_ref().map_or_else(|| Cow::Owned(KeyList::Rows(dataset.n())), Cow::Borrowed)
    }

    /// The bill, without doing any work.
    ///
    /// # Errors
    /// No input, or a shape or parameter that no build can have. Budgets are not checked: see [`Plan::check`].
    pub fn plan(&mut self) -> Result<Plan, BuildError> {
        self.prepare()?;
        let dataset = self.dataset.as_ref().ok_or(BuildError::NoInput)?;
        self.params.graph(dataset.dim())?;
        let shards = if self.links.is_some() { Some(1) } else { self.shards };
        let mut plan = plan::plan(dataset, self.metric, &self.params, &self.keys_of(dataset), shards, &self.budget)?;
        // The edges, there and back.
        let links = 2 * self.links.as_ref().map_or(0, |(_, links)| links.bytes());
        plan.peak_ram_bytes += links;
        plan.on_device.peak_ram_bytes += links;
        Ok(plan)
    }

    /// How the index is built, as the manifest tells it. Equal lines mean an equal index.
    fn manifest_params(&self, plan: &Plan) -> Result<Vec<(String, String)>, BuildError> {
        let keys = self.keys.as_ref().map_or_else(|| "rows".to_string(), |keys| format!("{:016x}", keys.fingerprint()));
        let p = &self.params;
        let lines = [
            ("shape", format!("{} x {} {} {}", plan.n, plan.dim, plan.element, plan.metric)),
            ("degree", p.max_degree.to_string()),
            ("alpha", p.alpha.to_string()),
            ("leaf-k", p.leaf_k.to_string()),
            ("leaf-max", p.graph(plan.dim)?.partition.leaf_max.to_string()),
            ("reservoir", p.reservoir.to_string()),
            ("pq-bytes", plan.code_bytes.to_string()),
            ("seed", p.seed.to_string()),
            ("shards", plan.shards.to_string()),
            ("inbox", if plan.shards > 1 { p.inbox } else { 0 }.to_string()),
            ("keys", keys),
        ];
        // Named where it is not what indexes were before it was known.
        let stored = (p.stored != Stored::Full).then(|| (manifest::STORED, p.stored.to_string()));
        let graph = self.links.as_ref().map(|(system, links)| (output::GRAPH, format!("{system} {:016x}", links.fingerprint())));
        let capacity = (p.capacity > 0).then(|| (manifest::CAPACITY, p.capacity.to_string()));
        Ok(lines.into_iter().chain(stored).chain(capacity).chain(graph).map(|(name, value)| (name.to_string(), value)).collect())
    }

    /// All files but the manifest, which is returned when they are whole; on the device that was asked for.
    fn compute(&self, job: &Job<'_>, report: &mut Report) -> Result<Option<Manifest>, BuildError> {
        let cpu = |report: &mut Report| self.make(job, &Cpu::at_level(self.level), report);
        match &self.device {
            Device::Cpu => cpu(report),
            Device::Auto => {
                let outcome = self.open_cuda(0, job.plan).and_then(|cuda| self.make(job, &cuda, report));
                match outcome {
                    // No file is begun before the last word of the device.
                    Err(BuildError::Backend(error)) => {
                        let made = cpu(report)?;
                        // A machine without a GPU is nothing to tell of; one whose GPU failed is.
                        if !matches!(error, BackendError::Unavailable { .. }) {
                            report.backend = format!("{} after {error}", report.backend);
                        }
                        Ok(made)
                    }
                    Err(BuildError::Budget { .. }) => cpu(report),
                    outcome => outcome,
                }
            }
            Device::Cuda(index) => self.make(job, &self.open_cuda(*index, job.plan)?, report),
            Device::Wgpu(which) => self.make(job, &self.open_wgpu(which.as_deref())?, report),
        }
    }

    /// A CUDA device with memory for this build.
    #[cfg(feature = "cuda")]
    fn open_cuda(&self, index: usize, plan: &Plan) -> Result<backend::cuda::Cuda, BuildError> {
        use backend::cuda::{Cuda, driver::Driver, nvidia::Nvidia};
        let driver = Nvidia::open(index).map_err(|e| device::unavailable(&Device::Cuda(index), e))?;
        // What the driver itself and others on the device may yet take.
        let allowed = self.budget.vram.min(driver.facts().free_bytes.saturating_sub(512 << 20));
        let needed = plan.on_device.least_bytes;
        if needed > allowed {
            return Err(BuildError::Budget { what: "device memory", needed, allowed });
        }
        let bytes = plan.on_device.best_bytes.min(allowed);
        let cuda = Cuda::new(Arc::new(driver), bytes)?;
        self.observer.device_bytes(bytes);
        Ok(cuda)
    }

    #[cfg(not(feature = "cuda"))]
    fn open_cuda(&self, index: usize, _: &Plan) -> Result<Cpu, BuildError> {
        Err(device::unavailable(&Device::Cuda(index), device::WITHOUT).into())
    }

    /// A wgpu adapter, with the CPU to fall to.
    #[cfg(feature = "wgpu")]
    fn open_wgpu(&self, which: Option<&str>) -> Result<backend::wgpu::Wgpu, BuildError> {
        Ok(backend::wgpu::Wgpu::open(which, Cpu::at_level(self.level))?)
    }

    #[cfg(not(feature = "wgpu"))]
    fn open_wgpu(&self, which: Option<&str>) -> Result<Cpu, BuildError> {
        Err(device::unavailable(&Device::Wgpu(which.map(String::from)), device::WITHOUT).into())
    }

    fn make<B: Backend>(&self, job: &Job<'_>, backend: &B, report: &mut Report) -> Result<Option<Manifest>, BuildError> {
        if job.plan.shards > 1 {
            return sharded::make(self, job, backend, report);
        }
        let Job { dataset, plan, watch, directory, .. } = *job;
        let mut params = job.params.clone();
        let graph_params = self.params.graph(plan.dim)?;
        let keys = &*self.keys_of(dataset);
        let codec = input::learn_codec(dataset, self.metric, self.params.seed)?;
        let (codes, content) = input::encode_all(dataset, &codec, watch, self.metric)?;
        let sample = Sample::of(&codes, &codec, self.params.seed);
        let train = || sample.train(self.metric, plan.code_bytes, self.params.seed);
        let build = || match &self.links {
            Some((_, links)) => foreign::adopt(codes, links, &graph_params, &Cpu::at_level(self.level), watch),
            None => build_graph(codes, &graph_params, backend, watch),
        };
        let ((built, built_at), trained) = if backend.leaves_the_host_free() {
            rayon::join(|| (build(), Instant::now()), train)
        } else {
            watch.phase("codebook", 1, "codebook");
            let (begun, trained) = (Instant::now(), train());
            let waited = begun.elapsed();
            watch.advance(1)?;
            ((build(), Instant::now() - waited), trained)
        };
        let train_seconds = built_at.elapsed().as_secs_f64();
        let (BuiltGraph { codes, order: row_of, graph, entry, work }, (codebook, training)) = (built?, trained?);
        report.work = StageWork { train_seconds, ..work };
        report.rotated = codebook.is_rotated();
        report.pq_quality = training.candidates.iter().find(|c| c.turn == training.chosen).and_then(|c| c.quality);

        let n = codes.n();
        let layout = self.params.layout(plan.element, plan.dim, plan.n)?;
        let records_are_codes = self.params.records_are_codes(&codec);
        watch.phase("order and codes", 2 * n as u64, "rows");
        let (order, pq) = rayon::join(
            || shuffle::page_order(&graph, layout.per_page, watch),
            || -> Result<Vec<u8>, BuildError> {
                let mut pq = huge::zeroed(n * plan.code_bytes);
                let rows = backend.load(&codes)?;
                for (first, codes) in (0..n).step_by(ENCODE_AT_ONCE).zip(pq.chunks_mut(ENCODE_AT_ONCE * plan.code_bytes)) {
                    let range = first..n.min(first + ENCODE_AT_ONCE);
                    watch.advance(range.len() as u64)?;
                    codes.copy_from_slice(&backend.encode(&rows, &codec, &codebook, range)?);
                }
                Ok(pq)
            },
        );
        let (order, pq) = (order?, pq?);
        let new_of = scattered(&order, |new| NodeId(new as u32));
        let new_of_row = scattered(&row_of, |node| new_of[node]);

        let nav_rows = CounterRng::new(graph_params.seed).part(0x7A51).sample(n as u64, nav_params(n as u64).0);
        let bytes = nav_rows.iter().flat_map(|&node| codes.row(node as u32)).copied().collect();
        let nav = build_nav(BuildCodes { bytes, metric: codes.metric, stride: codes.stride }, &nav_rows, &graph_params, backend, watch)?;
        // After the last stage: what was lost on the way is in the name.
        report.backend = backend.name();

        params.push((output::INPUT.to_string(), input_text(content.hash)));
        params.push(("rotated".to_string(), codebook.is_rotated().to_string()));
        let generation = generation_of(&params);
        let file = emit::GraphFile {
            dataset,
            codes: &codes,
            records_are_codes,
            graph: &graph,
            order: &order,
            new_of: &new_of,
            row_of: &row_of,
            entry,
            keys,
            layout,
            content,
        };
        let mut files = vec![file.write(directory, generation, watch)?];
        watch.phase("codes and keys", n as u64, "rows");
        files.push(emit::write_blob(directory, generation, format::CODES_FILE, |blob| {
            let mut part = Vec::new();
            // A stop is heard when all is written.
            order.chunks(GATHER_AT_ONCE).try_for_each(|nodes| {
                part.resize(nodes.len() * plan.code_bytes, 0);
                let codes = part.par_chunks_exact_mut(plan.code_bytes).zip(nodes);
                codes.for_each(|(code, node)| code.copy_from_slice(&pq[node.index() * plan.code_bytes..][..plan.code_bytes]));
                watch.heard(nodes.len() as u64);
                blob.write(&part)
            })
        })?);
        files.push(emit::write_blob(directory, generation, format::CODEBOOK_FILE, |blob| {
            blob.write(&codec.to_bytes())?;
            blob.write(&codebook.to_bytes())
        })?);
        let nav = emit::renumber_nav(nav, &new_of);
        files.push(emit::write_blob(directory, generation, format::NAV_FILE, |blob| blob.write(&nav.to_bytes()))?);
        files.push(emit::write_blob(directory, generation, format::KEYS_FILE, |blob| keys.write(blob, |row| new_of_row[row]))?);
        watch.advance(0)?;
        Ok(Some(Manifest { generation, n: plan.n, dim: plan.dim, element: plan.element, metric: plan.metric, params, files }))
    }
}

/// `value(i)` at the place `places[i]`; `places` is a permutation.
fn scattered(places: &[NodeId], value: impl Fn(usize) -> NodeId + Sync) -> Vec<NodeId> {
    let values: Vec<AtomicU32> = huge::zeroed(places.len());
    places.par_iter().enumerate().for_each(|(i, place)| values[place.index()].store(value(i).0, Relaxed));
    let mut scattered: Vec<NodeId> = huge::zeroed(places.len());
    scattered.par_iter_mut().zip(values).for_each(|(place, value)| *place = NodeId(value.into_inner()));
    scattered
}

/// Rows that are encoded between two looks at the progress.
const ENCODE_AT_ONCE: usize = 1 << 19;
/// Codes that are put in order between two writes.
const GATHER_AT_ONCE: usize = 1 << 20;

/// The number of the generation that these parameters, the input's hash among them, make.
fn generation_of(params: &[(String, String)]) -> u64 {
    let text: String = params.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    xxh3_64(format!("{} {text}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// The input's hash as the manifest tells it.
fn input_text(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Degree of the navigation graph.
const NAV_DEGREE: usize = 32;

/// Nodes and degree of the navigation graph over `n` vectors: 1%, of degree 32.
pub(crate) fn nav_params(n: u64) -> (u64, usize) {
    ((n / 100).max(n.min(256)), NAV_DEGREE)
}

/// The navigation graph over `sample`, the codes of the nodes (or rows) `ids`.
fn build_nav<B: Backend>(sample: BuildCodes, ids: &[u64], params: &GraphParams, backend: &B, watch: &Watch<'_>) -> Result<Nav, BuildError> {
    let count = ids.len() as u64;
    // Four phases of a graph, each worth its rows once.
    watch.phase("navigation", 4 * count, "rows");
    let share = watch.share(count);
    let params = GraphParams { prune: PruneParams { max_degree: NAV_DEGREE, ..params.prune }, ..params.clone() };
    let built = build_graph(sample, &params, backend, &watch.inside(&share))?;
    Ok(Nav { ids: built.order.iter().map(|place| NodeId(ids[place.index()] as u32)).collect(), graph: built.graph, entry: built.entry })
}

/// The process's high-water mark of resident memory; 0 where the kernel does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|kb| kb.trim().parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}
