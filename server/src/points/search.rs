//! Searches as Qdrant's clients ask for them.

use super::{
    filter_of, fits, in_range, key_of,
    read::{PAGE, Parts, Record, WithPayload, WithVector},
};
use crate::{
    body::{self, Few, Id, Ignored, Lacking, Mmr, QueryBody, VectorBody},
    collections::Served,
    reply::Refusal,
    route::Call,
    searches::{Search, found},
};
use roxanne_core::metric::Metric;
use roxanne_engine::{
    SearchParams,
    collection::{Collection, PointKey},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// Searches of one request.
const MOST_SEARCHES: usize = 1000;
/// The list of a search that names none.
pub(crate) const LIST_SIZE: usize = 100;

/// The most hits and the longest list of a search that holds nobody up.
const FEW_HITS: usize = 16;
const SHORT_LIST: usize = 256;

/// Hits of which those are chosen that are not all alike; the work grows with their square.
const MOST_CANDIDATES: usize = 1000;

/// How far hits shall be from each other, unless said: from 0, not at all, to 1.
const DIVERSITY: f64 = 0.5;

// The two forms of a search say their common fields each: where serde flattens one struct into another, it no longer refuses what nobody knows.

/// A search by a vector.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBody {
    vector: VectorBody,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    params: Option<ParamsBody>,
    /// 10 unless said.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<usize>,
    /// Hits that are left out at the beginning.
    #[schemars(range(max = 9_999))]
    offset: Option<usize>,
    /// Hits that are less alike, or farther, are left out.
    score_threshold: Option<f64>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
}

impl SearchBody {
    /// Whether it is over as soon as it has begun, where all is in memory.
    pub(crate) fn is_quick(&self) -> bool {
        let plain = self.filter.is_none() && self.with_payload.is_none() && self.with_vector.is_none();
        plain && are_few(self.limit, self.offset, self.params.as_ref())
    }
}

/// Several of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBodies {
    #[schemars(length(max = 1000))]
    searches: Few<SearchBody>,
}

/// A search by a vector or by a point.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRequest {
    query: Option<QueryBody>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    params: Option<ParamsBody>,
    /// 10 unless said.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<usize>,
    /// Hits that are left out at the beginning.
    #[schemars(range(max = 9_999))]
    offset: Option<usize>,
    /// Hits that are less alike, or farther, are left out.
    score_threshold: Option<f64>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
    #[serde(default)]
    prefetch: Lacking,
    #[serde(default)]
    using: Lacking,
    #[serde(default)]
    lookup_from: Lacking,
}

impl QueryRequest {
    /// As [`SearchBody::is_quick`].
    pub(crate) fn is_quick(&self) -> bool {
        let plain = self.filter.is_none() && self.with_payload.is_none() && self.with_vector.is_none();
        plain && matches!(self.query, Some(QueryBody::Vector(_))) && are_few(self.limit, self.offset, self.params.as_ref())
    }
}

/// Whether a search for so many is one that may be over at once.
fn are_few(limit: Option<usize>, offset: Option<usize>, params: Option<&ParamsBody>) -> bool {
    let list_size = params.and_then(|params| params.hnsw_ef).unwrap_or(LIST_SIZE);
    let is_exact = params.and_then(|params| params.exact).unwrap_or(false);
    !is_exact && is_short(limit.unwrap_or(PAGE).saturating_add(offset.unwrap_or(0)), list_size)
}

/// The same of a list: each hit may take a read for its key.
pub(crate) fn is_short(hits: usize, list_size: usize) -> bool {
    hits <= FEW_HITS && list_size <= SHORT_LIST
}

/// Several of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRequests {
    #[schemars(length(max = 1000))]
    searches: Few<QueryRequest>,
}

/// How to search.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParamsBody {
    /// Candidates kept while searching (L): more finds more and reads more; 100 unless said.
    #[schemars(range(min = 1, max = 1_048_576))]
    hnsw_ef: Option<usize>,
    /// Compare with every point.
    exact: Option<bool>,
    #[serde(default)]
    #[allow(dead_code)]
    quantization: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    indexed_only: Ignored,
    #[serde(default)]
    #[allow(dead_code)]
    acorn: Ignored,
}

/// A point that was found.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Scored {
    /// The last batch that the search saw.
    version: u64,
    /// How alike under Cosine and Dot, how far under Euclid and Manhattan.
    score: f64,
    id: Id,
    /// Null where none is wanted.
    #[schemars(with = "Option<Map<String, Value>>")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

/// Points that were found, nearest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ScoredPoints {
    points: Vec<Scored>,
}

/// What both forms ask for.
struct Asked {
    query: QueryBody,
    mmr: Option<Mmr>,
    filter: Option<Value>,
    params: Option<ParamsBody>,
    limit: Option<usize>,
    offset: Option<usize>,
    score_threshold: Option<f64>,
    with_payload: Option<WithPayload>,
    with_vector: Option<WithVector>,
}

