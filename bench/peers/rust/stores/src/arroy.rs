//! arroy: trees of random splits, in LMDB.

use crate::{About, Trial, environment};
use anyhow::{Context, Result};
use arroy::{
    Database, Distance, Reader, Writer,
    distances::{Cosine, Euclidean},
};
use peer::{Args, Found, Metric};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::num::NonZeroUsize;

pub(crate) fn build(args: &Args, values: &[f32], dim: usize) -> Result<About> {
    match args.metric {
        Metric::L2 => build_by::<Euclidean>(args, values, dim),
        Metric::Cos => build_by::<Cosine>(args, values, dim),
    }
}

fn build_by<D: Distance>(args: &Args, values: &[f32], dim: usize) -> Result<About> {
    let environment = environment::open(&args.index)?;
    let database: Database<'static, D> = environment::database(&environment)?;
    let mut change = environment.write_txn()?;
    let writer = Writer::<D>::new(database, 0, dim);
    for (item, row) in (0..).zip(values.chunks_exact(dim)) {
        writer.append_item(&mut change, item, row)?;
    }
    writer.builder(&mut StdRng::seed_from_u64(1)).build(&mut change)?;
    change.commit()?;
    let state = environment.read_txn()?;
    Ok(json!({ "trees": Reader::<D>::open(&state, 0, database)?.n_trees() }))
}

pub(crate) fn search(trial: &Trial, list_size: usize) -> Result<Value> {
    match trial.args.metric {
        Metric::L2 => search_by::<Euclidean>(trial, list_size),
        Metric::Cos => search_by::<Cosine>(trial, list_size),
    }
}

fn search_by<D: Distance>(trial: &Trial, list_size: usize) -> Result<Value> {
    let environment = environment::open(&trial.args.index)?;
    let effort = NonZeroUsize::new(list_size).context("a list size of 0")?;
    let database: Database<'static, D> = environment::database(&environment)?;
    trial.measure(list_size, |turns| {
        let state = environment.read_txn()?;
        let reader = Reader::<D>::open(&state, 0, database)?;
        turns.each(|query| {
            let hits = reader.nns(trial.args.k).search_k(effort).by_vector(&state, trial.query(query))?;
            Ok(Found { ids: hits.into_iter().map(|(id, _)| id).collect(), reads: 0 })
        })
    })
}
