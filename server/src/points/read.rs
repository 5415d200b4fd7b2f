//! Points by their ids, in their order, and how many there are.

use super::{filter_of, fits, id_of, in_range, key_of, key_of_path};
use crate::{
    body::{self, Few, Id, Ignored, Lacking},
    collections::Served,
    reply::Refusal,
    route::Call,
};
use roxanne_engine::collection::{Collection, Point, PointKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// Points of one page where no limit is given.
pub(crate) const PAGE: usize = 10;

/// A point.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Record {
    pub(super) id: Id,
    /// Null where none is wanted.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub(super) payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vector: Option<Vec<f32>>,
}

/// Which fields of payloads go back.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WithPayload {
    /// All, or none.
    All(bool),
    /// Those of these names.
    Names(Vec<String>),
    /// Those, or all but those.
    Parts(PayloadParts),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayloadParts {
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
}

/// Whether vectors go back.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WithVector {
    /// Yes or no.
    All(bool),
    /// The one without a name, which is "".
    Names(Vec<String>),
}

/// What of a point goes back.
pub(crate) struct Parts {
    payload: Wanted,
    vector: bool,
}

enum Wanted {
    All,
    None,
    Only(Vec<String>),
    Without(Vec<String>),
}

impl Parts {
    /// `otherwise` says whether payloads go back where nothing is said.
    pub(crate) fn of(payload: Option<WithPayload>, vector: Option<WithVector>, otherwise: bool) -> Result<Parts, Refusal> {
        let payload = match payload {
            None if otherwise => Wanted::All,
            None | Some(WithPayload::All(false)) => Wanted::None,
            Some(WithPayload::All(true)) => Wanted::All,
            Some(WithPayload::Names(names)) => Wanted::Only(names),
            Some(WithPayload::Parts(PayloadParts { include: Some(names), exclude: None })) => Wanted::Only(names),
            Some(WithPayload::Parts(PayloadParts { include: None, exclude: Some(names) })) => Wanted::Without(names),
            Some(WithPayload::Parts(_)) => {
                return Err(Refusal::bad("bad_input", "with_payload: include or exclude is expected").field("with_payload"));
            }
        };
        let vector = match vector {
            None => false,
            Some(WithVector::All(all)) => all,
            Some(WithVector::Names(names)) if names.iter().all(String::is_empty) => !names.is_empty(),
            Some(WithVector::Names(_)) => return Err(Refusal::not_there("vectors with names")),
        };
        Ok(Parts { payload, vector })
    }

    /// Numbers of a point that go back; a payload is taken for some.
    pub(crate) fn numbers(&self, collection: &Collection) -> usize {
        let payload = if matches!(self.payload, Wanted::None) { 4 } else { 64 };
        payload + if self.vector { collection.config().dim } else { 0 }
    }

    fn payload(&self, text: &str) -> Option<Box<RawValue>> {
        let text = if text.is_empty() { "{}" } else { text };
        let names = match &self.payload {
            Wanted::None => return None,
            Wanted::All => return RawValue::from_string(text.to_string()).ok(),
            Wanted::Only(names) | Wanted::Without(names) => names,
        };
        let keep = matches!(self.payload, Wanted::Only(_));
        let mut payload: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        payload.retain(|name, _| names.contains(name) == keep);
        RawValue::from_string(Value::Object(payload).to_string()).ok()
    }

    fn of_point(&self, point: Point) -> Record {
        let payload = self.payload(&point.payload);
        Record { id: id_of(&point.key), payload, vector: self.vector.then_some(point.vector) }
    }

    fn of_payload(&self, key: &PointKey, payload: &str) -> Record {
        Record { id: id_of(key), payload: self.payload(payload), vector: None }
    }

    /// A key's point, of which no more is read than is wanted; `None` where it has gone meanwhile.
    pub(crate) fn read(&self, collection: &Collection, key: &PointKey) -> Result<Option<Record>, Refusal> {
        Ok(match (self.vector, &self.payload) {
            (true, _) => collection.get(key)?.map(|point| self.of_point(point)),
            (false, Wanted::None) => Some(self.of_payload(key, "")),
            (false, _) => Some(self.of_payload(key, &collection.payload(key)?)),
        })
    }
}

/// Points by their ids.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retrieve {
    ids: Few<Id>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
}

/// `POST points`.
pub(crate) fn retrieve(served: &Served, body: Retrieve) -> Result<Vec<Record>, Refusal> {
    let (collection, parts) = (&served.collection, Parts::of(body.with_payload, body.with_vector, true)?);
    fits(in_range("ids", body.ids.0.len(), 0)?, parts.numbers(collection))?;
    let mut points = Vec::new();
    for id in &body.ids.0 {
        points.extend(collection.get(&key_of(collection, id)?)?.map(|point| parts.of_point(point)));
    }
    Ok(points)
}

/// `GET points/ID`.
pub(crate) fn get(served: &Served, id: &str) -> Result<Record, Refusal> {
    let collection = &served.collection;
    let point = collection.get(&key_of_path(collection, id)?)?;
    let point = point.ok_or_else(|| Refusal::not_found(format!("Point with id {id} does not exists!")))?;
    Ok(Parts { payload: Wanted::All, vector: true }.of_point(point))
}

/// A page of points, in the order of their ids as texts.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scroll {
    /// The first of the page.
    offset: Option<Id>,
    /// 10 unless said.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<usize>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
    #[serde(default)]
    order_by: Lacking,
}

/// A page.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Page {
    points: Vec<Record>,
    /// The first of the next page.
    next_page_offset: Option<Id>,
}

/// `POST points/scroll`.
pub(crate) fn scroll(call: &Call, served: &Served, body: Scroll) -> Result<Page, Refusal> {
    let collection = &served.collection;
    Lacking::none_of(&[("order_by", &body.order_by)])?;
    let (parts, limit) = (Parts::of(body.with_payload, body.with_vector, true)?, in_range("limit", body.limit.unwrap_or(PAGE), 1)?);
    fits(limit, parts.numbers(collection))?;
    let filter = filter_of(collection, body.filter.as_ref())?;
    let offset = body.offset.map(|offset| key_of(collection, &offset)).transpose()?;
    let mut found = Vec::new();
    // An offset is the first point of a page; those behind it are asked for.
    if let Some(key) = &offset
        && let Some(point) = collection.get(key)?
        && filter.as_ref().is_none_or(|filter| filter.passes(key, &point.payload))
    {
        found.push((point.key, point.payload));
    }
    let more = (limit + 1).saturating_sub(found.len());
    found.extend(collection.scroll_until(offset.as_ref(), more, filter.as_ref(), call.until()?)?);
    let next_page_offset = found.get(limit).map(|(key, _)| id_of(key));
    found.truncate(limit);
    let mut points = Vec::new();
    for (key, payload) in &found {
        points.extend(if parts.vector { parts.read(collection, key)? } else { Some(parts.of_payload(key, payload)) });
    }
    Ok(Page { points, next_page_offset })
}

/// Which points to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    /// Counts are exact, whatever is asked.
    #[allow(dead_code)]
    exact: Option<bool>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
}

/// How many.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Counted {
    count: u64,
}

/// `POST points/count`.
pub(crate) fn count(call: &Call, served: &Served, body: &Count) -> Result<Counted, Refusal> {
    let collection = &served.collection;
    let count = match filter_of(collection, body.filter.as_ref())? {
        Some(filter) => collection.count_filtered_until(&filter, call.until()?)?,
        None => collection.count(),
    };
    Ok(Counted { count })
}