impl From<SearchBody> for Asked {
    fn from(body: SearchBody) -> Asked {
        let SearchBody { vector, filter, params, limit, offset, score_threshold, with_payload, with_vector, shard_key: _ } = body;
        Asked { query: QueryBody::Vector(vector), mmr: None, filter, params, limit, offset, score_threshold, with_payload, with_vector }
    }
}

impl TryFrom<QueryRequest> for Asked {
    type Error = Refusal;

    fn try_from(body: QueryRequest) -> Result<Asked, Refusal> {
        Lacking::none_of(&[("prefetch", &body.prefetch), ("using", &body.using), ("lookup_from", &body.lookup_from)])?;
        let query = body.query.ok_or_else(|| Refusal::not_there("a query without a vector or an id; scroll does it"))?;
        let (query, mmr) = match query {
            QueryBody::Mmr(query, mmr) => (*query, Some(mmr)),
            query => (query, None),
        };
        let QueryRequest { filter, params, limit, offset, score_threshold, with_payload, with_vector, .. } = body;
        Ok(Asked { query, mmr, filter, params, limit, offset, score_threshold, with_payload, with_vector })
    }
}

/// `POST points/search`.
pub(crate) fn search(call: &Call, served: &Served, body: SearchBody) -> Result<Vec<Scored>, Refusal> {
    answer(call, served, body.into())
}

/// `POST points/search/batch`.
pub(crate) fn searches(call: &Call, served: &Served, body: SearchBodies) -> Result<Vec<Vec<Scored>>, Refusal> {
    few(body.searches.0.len())?;
    each(call, served, body.searches.0.into_iter().map(|body| Ok(body.into())))
}

/// `POST points/query`.
pub(crate) fn query(call: &Call, served: &Served, body: QueryRequest) -> Result<ScoredPoints, Refusal> {
    Ok(ScoredPoints { points: answer(call, served, body.try_into()?)? })
}

/// `POST points/query/batch`.
pub(crate) fn queries(call: &Call, served: &Served, body: QueryRequests) -> Result<Vec<ScoredPoints>, Refusal> {
    few(body.searches.0.len())?;
    let all = each(call, served, body.searches.0.into_iter().map(Asked::try_from))?;
    Ok(all.into_iter().map(|points| ScoredPoints { points }).collect())
}

/// The answers to several searches, which together are no more than an answer holds.
fn each(call: &Call, served: &Served, all: impl Iterator<Item = Result<Asked, Refusal>>) -> Result<Vec<Vec<Scored>>, Refusal> {
    let all = all.collect::<Result<Vec<Asked>, Refusal>>()?;
    let dim = served.collection.config().dim;
    let numbers = all.iter().map(|asked| {
        let of_one = if asked.with_vector.is_some() { 64 + dim } else { 64 };
        asked.limit.unwrap_or(PAGE).saturating_mul(of_one)
    });
    fits(numbers.fold(0, usize::saturating_add), 1)?;
    all.into_iter().map(|asked| answer(call, served, asked)).collect()
}

fn few(searches: usize) -> Result<(), Refusal> {
    if searches > MOST_SEARCHES { Err(Refusal::out_of_range("searches", searches, 0, MOST_SEARCHES)) } else { Ok(()) }
}

fn answer(call: &Call, served: &Served, asked: Asked) -> Result<Vec<Scored>, Refusal> {
    let collection = &served.collection;
    let parts = Parts::of(asked.with_payload, asked.with_vector, false)?;
    let (limit, offset) = (in_range("limit", asked.limit.unwrap_or(PAGE), 1)?, in_range("offset", asked.offset.unwrap_or(0), 0)?);
    fits(limit, parts.numbers(collection))?;
    let filter = filter_of(collection, asked.filter.as_ref())?;
    let mmr = asked.mmr;
    // A query by a point finds others.
    let (vector, itself) = vector_of(collection, asked.query)?;
    let last = limit.saturating_add(offset);
    let candidates = mmr.as_ref().and_then(|mmr| mmr.candidates_limit).map_or(last, |candidates| candidates.max(last));
    if mmr.is_some() && candidates > MOST_CANDIDATES {
        return Err(Refusal::out_of_range("query.mmr.candidates_limit", candidates, 1, MOST_CANDIDATES));
    }
    let k = in_range("limit", candidates, 1)? + usize::from(itself.is_some());
    let params = asked.params.unwrap_or_default();
    let list_size = params.hnsw_ef.unwrap_or(LIST_SIZE);
    let search = Search {
        vector: &vector,
        params: SearchParams { k, list_size, deadline: call.deadline()?, ..SearchParams::DEFAULT },
        filter: filter.as_ref(),
        exact: params.exact.unwrap_or(false),
    };
    let found = found(call, served, &search)?;
    let metric = collection.config().metric;
    let is_near = |score: f64| {
        asked.score_threshold.is_none_or(|threshold| match metric {
            Metric::Cosine | Metric::InnerProduct => score >= threshold,
            _ => score <= threshold,
        })
    };
    let hits = found.hits.iter().filter(|hit| itself.as_ref() != Some(&hit.key)).map(|hit| (&hit.key, score(metric, hit.distance)));
    let near: Vec<_> = hits.filter(|(_, score)| is_near(*score)).take(candidates).collect();
    let chosen = match mmr {
        None => near,
        Some(mmr) => diverse(call, collection, near, last, mmr.diversity.unwrap_or(DIVERSITY))?,
    };
    let mut points = Vec::with_capacity(chosen.len());
    for (key, score) in chosen.into_iter().skip(offset) {
        if let Some(Record { id, payload, vector }) = parts.read(collection, key)? {
            points.push(Scored { version: found.sequence, score, id, payload, vector });
        }
    }
    Ok(points)
}

