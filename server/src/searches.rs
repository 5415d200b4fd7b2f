//! One search, whoever asked for it: run, counted, logged where it was slow, remembered for the canary.

use crate::{
    body::{self, Id, QueryBody},
    collections::Served,
    jobs::{distances, recall},
    metrics::thread_cpu,
    points::{
        self,
        search::{LIST_SIZE, is_short, score},
    },
    reply::Refusal,
    route::{Call, late},
};
use roxanne_engine::{
    SearchParams,
    collection::{Filter, Found, PointHit, PointKey},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Instant;
use tracing::field::Empty;

/// Rows of one binary request.
const MOST_ROWS: usize = 10_000;

/// Which way searches go; a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Through the graph.
    Graph,
    /// Through the graph or over what passes, whichever is less.
    Filtered,
    /// Over all points.
    Exact,
}

impl Plan {
    pub(crate) const ALL: [Plan; 3] = [Plan::Graph, Plan::Filtered, Plan::Exact];

    pub(crate) fn name(self) -> &'static str {
        ["graph", "filtered", "exact"][self as usize]
    }
}

/// What is looked for.
pub(crate) struct Search<'a> {
    pub(crate) vector: &'a [f32],
    pub(crate) params: SearchParams,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) exact: bool,
}

impl Search<'_> {
    pub(crate) fn plan(&self) -> Plan {
        match (self.exact, self.filter) {
            (true, _) => Plan::Exact,
            (false, Some(_)) => Plan::Filtered,
            (false, None) => Plan::Graph,
        }
    }

    /// What is found; under `at_once` only where it is at hand.
    pub(crate) fn run(&self, served: &Served, at_once: bool) -> Result<Found, Refusal> {
        let (collection, Search { vector, params, .. }) = (&served.collection, self);
        if at_once {
            let found = if self.plan() == Plan::Graph { collection.search_at_once(vector, params)? } else { None };
            return found.ok_or_else(Refusal::not_at_hand);
        }
        let until = params.deadline.map(|left| Instant::now() + left);
        Ok(match (self.filter, self.exact) {
            (None, false) => collection.search(vector, params),
            (None, true) => collection.exact_until(vector, params.k, until),
            (Some(filter), false) => collection.search_filtered(vector, params, filter),
            (Some(filter), true) => collection.exact_filtered_until(vector, params.k, filter, until),
        }?)
    }
}

/// What is found, within the time that was given.
pub(crate) fn found(call: &Call, served: &Served, search: &Search) -> Result<Found, Refusal> {
    // Numbers of other kinds reach collectors as texts.
    let (k, list_size) = (search.params.k as i64, search.params.list_size as i64);
    let span =
        tracing::debug_span!("search", plan = search.plan().name(), k, list_size, reads = Empty, expanded = Empty, distances = Empty);
    let _in = span.enter();
    let (start, cpu) = (Instant::now(), thread_cpu());
    let found = search.run(served, call.at_once)?;
    for (name, count) in [("reads", found.stats.reads), ("expanded", found.stats.expanded), ("distances", found.stats.distances)] {
        span.record(name, count as i64);
    }
    let (took, plan) = (start.elapsed(), search.plan());
    call.server.metrics.searched(plan, took, thread_cpu().saturating_sub(cpu), &found.stats);
    served.canary.note(search);
    if call.server.slow_query.is_some_and(|slow| took >= slow) {
        tracing::warn!(
            request_id = call.request_id,
            collection = call.name(0),
            plan = plan.name(),
            millis = took.as_secs_f64() * 1e3,
            k = search.params.k,
            list_size = search.params.list_size,
            reads = found.stats.reads,
            expanded = found.stats.expanded,
            "slow search"
        );
    }
    if found.complete { Ok(found) } else { Err(late()) }
}

/// A search to explain.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explain {
    /// A vector, or the id of a point.
    query: QueryBody,
    /// Hits; 10 unless said.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<usize>,
    /// Candidates kept while searching (L); 100 unless said.
    #[schemars(range(min = 1, max = 1_048_576))]
    list_size: Option<usize>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
}

/// A search and what it took, beside an exact one.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Explained {
    /// graph, or filtered.
    plan: &'static str,
    /// How the base was searched: flash, resident, adjacency, or scan where a filter left few.
    way: &'static str,
    /// Pages read.
    reads: u64,
    /// Pages that cost no read.
    cache_hits: u64,
    /// Nodes whose neighbors were looked at.
    expanded: u64,
    /// Distances computed, compressed and exact.
    distances: u64,
    micros: u64,
    exact_micros: u64,
    /// The part of the exact hits that were found.
    recall: f64,
    hits: Vec<Near>,
    exact: Vec<Near>,
    /// Why there are fewer than were wanted, where there are.
    fewer: Option<&'static str>,
}

