//! hannoy: HNSW, in LMDB.

use crate::{About, Settings, Trial, environment};
use anyhow::{Context, Result};
use hannoy::{
    Database, Distance, Reader, Writer,
    distances::{Cosine, Euclidean},
};
use peer::{Args, Found, Metric};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

pub(crate) fn build(args: &Args, settings: &Settings, values: &[f32], dim: usize) -> Result<About> {
    match args.metric {
        Metric::L2 => build_by::<Euclidean>(args, settings, values, dim),
        Metric::Cos => build_by::<Cosine>(args, settings, values, dim),
    }
}

fn build_by<D: Distance>(args: &Args, settings: &Settings, values: &[f32], dim: usize) -> Result<About> {
    let environment = environment::open(&args.index)?;
    let database: Database<'static, D> = environment::database(&environment)?;
    let mut change = environment.write_txn()?;
    let writer = Writer::<D>::new(database, 0, dim);
    for (item, row) in (0..).zip(values.chunks_exact(dim)) {
        writer.add_item(&mut change, item, row)?;
    }
    let mut random = StdRng::seed_from_u64(1);
    let range = settings.ef_construction.context("ef_construction is missing")?;
    writer.builder(&mut random).ef_construction(range).build::<16, 32>(&mut change)?;
    change.commit()?;
    Ok(json!({}))
}

pub(crate) fn search(trial: &Trial, list_size: usize) -> Result<Value> {
    match trial.args.metric {
        Metric::L2 => search_by::<Euclidean>(trial, list_size),
        Metric::Cos => search_by::<Cosine>(trial, list_size),
    }
}

fn search_by<D: Distance>(trial: &Trial, list_size: usize) -> Result<Value> {
    let environment = environment::open(&trial.args.index)?;
    let database: Database<'static, D> = environment::database(&environment)?;
    trial.measure(list_size, |turns| {
        let state = environment.read_txn()?;
        let reader = Reader::<D>::open(&state, 0, database)?;
        turns.each(|query| {
            let answer = reader.nns(trial.args.k).ef_search(list_size).by_vector(&state, trial.query(query))?;
            Ok(Found { ids: answer.into_nns().into_iter().map(|(id, _)| id).collect(), reads: 0 })
        })
    })
}