/// What a query looks for, and the point that it is the vector of.
pub(crate) fn vector_of(collection: &Collection, query: QueryBody) -> Result<(Vec<f32>, Option<PointKey>), Refusal> {
    match query {
        QueryBody::Vector(vector) => Ok((vector.dense()?, None)),
        QueryBody::Id(id) => {
            let key = key_of(collection, &id)?;
            let point = collection.get(&key)?;
            let point = point.ok_or_else(|| Refusal::not_found(format!("Point with id {key} does not exists!")))?;
            Ok((point.vector, Some(key)))
        }
        QueryBody::Mmr(query, _) => vector_of(collection, *query),
        QueryBody::Other => Err(Refusal::not_there("this kind of query").field("query")),
    }
}

/// `count` of the hits that are near to the query and far from each other: maximal marginal relevance (Carbonell and Goldstein 1998). The first is the
/// nearest; each next has the most of (1 - diversity) * its score - diversity * how alike it is to one that was chosen.
fn diverse<'a>(
    call: &Call,
    collection: &Collection,
    near: Vec<(&'a PointKey, f64)>,
    count: usize,
    diversity: f64,
) -> Result<Vec<(&'a PointKey, f64)>, Refusal> {
    let metric = collection.config().metric;
    // More alike is more, under every metric.
    let alike = |score: f64| match metric {
        Metric::Cosine | Metric::InnerProduct => score,
        _ => -score,
    };
    let mut left = Vec::new();
    for (key, score) in near {
        left.extend(collection.get(key)?.map(|point| (key, score, point.vector, f64::NEG_INFINITY)));
    }
    let mut chosen = Vec::new();
    while !left.is_empty() && chosen.len() < count {
        call.deadline()?;
        let worth = |(_, score, _, nearest): &(&PointKey, f64, Vec<f32>, f64)| {
            if nearest.is_finite() { (1.0 - diversity) * alike(*score) - diversity * nearest } else { alike(*score) }
        };
        let best = (1..left.len()).fold(0, |best, at| if worth(&left[at]) > worth(&left[best]) { at } else { best });
        let (key, score, vector, _) = left.remove(best);
        for (_, _, other, nearest) in &mut left {
            *nearest = nearest.max(alike(similarity(metric, &vector, other)));
        }
        chosen.push((key, score));
    }
    Ok(chosen)
}

/// The score of one vector for another.
fn similarity(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot = || pairs().map(|(a, b)| a * b).sum::<f64>();
    match metric {
        Metric::InnerProduct => dot(),
        Metric::Cosine => {
            let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            dot() / (norm(a) * norm(b)).max(f64::MIN_POSITIVE)
        }
        Metric::L2 => pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        Metric::Manhattan => pairs().map(|(a, b)| (a - b).abs()).sum(),
        Metric::Hamming => pairs().map(|(a, b)| f64::from(u8::from(a != b))).sum(),
    }
}

/// What Qdrant means by the score: how alike under Cosine and Dot, how far under the others.
pub(crate) fn score(metric: Metric, distance: f32) -> f64 {
    let distance = f64::from(distance);
    match metric {
        Metric::Cosine => 1.0 - distance,
        Metric::InnerProduct => -distance,
        Metric::L2 => distance.max(0.0).sqrt(),
        Metric::Manhattan | Metric::Hamming => distance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_qdrants() {
        assert_eq!(score(Metric::L2, 25.0), 5.0);
        assert_eq!(score(Metric::Cosine, 0.25), 0.75);
        assert_eq!(score(Metric::InnerProduct, -3.0), 3.0);
        assert_eq!(score(Metric::Manhattan, 3.0), 3.0);
    }
}
