//! DiskANN's disk index (crates `diskann` and `diskann-disk`): build time and size; recall, rate, latency and reads of its searches.
//!
//! Set up as its own benchmark sets it up: R and L as given, all else at its defaults, graph built on full precision in one piece, no
//! static cache of nodes, O_DIRECT through io_uring, one query a thread. Rows under cosine are brought to length 1 and compared by L2,
//! which orders them alike; f16 rows stay f16.

use anyhow::{Context, Result};
use bytemuck::Pod;
use clap::Parser;
use diskann::{
    ANNError,
    graph::config::{self, MaxDegree},
    utils::{ONE, VectorRepr},
};
use diskann_disk::{
    DiskIndexBuildParameters, QuantizationType,
    build::builder::build::DiskIndexBuilder,
    data_model::{AdHoc, CachingStrategy},
    disk_index_build_parameter::{DISK_SECTOR_LEN, MemoryBudget, NumPQChunks},
    search::{
        provider::{
            aligned_file_reader::AlignedFileReaderFactory, disk_provider::DiskIndexSearcher,
            disk_vertex_provider_factory::DiskVertexProviderFactory,
        },
        search_mode::SearchMode,
    },
    storage::{DiskIndexWriter, disk_index_reader::DiskIndexReader},
};
use diskann_providers::{
    model::IndexConfiguration,
    storage::{FileStorageProvider, get_compressed_pq_file, get_disk_index_file, get_pq_pivot_file},
};
use diskann_vector::distance::Metric::L2;
use half::f16;
use peer::{Args, Element, Events, Found, Metric, Rows, Truth, Values, Verb, measure};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// See `DISKANN` in systems.py.
#[derive(serde::Deserialize)]
struct Settings {
    graph_degree: usize,
    complexity: usize,
    code_bytes: usize,
    beam_width: usize,
    build_memory_gb: f64,
    list_sizes: Vec<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut events = Events::create(&args.events)?;
    match args.verb {
        Verb::Build => {
            let (base, n, dim, element) = input(&args)?;
            match element {
                Element::U8 => build::<u8>(&args, &base, n, dim, &mut events),
                Element::F16 => build::<f16>(&args, &base, n, dim, &mut events),
                Element::F32 => build::<f32>(&args, &base, n, dim, &mut events),
            }
        }
        Verb::Search => {
            let queries = shaped(args.queries()?, args.metric);
            match &queries.values {
                Values::U8(values) => search(&args, values, queries.dim, &mut events),
                Values::F16(values) => search(&args, values, queries.dim, &mut events),
                Values::F32(values) => search(&args, values, queries.dim, &mut events),
            }
        }
    }
}

fn shaped(rows: Rows, metric: Metric) -> Rows {
    if metric == Metric::Cos { rows.unit() } else { rows }
}

/// What all files of the index begin with.
fn prefix(args: &Args) -> Result<String> {
    let path = args.index.join("ann");
    Ok(path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))?.to_string())
}

/// The input as the library reads it, a .bin file: the one given, or a copy beside the index. Path, rows, dimension, element.
fn input(args: &Args) -> Result<(PathBuf, usize, usize, Element)> {
    let rows = Rows::read(&args.base, args.limit)?;
    let as_given = args.limit.is_none() && args.metric == Metric::L2 && args.base.extension().is_some_and(|e| e != "npy");
    let rows = shaped(rows, args.metric);
    let about = (rows.n, rows.dim, rows.element());
    fs::create_dir_all(&args.index).with_context(|| format!("{}: create", args.index.display()))?;
    let path = if as_given { args.base.clone() } else { args.index.join("input.bin") };
    if !as_given {
        rows.write_bin(&path)?;
    }
    Ok((path, about.0, about.1, about.2))
}

fn build<T: VectorRepr>(args: &Args, base: &Path, n: usize, dim: usize, events: &mut Events) -> Result<()> {
    let settings: Settings = args.settings()?;
    let base = base.to_str().with_context(|| format!("{}: not UTF-8", base.display()))?;
    let code = NumPQChunks::new_with(settings.code_bytes, dim)?;
    let parameters = DiskIndexBuildParameters::new(MemoryBudget::try_from_gb(settings.build_memory_gb)?, QuantizationType::FP, code);
    let slack = MaxDegree::default_slack();
    let saturated = |config: &mut config::Builder| {
        config.saturate_after_prune(true);
    };
    let config = config::Builder::new_with(settings.graph_degree, slack, settings.complexity, L2.into(), saturated);
    let config = config.build().map_err(ANNError::from)?;
    let configuration = IndexConfiguration::new(L2, dim, n, ONE, args.threads, config).with_pseudo_rng_from_seed(1);
    let writer = DiskIndexWriter::new(base.to_string(), prefix(args)?, None, DISK_SECTOR_LEN)?;

    let start = Instant::now();
    DiskIndexBuilder::<AdHoc<T>, _>::new(&FileStorageProvider, parameters, configuration, writer)?.build()?;
    let seconds = start.elapsed().as_secs_f64();

    let mut index_bytes = 0;
    for file in files(&prefix(args)?) {
        index_bytes += fs::metadata(&file).with_context(|| file.clone())?.len();
    }
    events.built(json!({
        "seconds": seconds, "n": n, "dim": dim, "input_bytes": 0, "index_bytes": index_bytes, "code_bytes": settings.code_bytes,
    }))
}

/// What a search opens: codebook, codes, and the graph with its vectors.
fn files(prefix: &str) -> [String; 3] {
    [get_pq_pivot_file(prefix), get_compressed_pq_file(prefix), get_disk_index_file(prefix)]
}

fn search<T: VectorRepr + Pod>(args: &Args, queries: &[T], dim: usize, events: &mut Events) -> Result<()> {
    let settings: Settings = args.settings()?;
    let n = queries.len() / dim;
    let truth = Truth::read(&args.truth, n, args.k)?;
    let [codebook, codes, graph] = files(&prefix(args)?);
    let opened = Instant::now();
    let reader = DiskIndexReader::new(codebook, codes, &FileStorageProvider)?;
    let nodes = DiskVertexProviderFactory::new(AlignedFileReaderFactory::new(graph), CachingStrategy::None)?;
    let searcher = DiskIndexSearcher::<AdHoc<T>>::new(args.threads, usize::MAX, &reader, nodes, L2, None)?;
    let open_seconds = opened.elapsed().as_secs_f64();

    for &list_size in &settings.list_sizes {
        let (k, length) = (u32::try_from(args.k)?, u32::try_from(list_size)?);
        let mut point = measure(args, list_size, n, &truth, |turns| {
            turns.each(|query| {
                let row = &queries[query * dim..][..dim];
                let answer = searcher.search(row, k, length, Some(settings.beam_width), SearchMode::graph())?;
                let ids = answer.results.iter().take(answer.stats.result_count as usize).map(|hit| hit.vertex_id).collect();
                Ok(Found { ids, reads: u64::from(answer.stats.query_statistics.total_io_operations) })
            })
        })?;
        point["cold"] = true.into();
        point["open_seconds"] = open_seconds.into();
        events.point(point)?;
    }
    Ok(())
}