#[derive(Serialize, JsonSchema)]
struct Near {
    id: Id,
    score: f64,
}

/// `POST /v1/collections/C/explain`.
pub(crate) fn explain(call: &Call, served: &Served, body: Explain) -> Result<Explained, Refusal> {
    let collection = &served.collection;
    let k = points::in_range("limit", body.limit.unwrap_or(10), 1)?;
    let filter = points::filter_of(collection, body.filter.as_ref())?;
    let (vector, _) = points::search::vector_of(collection, body.query)?;
    let params = SearchParams { k, list_size: body.list_size.unwrap_or(LIST_SIZE), deadline: call.deadline()?, ..SearchParams::DEFAULT };
    let search = |exact| Search { vector: &vector, params, filter: filter.as_ref(), exact };
    let start = Instant::now();
    let found = found(call, served, &search(false))?;
    let (micros, start) = (start.elapsed().as_micros() as u64, Instant::now());
    let truth = search(true).run(served, false)?;
    let near = |found: &Found| {
        let hit = |hit: &PointHit| Near { id: points::id_of(&hit.key), score: score(collection.config().metric, hit.distance) };
        found.hits.iter().map(hit).collect()
    };
    let fewer = match (found.hits.len() < k, truth.hits.len() < k, filter.is_some()) {
        (false, ..) => None,
        (true, true, true) => Some("no more points pass the filter"),
        (true, true, false) => Some("there are no more points"),
        (true, false, _) => Some("the list was too short: search with a larger list_size"),
    };
    Ok(Explained {
        plan: search(false).plan().name(),
        way: found.stats.way.name(),
        reads: found.stats.reads,
        cache_hits: found.stats.cache_hits,
        expanded: found.stats.expanded,
        distances: found.stats.distances,
        micros,
        exact_micros: start.elapsed().as_micros() as u64,
        recall: recall(&distances(&found.hits), &distances(&truth.hits)),
        hits: near(&found),
        exact: near(&truth),
        fewer,
    })
}

/// `POST /v1/collections/C/search`: rows of little-endian f32 in, ids and scores out.
///
/// The answer, little-endian: u32 rows, then for every row a u32 count of hits, and for every hit an f32 score, a u16 length and so many bytes of the id
/// as a text.
pub(crate) fn rows(call: &Call, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let served = &*call.served()?;
    let collection = &served.collection;
    let dim = collection.config().dim;
    let row_bytes = 4 * dim;
    if body.is_empty() || !body.len().is_multiple_of(row_bytes) {
        let detail = format!("{} bytes are no rows of {dim} f32", body.len());
        return Err(Refusal::bad("dimension_mismatch", detail).field("body"));
    }
    let count = body.len() / row_bytes;
    if count > MOST_ROWS {
        return Err(Refusal::out_of_range("rows", count, 1, MOST_ROWS));
    }
    let k = points::in_range("limit", call.number("limit")?.unwrap_or(10), 1)?;
    let list_size = call.number("list_size")?.unwrap_or(LIST_SIZE);
    if call.at_once && (count > 1 || !is_short(k, list_size)) {
        return Err(Refusal::not_at_hand());
    }
    // A hit is some 20 bytes.
    points::fits(count.saturating_mul(k), 5)?;
    let mut out = Vec::new();
    out.extend_from_slice(&(count as u32).to_le_bytes());
    let mut vector = vec![0f32; dim];
    for row in body.chunks_exact(row_bytes) {
        for (number, bytes) in vector.iter_mut().zip(row.as_chunks().0) {
            *number = f32::from_le_bytes(*bytes);
        }
        let params = SearchParams { k, list_size, deadline: call.deadline()?, ..SearchParams::DEFAULT };
        let found = found(call, served, &Search { vector: &vector, params, filter: None, exact: false })?;
        out.extend_from_slice(&(found.hits.len() as u32).to_le_bytes());
        for hit in &found.hits {
            out.extend_from_slice(&(score(collection.config().metric, hit.distance) as f32).to_le_bytes());
            let id = match &hit.key {
                PointKey::Number(number) => number.to_string().into_bytes(),
                PointKey::Text(text) => text.as_bytes().to_vec(),
            };
            // A key has 512 bytes at most.
            out.extend_from_slice(&(id.len() as u16).to_le_bytes());
            out.extend_from_slice(&id);
        }
    }
    Ok(out)
}
