//! Vectors in, neighbors out, inside a program of your own: builds a small index in a temporary directory and searches it.
//!
//! `cargo run --example embed` (in the package `roxanne`)

use roxanne::{Budget, BuildParams, Builder, Dataset, Index, Metric, SearchParams};
use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("roxanne-embed-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let outcome = build_and_search(directory.join("my.rx"));
    fs::remove_dir_all(&directory)?;
    outcome
}

fn build_and_search(path: PathBuf) -> Result<(), Box<dyn Error>> {
    // Any file of vectors does; this is the generator that stands in for one.
    let input = "synth:n=5000,dim=64,type=f32,seed=1";
    let builder = Builder::new(Metric::L2).params(BuildParams { max_degree: 32, ..BuildParams::default() });
    let report = builder.budget(Budget::ram(1 << 30)).input(input)?.build(&path)?;
    println!("built {} vectors of {} dimensions: {} bytes", report.n, report.dim, report.index_bytes);

    // Cheap to clone, and every thread may search it.
    let index = Index::open(&path, Budget::ram(64 << 20))?;
    let mut query = Vec::new();
    Dataset::open(&format!("{input},part=query"))?.read_rows_f32(0, 1, &mut query)?;
    let answer = index.search(&query, &SearchParams { k: 5, list_size: 64, ..SearchParams::default() })?;
    for hit in &answer.hits {
        println!("key {:>4} at distance {:.4}", hit.key, hit.distance);
    }
    println!("{} pages were read", answer.stats.reads);
    Ok(())
}
