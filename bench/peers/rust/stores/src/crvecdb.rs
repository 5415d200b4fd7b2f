//! crvecdb: HNSW in a mapped file.

use crate::{About, Settings, Trial};
use anyhow::{Context, Result};
use crvecdb::{DistanceMetric, Index};
use peer::{Args, Found, Metric};
use serde_json::{Value, json};

const FILE: &str = "vectors.db";

pub(crate) fn build(args: &Args, settings: &Settings, values: &[f32], dim: usize) -> Result<About> {
    let metric = match args.metric {
        Metric::L2 => DistanceMetric::Euclidean,
        Metric::Cos => DistanceMetric::Cosine,
    };
    let (m, range) = (settings.m.context("M is missing")?, settings.ef_construction.context("ef_construction is missing")?);
    let rows: Vec<(u64, Vec<f32>)> = (0..).zip(values.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
    let index = Index::builder(dim).metric(metric).m(m).ef_construction(range).capacity(rows.len()).build_mmap(args.index.join(FILE))?;
    index.insert_parallel(&rows)?;
    index.flush()?;
    Ok(json!({}))
}

pub(crate) fn search(trial: &Trial, list_size: usize) -> Result<Value> {
    let index = Index::open_mmap(&trial.args.index.join(FILE))?;
    trial.measure(list_size, |turns| {
        turns.each(|query| {
            let hits = index.search_with_ef(trial.query(query), trial.args.k, list_size)?;
            Ok(Found { ids: hits.iter().map(|hit| hit.id as u32).collect(), reads: 0 })
        })
    })
}
