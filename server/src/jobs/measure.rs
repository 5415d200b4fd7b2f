//! Recall and speed of a collection as it is, at several list sizes.

use super::{Control, Progress};
use crate::{collections::Served, points::in_range, reply::Refusal, route::Call};
use roxanne_core::recall::found_by_distance;
use roxanne_engine::{
    SearchParams,
    collection::{Collection, PointHit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Instant;

/// Queries, unless said; and at most.
const QUERIES: usize = 50;
const MOST_QUERIES: usize = 1000;
/// Times that queries are asked at each list size, at least so many searches in all.
const SEARCHES: usize = 200;
const LIST_SIZES: [usize; 6] = [10, 20, 40, 80, 160, 320];
const MOST_LIST_SIZES: usize = 32;

/// What is measured: the curve of recall against speed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Measure {
    pub(crate) collection: String,
    queries: usize,
    k: usize,
    list_sizes: Vec<usize>,
}

/// What to measure; all has a default.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MeasureBody {
    /// Queries: the latest that were asked, or vectors of the collection where too few were. 50 unless said.
    #[schemars(range(min = 1, max = 1000))]
    queries: Option<usize>,
    /// Hits of a search; 10 unless said.
    #[schemars(range(min = 1, max = 10_000))]
    k: Option<usize>,
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 1_048_576)))]
    list_sizes: Option<Vec<usize>>,
}

impl Measure {
    pub(crate) fn of(call: &Call, body: MeasureBody) -> Result<Measure, Refusal> {
        let queries = body.queries.unwrap_or(QUERIES);
        if !(1..=MOST_QUERIES).contains(&queries) {
            return Err(Refusal::out_of_range("queries", queries, 1, MOST_QUERIES));
        }
        let list_sizes = body.list_sizes.unwrap_or_else(|| LIST_SIZES.to_vec());
        if !(1..=MOST_LIST_SIZES).contains(&list_sizes.len()) {
            return Err(Refusal::out_of_range("list_sizes", list_sizes.len(), 1, MOST_LIST_SIZES));
        }
        if let Some(bad) = list_sizes.iter().find(|size| !(1..=1 << 20).contains(*size)) {
            return Err(Refusal::out_of_range("list_sizes", *bad, 1, 1 << 20));
        }
        call.served()?;
        Ok(Measure { collection: call.own_name()?, queries, k: in_range("k", body.k.unwrap_or(10), 1)?, list_sizes })
    }

    pub(super) fn run(&self, served: &Served, control: &Control) -> Result<Value, String> {
        let collection = &served.collection;
        let told = |error| Refusal::from(error).detail;
        let mut queries = served.canary.recent(self.queries);
        let asked = queries.len();
        if asked < self.queries.min(10) {
            queries = own_vectors(collection, self.queries)?;
        }
        if queries.is_empty() {
            return Err("there are no points".to_string());
        }
        let mut truth: Vec<Vec<f32>> = Vec::new();
        for (done, query) in (0..).zip(&queries) {
            if control.stopped() {
                return Err("it was stopped".to_string());
            }
            control.say(Progress {
                phase: "truth".into(),
                done,
                total: queries.len() as u64,
                unit: "queries".into(),
                ..Progress::default()
            });
            truth.push(distances(&collection.exact(query, self.k).map_err(told)?.hits));
        }
        let mut points = Vec::new();
        for (done, &list_size) in (0..).zip(&self.list_sizes) {
            let (total, unit) = (self.list_sizes.len() as u64, "list sizes".to_string());
            control.say(Progress { phase: "searches".into(), done, total, unit, ..Progress::default() });
            let params = SearchParams { k: self.k, list_size, ..SearchParams::DEFAULT };
            let (mut sum, mut reads, mut seconds) = (0.0, 0, Vec::new());
            let rounds = SEARCHES.div_ceil(queries.len());
            for _ in 0..rounds {
                for (query, truth) in queries.iter().zip(&truth) {
                    if control.stopped() {
                        return Err("it was stopped".to_string());
                    }
                    let start = Instant::now();
                    let found = collection.search(query, &params).map_err(told)?;
                    seconds.push(start.elapsed().as_secs_f64());
                    reads += found.stats.reads;
                    sum += recall(&distances(&found.hits), truth);
                }
            }
            seconds.sort_unstable_by(f64::total_cmp);
            let (count, all) = (seconds.len() as f64, seconds.iter().sum::<f64>());
            let p99 = seconds[(seconds.len() * 99 / 100).min(seconds.len() - 1)];
            points.push(json!({
                "list_size": list_size, "recall": sum / count, "mean_us": all / count * 1e6, "p99_us": p99 * 1e6, "qps": count / all.max(1e-9),
                "reads": reads as f64 / count,
            }));
        }
        let queries_of = if asked < self.queries.min(10) { "the collection's own vectors" } else { "the latest that were asked" };
        Ok(json!({"k": self.k, "queries": queries.len(), "queries_of": queries_of, "threads": 1, "points": points}))
    }
}

/// The part of the true hits that were found, by their distances: of equals any is as good as another.
pub(crate) fn recall(found: &[f32], truth: &[f32]) -> f64 {
    if truth.is_empty() { 1.0 } else { found_by_distance(found.iter().copied(), truth) as f64 / truth.len() as f64 }
}

/// The distances of hits.
pub(crate) fn distances(hits: &[PointHit]) -> Vec<f32> {
    hits.iter().map(|hit| hit.distance).collect()
}

/// Vectors of the collection, the first by their ids.
fn own_vectors(collection: &Collection, count: usize) -> Result<Vec<Vec<f32>>, String> {
    let told = |error| Refusal::from(error).detail;
    let mut vectors = Vec::new();
    for (key, _) in collection.scroll(None, count, None).map_err(told)? {
        vectors.extend(collection.get(&key).map_err(told)?.map(|point| point.vector));
    }
    Ok(vectors)
}
