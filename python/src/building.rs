//! What makes indexes.

use crate::{AnyKey, InputError, Raise, budget, parsed, patiently};
use pyo3::prelude::*;
use roxanne::{
    BuildError, BuildParams, Builder, KeyList, Metric,
    foreign::{Foreign, Reading, System},
};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

/// A builder that was told everything.
fn builder(source: &str, metric: &str, ram: Option<u64>, threads: usize, device: &str, params: BuildParams) -> PyResult<Builder> {
    Builder::new(parsed(metric)?).params(params).budget(budget(ram)).threads(threads).device(parsed(device)?).input(source).raise()
}

/// Builds an index of the vectors in the file `source`; a JSON text of what it took.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn build(
    py: Python<'_>,
    source: String,
    out: String,
    metric: &str,
    keys: Option<Vec<AnyKey>>,
    ram: Option<u64>,
    threads: usize,
    device: &str,
    max_degree: usize,
    capacity: u64,
) -> PyResult<String> {
    let params = BuildParams { max_degree, capacity, ..BuildParams::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let mut builder = builder(&source, metric, ram, threads, device, params)?.stop(Arc::clone(&stop));
    if let Some(keys) = keys {
        builder = builder.keys(key_list(&keys)?);
    }
    run(py, &stop, builder, &out)
}

/// Builds, and gives a JSON text of what it took.
fn run(py: Python<'_>, stop: &AtomicBool, builder: Builder, out: &str) -> PyResult<String> {
    let report = patiently(py, stop, || builder.build(out))?.raise()?;
    let value = serde_json::json!({
        "n": report.n, "dim": report.dim, "seconds": report.seconds, "index_bytes": report.index_bytes, "code_bytes": report.code_bytes,
        "backend": report.backend, "shards": report.shards, "already_complete": report.already_complete,
    });
    Ok(value.to_string())
}

/// Makes an index of one that another system made; a JSON text of what it took.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub(crate) fn import_index(
    py: Python<'_>,
    system: &str,
    path: String,
    out: String,
    metric: Option<&str>,
    element: Option<&str>,
    new_graph: bool,
    ram: Option<u64>,
    threads: usize,
    max_degree: usize,
    capacity: u64,
) -> PyResult<String> {
    let (system, metric): (System, Option<Metric>) = (parsed(system)?, metric.map(parsed).transpose()?);
    let stop = Arc::new(AtomicBool::new(false));
    let how = Reading { element: element.map(parsed).transpose()?, ram: budget(ram).ram, stop: Arc::clone(&stop) };
    let foreign = patiently(py, &stop, || Foreign::open(system, Path::new(&path), &how))?.map_err(BuildError::from).raise()?;
    let metric = foreign.metric_or(metric).map_err(InputError::new_err)?;
    let params = BuildParams { max_degree, capacity, ..BuildParams::default() };
    let builder = Builder::new(metric).params(params).budget(budget(ram)).threads(threads).stop(Arc::clone(&stop));
    let builder = if new_graph {
        let Foreign { dataset, keys, .. } = foreign;
        builder.keys(keys).dataset(dataset)
    } else {
        builder.foreign(foreign)
    };
    run(py, &stop, builder, &out)
}

/// Numbers where all are, else texts.
fn key_list(keys: &[AnyKey]) -> PyResult<KeyList> {
    let numbers: Option<Vec<u64>> = keys.iter().map(|key| if let AnyKey::Number(number) = key { Some(*number) } else { None }).collect();
    if let Some(numbers) = numbers {
        return Ok(KeyList::Numbers(numbers));
    }
    let texts: Option<Vec<String>> = keys.iter().map(|key| if let AnyKey::Text(text) = key { Some(text.clone()) } else { None }).collect();
    texts.map(KeyList::Strings).ok_or_else(|| InputError::new_err("keys are numbers or texts, not some of each"))
}

/// What a build would take, as a JSON text.
#[pyfunction]
pub(crate) fn plan(source: &str, metric: &str, ram: Option<u64>, device: &str) -> PyResult<String> {
    let plan = builder(source, metric, ram, 0, device, BuildParams::default())?.plan().raise()?;
    let value = serde_json::json!({
        "n": plan.n, "dim": plan.dim, "index_bytes": plan.index_bytes, "peak_ram_bytes": plan.peak_ram_bytes,
        "serve_ram_bytes": plan.serve_ram_bytes, "disk_bytes": plan.disk_bytes, "code_bytes": plan.code_bytes, "shards": plan.shards,
    });
    Ok(value.to_string())
}
