//! The judge of an index before it is published: every byte, every edge, and what a few searches find against exact search.

use crate::failure::Failure;
use roxanne_builder::Judge;
use roxanne_core::{
    Budget, ErrorClass,
    dataset::Dataset,
    element::ElementType,
    metric::Metric,
    random::CounterRng,
    recall::{exact_truth_of, found_by_distance},
};
use roxanne_engine::{Index, SearchParams, verify::verify};
use std::path::Path;

/// Rows that are searched for.
const PROBES: u64 = 64;
/// Neighbors of each that count, beside itself.
const K: usize = 10;
/// List size of the searches.
const LIST_SIZE: usize = 100;

/// A judge that knows the input, and refuses a recall@10 below `least`.
pub(crate) fn judge(dataset: Dataset, metric: Metric, least: f64, degree: usize, ram: u64) -> Result<Box<Judge>, Failure> {
    let packed = metric == Metric::Hamming && dataset.element() == ElementType::U8;
    let dataset = if packed { dataset.into_binary()? } else { dataset };
    // What the check of all edges holds.
    let needed = dataset.n() * (4 * degree as u64 + 8);
    if needed > ram {
        let text =
            format!("--verify holds the graph in memory, {needed} bytes, {ram} are allowed; verify where there is more (roxanne verify)");
        return Err(Failure::new(ErrorClass::Budget, text));
    }
    Ok(Box::new(move |index| {
        let verified = verify(index, &mut |_, _| {}).map_err(|error| error.to_string())?;
        if verified.unreachable > 0 {
            return Err(format!("{} of {} nodes cannot be reached", verified.unreachable, verified.nodes));
        }
        let found = recall(&dataset, metric, index, ram)?;
        if found < least { Err(format!("recall@{K} of {PROBES} rows is {found:.4}, at least {least} is asked for")) } else { Ok(()) }
    }))
}

/// Mean recall@10 of rows that are searched for, each of which finds itself besides.
fn recall(dataset: &Dataset, metric: Metric, index: &Path, ram: u64) -> Result<f64, String> {
    let rows = CounterRng::new(0x9B0B).sample(dataset.n(), PROBES);
    let (mut raw, mut row_bytes) = (Vec::new(), Vec::new());
    for &row in &rows {
        dataset.read_rows(row, 1, &mut row_bytes).map_err(|error| error.to_string())?;
        raw.extend_from_slice(&row_bytes);
    }
    let k = K + 1;
    let truth = exact_truth_of(dataset, &raw, metric, k, &mut |_| {}).map_err(|error| error.to_string())?;
    let index = Index::open(index, Budget::ram(ram)).map_err(|error| error.to_string())?;
    let mut searcher = index.searcher().map_err(|error| error.to_string())?;
    let params = SearchParams { k, list_size: LIST_SIZE, ..SearchParams::default() };
    let mut query = vec![0.0; dataset.dim()];
    let (mut found, mut wanted) = (0, 0);
    for (number, raw) in (0..).zip(raw.chunks_exact(dataset.row_bytes())) {
        dataset.element().decode(raw, &mut query);
        let answer = searcher.search(&query, &params).map_err(|error| error.to_string())?;
        // By distance, so that rows equally far are as good as each other, whatever their keys are.
        let distances = truth.distances(number).unwrap_or(&[]);
        found += found_by_distance(answer.hits.iter().map(|hit| hit.distance), distances);
        wanted += distances.len();
    }
    // Itself is found without merit.
    Ok((found as f64 - rows.len() as f64).max(0.0) / (wanted - rows.len()).max(1) as f64)
}
