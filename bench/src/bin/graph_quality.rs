//! Search quality of this builder's graph against incremental Vamana, on the same codes, from the same entry point, in RAM.
//!
//! Prints JSON lines: one a graph when it is built, one a point, one a comparison at equal distance computations, one summary.

use clap::Parser;
use roxanne_bench::{
    inputs,
    quality::{Point, Subject, Trial, measure, recall_at},
};
use roxanne_builder::{
    BuildParams,
    backend::{BuildCodes, cpu::Cpu},
    graph_build::build_graph,
    progress::{Silent, Watch},
    vamana::build_vamana,
};
use roxanne_core::{
    dataset::Dataset,
    distance::DistanceFn,
    metric::Metric,
    recall::{Truth, exact_truth},
};
use serde_json::json;
use std::{error::Error, process::ExitCode, sync::atomic::AtomicBool, time::Instant};

/// Recall at equal distance computations: our graph against Vamana's
#[derive(Parser)]
struct Args {
    /// The vectors
    base: String,
    /// The queries
    queries: String,
    /// Exact neighbors of the queries in the whole base (.bin, .ivecs); computed where it is not given
    #[arg(long, conflicts_with = "limit")]
    truth: Option<String>,
    /// The first rows of the base only
    #[arg(long)]
    limit: Option<u64>,
    /// The first queries only
    #[arg(long)]
    queries_limit: Option<u64>,
    /// l2, cos, l1 or hamming (an inner product's queries have no row under the build metric)
    #[arg(long, default_value = "l2")]
    metric: Metric,
    /// List sizes (L), rising
    #[arg(long, value_delimiter = ',', default_value = "14,20,28,40,57,80,113,160")]
    list_size: Vec<usize>,
    /// Neighbors asked for
    #[arg(long, short, default_value_t = 10)]
    k: usize,
    /// Degree (R) of both graphs
    #[arg(long, default_value_t = BuildParams::default().max_degree)]
    degree: usize,
    /// Alpha of both prunes
    #[arg(long, default_value_t = BuildParams::default().alpha)]
    alpha: f64,
    /// Ours: neighbors that a row of a leaf gives and takes
    #[arg(long, default_value_t = BuildParams::default().leaf_k)]
    leaf_k: usize,
    /// Ours: candidates kept for the prune
    #[arg(long, default_value_t = BuildParams::default().reservoir)]
    reservoir: usize,
    /// Ours: most vectors of a leaf
    #[arg(long)]
    leaf_max: Option<usize>,
    /// Vamana: list size of the building searches
    #[arg(long, default_value_t = 90)]
    vamana_list_size: usize,
    /// Seed of both
    #[arg(long, default_value_t = BuildParams::default().seed)]
    seed: u64,
    /// Threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build();
    match pool.map_err(Box::from).and_then(|pool| pool.install(|| run(&args).map_err(|e| e.to_string())).map_err(Box::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: Box<dyn Error> = error;
            eprintln!("graph_quality: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if args.metric == Metric::InnerProduct {
        return Err("metric dot: a query is no row of the build metric; measure it with roxanne eval".into());
    }
    if args.list_size.iter().any(|&l| l < args.k) || !args.list_size.is_sorted() {
        return Err(format!("--list-size: rising numbers, none below k ({})", args.k).into());
    }
    let open = |source: &str, limit: Option<u64>| -> Result<Dataset, Box<dyn Error>> {
        let dataset = Dataset::open(source)?.limit(limit.unwrap_or(u64::MAX));
        Ok(if args.metric == Metric::Hamming { dataset.into_binary()? } else { dataset })
    };
    let (base, queries) = (open(&args.base, args.limit)?, open(&args.queries, args.queries_limit)?);
    if base.n() == 0 || queries.n() == 0 {
        return Err("no rows or no queries; give at least one of each".into());
    }
    let truth = match &args.truth {
        Some(path) => Truth::read(path)?,
        None => exact_truth(&base, &queries, args.metric, args.k, &mut |_| {})?,
    };
    if truth.n < queries.n() || truth.k < args.k.min(base.n() as usize) || truth.ids.iter().any(|&id| u64::from(id) >= base.n()) {
        return Err("the truth is not of these queries, this base or this k; leave --truth out to have it computed".into());
    }

    let (codes, codec) = inputs::build_codes(&base, args.metric, args.seed)?;
    let raw_queries = inputs::raw_rows(&queries)?;
    let (mut query_bytes, mut scratch) = (Vec::new(), Vec::new());
    raw_queries.chunks_exact(queries.row_bytes()).for_each(|row| codec.encode(row, &mut scratch, &mut query_bytes));
    let query_codes = BuildCodes { metric: codes.metric, stride: codes.stride, bytes: query_bytes };
    let trial = Trial {
        codes: &query_codes,
        queries: &raw_queries,
        base: &inputs::raw_rows(&base)?,
        row_bytes: base.row_bytes(),
        distance: DistanceFn::new(args.metric, base.element(), base.dim())?,
        truth: &truth,
        k: args.k,
    };

    let params = BuildParams {
        max_degree: args.degree,
        alpha: args.alpha,
        leaf_k: args.leaf_k,
        reservoir: args.reservoir,
        leaf_max: args.leaf_max,
        seed: args.seed,
        ..BuildParams::default()
    };
    let graph_params = params.graph(base.dim())?;
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    let built = build_graph(codes, &graph_params, &Cpu::default(), &Watch::new(&Silent, &stop))?;
    let ours = Subject { codes: &built.codes, row_of: &built.order, graph: &built.graph, entry: built.entry };
    let our_curve = judge("roxanne", start.elapsed().as_secs_f64(), &ours, &trial, &args.list_size);

    // On the same rows in the same order, so that both graphs have one entry point.
    let start = Instant::now();
    let (graph, entry) = build_vamana(&built.codes, &graph_params.prune, args.vamana_list_size, args.seed);
    let vamana = Subject { graph: &graph, entry, ..ours };
    let vamana_curve = judge("vamana", start.elapsed().as_secs_f64(), &vamana, &trial, &args.list_size);

    let mut differences = Vec::new();
    for point in &vamana_curve {
        let Some(recall) = recall_at(&our_curve, point.distances) else { continue };
        let difference = recall - point.recall;
        differences.push(difference);
        println!("{}", json!({"at_distances": point.distances, "roxanne": recall, "vamana": point.recall, "difference": difference}));
    }
    let worst = differences.iter().copied().reduce(f64::min);
    let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    println!(
        "{}",
        json!({
            "n": base.n(), "dim": base.dim(), "element": base.element().name(), "metric": args.metric.name(), "queries": queries.n(),
            "k": args.k, "degree": args.degree, "alpha": args.alpha, "leaf_k": args.leaf_k, "reservoir": args.reservoir,
            "leaf_max": graph_params.partition.leaf_max, "vamana_list_size": args.vamana_list_size, "seed": args.seed,
            "threads": rayon::current_num_threads(), "worst_difference": worst, "mean_difference": mean,
        })
    );
    Ok(())
}

/// Searches one graph with all list sizes and prints what it gives.
fn judge(name: &str, build_seconds: f64, subject: &Subject<'_>, trial: &Trial<'_>, list_sizes: &[usize]) -> Vec<Point> {
    let graph = subject.graph;
    let reached = graph.reach(subject.entry, &mut vec![false; graph.n()]).len();
    println!(
        "{}",
        json!({
            "graph": name, "build_seconds": build_seconds, "mean_degree": graph.edge_count() as f64 / graph.n() as f64,
            "without_in_edge": graph.without_in_edge(), "unreachable": graph.n() - reached,
        })
    );
    let point = |&list_size: &usize| {
        let point = measure(subject, trial, list_size);
        println!("{}", json!({"graph": name, "list_size": list_size, "recall": point.recall, "distances": point.distances}));
        point
    };
    list_sizes.iter().map(point).collect()
}
