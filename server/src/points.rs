//! Points as Qdrant's clients write, change and look for them.

use crate::{collections::Served, metrics::Metrics, reply::Refusal};
use roxanne_core::metric::Metric;
use roxanne_engine::{
    SearchParams,
    collection::{Change, Collection, Filter, KeyKind, Point, PointKey},
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

/// Points of one page where no limit is given.
const PAGE: usize = 10;
/// Points that one answer holds at most.
const MOST_POINTS: usize = 10_000;
/// Searches of one request.
pub(crate) const MOST_SEARCHES: usize = 1000;
/// The list of a search that names none.
const LIST_SIZE: usize = 100;
/// Points that are changed together where a filter names them.
const AT_ONCE: usize = 1000;

/// In which form a search is asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// `points/search`.
    Search,
    /// `points/query`.
    Query,
}

/// What is done to payloads.
pub(crate) enum Payload {
    Set,
    Overwrite,
    Delete,
    Clear,
}

/// What a write answers.
pub(crate) fn done(sequence: u64) -> Value {
    json!({"operation_id": sequence, "status": "completed"})
}

fn reading(served: &Served) -> RwLockReadGuard<'_, ()> {
    served.changing.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone(served: &Served) -> RwLockWriteGuard<'_, ()> {
    served.changing.write().unwrap_or_else(PoisonError::into_inner)
}

/// An id: a number, or a text.
fn key_of(collection: &Collection, id: &Value) -> Result<PointKey, Refusal> {
    let kind = collection.config().keys;
    match (id, kind) {
        (Value::Number(number), KeyKind::Numbers) => number.as_u64().map(PointKey::Number),
        (Value::Number(number), KeyKind::Strings) => number.as_u64().and_then(|number| kind.parse(&number.to_string()).ok()),
        (Value::String(text), KeyKind::Strings) => return Ok(kind.parse(&canonical(text))?),
        _ => None,
    }
    .ok_or_else(|| {
        Refusal::bad(format!(
            "{id} is no id: ids of this collection are whole numbers{}",
            if kind == KeyKind::Strings { " and texts" } else { "" }
        ))
    })
}

/// A UUID in the one form that it goes back in; any other text as it is.
fn canonical(text: &str) -> String {
    let text = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let digits: String = text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let is_uuid = matches!(text.len(), 32 | 36) && digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    // 32 digits of ten kinds are no number that fits 64 bits.
    if is_uuid { [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-") } else { text.to_string() }
}

/// The same filter, with UUIDs in their one form.
fn with_canonical_ids(filter: &Value) -> Value {
    match filter {
        Value::Array(parts) => parts.iter().map(with_canonical_ids).collect(),
        Value::Object(parts) => {
            let part = |(name, value): (&String, &Value)| {
                let ids = value.as_array().filter(|_| name == "has_id");
                let id = |id: &Value| id.as_str().map_or_else(|| id.clone(), |text| canonical(text).into());
                (
                    name.clone(),
                    ids.map_or_else(
                        || if name == "match" { value.clone() } else { with_canonical_ids(value) },
                        |ids| ids.iter().map(id).collect(),
                    ),
                )
            };
            Value::Object(parts.iter().map(part).collect())
        }
        other => other.clone(),
    }
}

/// A text that is a number goes back as one.
fn id_of(key: &PointKey) -> Value {
    match key {
        PointKey::Number(number) => json!(number),
        PointKey::Text(text) => match text.parse::<u64>() {
            Ok(number) if number.to_string() == **text => json!(number),
            _ => json!(text),
        },
    }
}

fn vector_of(value: &Value, name: &str) -> Result<Vec<f32>, Refusal> {
    // The vector without a name, which clients may name "".
    let value = value.get("").unwrap_or(value);
    let Some(values) = value.as_array() else {
        return Err(if value.is_object() {
            Refusal::not_there("vectors with names")
        } else {
            Refusal::bad(format!("{name}: a list of numbers is expected"))
        });
    };
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    values.iter().map(number).collect::<Option<Vec<_>>>().ok_or_else(|| Refusal::bad(format!("{name}: a list of numbers is expected")))
}

fn payload_of(value: Option<&Value>) -> Result<String, Refusal> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::Object(payload)) if payload.is_empty() => Ok(String::new()),
        Some(Value::Object(payload)) => Ok(Value::Object(payload.clone()).to_string()),
        Some(_) => Err(Refusal::bad("payload: an object is expected")),
    }
}

fn list<'a>(body: &'a Value, name: &str) -> Result<&'a Vec<Value>, Refusal> {
    body.get(name).and_then(Value::as_array).ok_or_else(|| Refusal::bad(format!("{name}: a list is expected")))
}

fn number(body: &Value, name: &str, otherwise: usize) -> Result<usize, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(otherwise),
        Some(value) => {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            number.ok_or_else(|| Refusal::bad(format!("{name}: a whole number is expected")))
        }
    }
}

fn limit_of(body: &Value) -> Result<usize, Refusal> {
    match number(body, "limit", PAGE)? {
        limit @ 1..=MOST_POINTS => Ok(limit),
        limit => Err(Refusal::bad(format!("limit: {limit}; it is 1 to {MOST_POINTS}"))),
    }
}

fn filter_of(collection: &Collection, body: &Value) -> Result<Option<Filter>, Refusal> {
    let filter = body.get("filter").filter(|filter| !filter.is_null());
    let is_text = collection.config().keys == KeyKind::Strings;
    let read =
        |filter: &Value| Filter::from_json(&if is_text { with_canonical_ids(filter) } else { filter.clone() }, collection.config().keys);
    Ok(filter.map(read).transpose()?)
}

/// `PUT points`.
pub(crate) fn upsert(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let collection = &served.collection;
    let mut points: Vec<Point> = Vec::new();
    if let Some(batch) = body.get("batch") {
        let (ids, vectors) = (list(batch, "ids")?, list(batch, "vectors")?);
        let payloads = batch.get("payloads").filter(|payloads| !payloads.is_null()).map(|_| list(batch, "payloads")).transpose()?;
        if ids.len() != vectors.len() || payloads.is_some_and(|payloads| payloads.len() != ids.len()) {
            return Err(Refusal::bad("batch: as many vectors and payloads as ids are expected"));
        }
        for (i, (id, vector)) in ids.iter().zip(vectors).enumerate() {
            let payload = payload_of(payloads.and_then(|payloads| payloads.get(i)))?;
            points.push(Point { key: key_of(collection, id)?, vector: vector_of(vector, &format!("batch.vectors[{i}]"))?, payload });
        }
    } else {
        for (i, point) in list(body, "points")?.iter().enumerate() {
            let part = |name: &str| point.get(name).ok_or_else(|| Refusal::bad(format!("points[{i}].{name} is missing")));
            let vector = vector_of(part("vector")?, &format!("points[{i}].vector"))?;
            points.push(Point { key: key_of(collection, part("id")?)?, vector, payload: payload_of(point.get("payload"))? });
        }
    }
    // Of one id the last counts.
    let mut last: HashMap<PointKey, usize> = HashMap::new();
    points.iter().enumerate().for_each(|(i, point)| _ = last.insert(point.key.clone(), i));
    let changes =
        points.into_iter().enumerate().filter(|(i, point)| last.get(&point.key) == Some(i)).map(|(_, point)| Change::Upsert(point));
    let changes: Vec<Change> = changes.collect();
    let _guard = reading(served);
    Ok(done(collection.write(changes)?.sequence))
}

/// The points that a body names by `points` or `filter`, a part at a time.
fn each_named(
    collection: &Collection,
    body: &Value,
    mut each: impl FnMut(Vec<PointKey>) -> Result<u64, Refusal>,
) -> Result<Value, Refusal> {
    let mut sequence = collection.stats().sequence;
    if body.get("points").is_some_and(Value::is_array) {
        let mut keys = list(body, "points")?.iter().map(|id| key_of(collection, id)).collect::<Result<Vec<_>, _>>()?;
        keys.sort_unstable();
        keys.dedup();
        for some in keys.chunks(AT_ONCE) {
            sequence = each(some.to_vec())?;
        }
        return Ok(done(sequence));
    }
    let filter = filter_of(collection, body)?.ok_or_else(|| Refusal::bad("points or filter is expected"))?;
    let mut after = None;
    loop {
        let keys: Vec<PointKey> = collection.scroll(after.as_ref(), AT_ONCE, Some(&filter))?.into_iter().map(|(key, _)| key).collect();
        let Some(last) = keys.last() else { return Ok(done(sequence)) };
        after = Some(last.clone());
        sequence = each(keys)?;
    }
}

/// `POST points/delete`.
pub(crate) fn delete(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let collection = &served.collection;
    each_named(collection, body, |keys| {
        let _guard = reading(served);
        Ok(collection.write(keys.into_iter().map(Change::Delete).collect())?.sequence)
    })
}

/// `POST` and `PUT points/payload`, `payload/delete`, `payload/clear`.
pub(crate) fn change_payload(served: &Served, body: &Value, how: &Payload) -> Result<Value, Refusal> {
    let collection = &served.collection;
    if body.get("key").is_some_and(|key| !key.is_null()) {
        return Err(Refusal::not_there("a payload within a payload (key)"));
    }
    let object = || body.get("payload").and_then(Value::as_object).ok_or_else(|| Refusal::bad("payload: an object is expected"));
    let given = match how {
        Payload::Set | Payload::Overwrite => object()?.clone(),
        Payload::Delete | Payload::Clear => Map::new(),
    };
    let names: Vec<&str> = match how {
        Payload::Delete => {
            let names: Option<Vec<&str>> = list(body, "keys")?.iter().map(Value::as_str).collect();
            let names = names.ok_or_else(|| Refusal::bad("keys: names are expected"))?;
            if names.iter().any(|name| name.contains(['.', '['])) {
                return Err(Refusal::not_there("deleting within a payload (keys with dots)"));
            }
            names
        }
        _ => Vec::new(),
    };
    each_named(collection, body, |keys| {
        // What is read is written back changed: nobody else may write between.
        let _guard = alone(served);
        let mut changes = Vec::new();
        for key in keys {
            let Some(mut point) = collection.get(&key)? else { continue };
            let mut payload: Map<String, Value> = match how {
                Payload::Set | Payload::Delete => serde_json::from_str(&point.payload).unwrap_or_default(),
                Payload::Overwrite | Payload::Clear => Map::new(),
            };
            names.iter().for_each(|name| _ = payload.remove(*name));
            payload.extend(given.clone());
            point.payload = payload_of(Some(&Value::Object(payload)))?;
            changes.push(Change::Upsert(point));
        }
        Ok(collection.write(changes)?.sequence)
    })
}

/// `POST points/batch`: one operation after the other.
pub(crate) fn batch(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let mut outcomes = Vec::new();
    for operation in list(body, "operations")? {
        let parts = operation.as_object().filter(|parts| parts.len() == 1).and_then(|parts| parts.iter().next());
        let Some((name, body)) = parts else { return Err(Refusal::bad("operations: each is an object of one operation")) };
        outcomes.push(match name.as_str() {
            "upsert" => upsert(served, body)?,
            "delete" => delete(served, body)?,
            "set_payload" => change_payload(served, body, &Payload::Set)?,
            "overwrite_payload" => change_payload(served, body, &Payload::Overwrite)?,
            "delete_payload" => change_payload(served, body, &Payload::Delete)?,
            "clear_payload" => change_payload(served, body, &Payload::Clear)?,
            _ => return Err(Refusal::not_there(&format!("the operation {name}"))),
        });
    }
    Ok(Value::from(outcomes))
}

/// What of a point goes back.
struct Parts {
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
    fn of(body: &Value, otherwise: bool) -> Result<Parts, Refusal> {
        let names = |value: &Value| {
            let names: Option<Vec<String>> =
                value.as_array().and_then(|names| names.iter().map(|name| name.as_str().map(String::from)).collect());
            names.ok_or_else(|| Refusal::bad("with_payload: names are expected"))
        };
        let payload = match body.get("with_payload") {
            None | Some(Value::Null) if otherwise => Wanted::All,
            None | Some(Value::Null | Value::Bool(false)) => Wanted::None,
            Some(Value::Bool(true)) => Wanted::All,
            Some(Value::Object(parts)) => match (parts.get("include"), parts.get("exclude")) {
                (Some(include), None) => Wanted::Only(names(include)?),
                (None, Some(exclude)) => Wanted::Without(names(exclude)?),
                _ => return Err(Refusal::bad("with_payload: include or exclude is expected")),
            },
            Some(value) => Wanted::Only(names(value)?),
        };
        let vector = match body.get("with_vector").or_else(|| body.get("with_vectors")) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::Array(names)) if names.iter().all(|name| name == "") => !names.is_empty(),
            Some(_) => return Err(Refusal::not_there("vectors with names")),
        };
        Ok(Parts { payload, vector })
    }

    fn payload(&self, text: &str) -> Option<Value> {
        let mut payload: Map<String, Value> = match self.payload {
            Wanted::None => return None,
            _ => serde_json::from_str(text).unwrap_or_default(),
        };
        match &self.payload {
            Wanted::Only(names) => payload.retain(|name, _| names.contains(name)),
            Wanted::Without(names) => payload.retain(|name, _| !names.contains(name)),
            _ => {}
        }
        Some(Value::Object(payload))
    }

    /// The fields of a point that was read.
    fn whole(&self, point: Point) -> Map<String, Value> {
        let mut fields = self.fields(&point.key, &point.payload);
        if self.vector {
            fields.insert("vector".into(), point.vector.into());
        }
        fields
    }

    /// Those but for the vector.
    fn fields(&self, key: &PointKey, payload: &str) -> Map<String, Value> {
        Map::from_iter([("id".to_string(), id_of(key)), ("payload".to_string(), self.payload(payload).into())])
    }

    /// The fields of a key's point, of which no more is read than is wanted; `None` where it has gone meanwhile.
    fn point(&self, collection: &Collection, key: &PointKey) -> Result<Option<Map<String, Value>>, Refusal> {
        Ok(match (self.vector, &self.payload) {
            (true, _) => collection.get(key)?.map(|point| self.whole(point)),
            (false, Wanted::None) => Some(self.fields(key, "")),
            (false, _) => Some(self.fields(key, &collection.payload(key)?)),
        })
    }
}

/// `POST points`.
pub(crate) fn retrieve(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let (collection, parts) = (&served.collection, Parts::of(body, true)?);
    let mut points = Vec::new();
    let ids = list(body, "ids")?;
    if ids.len() > MOST_POINTS {
        return Err(Refusal::bad(format!("ids: {}; at most {MOST_POINTS}", ids.len())));
    }
    for id in ids {
        points.extend(collection.get(&key_of(collection, id)?)?.map(|point| Value::Object(parts.whole(point))));
    }
    Ok(Value::from(points))
}

/// `GET points/ID`.
pub(crate) fn get(served: &Served, id: &str) -> Result<Value, Refusal> {
    let collection = &served.collection;
    let key = collection.config().keys.parse(&canonical(id))?;
    let point = collection.get(&key)?.ok_or_else(|| Refusal::not_found(format!("Point with id {id} does not exists!")))?;
    let payload: Value = serde_json::from_str(&point.payload).unwrap_or_else(|_| json!({}));
    Ok(json!({"id": id_of(&key), "payload": payload, "vector": point.vector}))
}

/// `POST points/scroll`.
pub(crate) fn scroll(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let (collection, parts, limit) = (&served.collection, Parts::of(body, true)?, limit_of(body)?);
    if body.get("order_by").is_some_and(|order| !order.is_null()) {
        return Err(Refusal::not_there("scrolling in another order (order_by)"));
    }
    let filter = filter_of(collection, body)?;
    let offset = body.get("offset").filter(|offset| !offset.is_null()).map(|offset| key_of(collection, offset)).transpose()?;
    let mut found = Vec::new();
    // An offset is the first point of a page; those behind it are asked for.
    if let Some(key) = &offset
        && let Some(point) = collection.get(key)?
        && filter.as_ref().is_none_or(|filter| filter.passes(key, &point.payload))
    {
        found.push((point.key, point.payload));
    }
    let more = (limit + 1).saturating_sub(found.len());
    found.extend(collection.scroll(offset.as_ref(), more, filter.as_ref())?);
    let next = found.get(limit).map(|(key, _)| id_of(key));
    found.truncate(limit);
    let mut points = Vec::new();
    for (key, payload) in &found {
        let point = if parts.vector { parts.point(collection, key)? } else { Some(parts.fields(key, payload)) };
        points.extend(point.map(Value::Object));
    }
    Ok(json!({"points": points, "next_page_offset": next}))
}

/// `POST points/count`: exactly, whatever is asked.
pub(crate) fn count(served: &Served, body: &Value) -> Result<Value, Refusal> {
    let collection = &served.collection;
    let count = match filter_of(collection, body)? {
        Some(filter) => collection.count_filtered(&filter)?,
        None => collection.count(),
    };
    Ok(json!({"count": count}))
}

/// `POST points/search` and `points/query`.
pub(crate) fn search(served: &Served, body: &Value, form: Form, metrics: &Metrics) -> Result<Value, Refusal> {
    let collection = &served.collection;
    for name in ["prefetch", "using", "lookup_from", "group_by"] {
        let is_asked = |value: &Value| !(value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value == "");
        if body.get(name).is_some_and(is_asked) {
            return Err(Refusal::not_there(name));
        }
    }
    let (parts, limit, offset) = (Parts::of(body, false)?, limit_of(body)?, number(body, "offset", 0)?);
    let filter = filter_of(collection, body)?;
    let query = match form {
        Form::Search => body.get("vector").filter(|vector| !vector.is_null()).ok_or_else(|| Refusal::bad("vector is missing"))?,
        Form::Query => body.get("query").unwrap_or(&Value::Null),
    };
    let named = |value: &Value| value.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if named(query) || query.get("mmr").is_some_and(|mmr| !mmr.is_null()) {
        return Err(Refusal::not_there("a vector with a name, and mmr"));
    }
    let query = query.get("nearest").unwrap_or(query);
    // A query by a point finds others.
    let (vector, itself) = match query {
        Value::Null => return Err(Refusal::not_there("a query without a vector or an id; scroll does it")),
        Value::Number(_) | Value::String(_) => {
            let key = key_of(collection, query)?;
            let point = collection.get(&key)?.ok_or_else(|| Refusal::not_found(format!("Point with id {query} does not exists!")))?;
            (point.vector, Some(key))
        }
        Value::Object(parts) if !parts.contains_key("") && !parts.contains_key("vector") => {
            return Err(Refusal::not_there("this kind of query"));
        }
        Value::Object(parts) => (vector_of(parts.get("vector").unwrap_or(query), "vector")?, None),
        query => (vector_of(query, "vector")?, None),
    };
    let wanted = body.get("params").filter(|params| !params.is_null()).unwrap_or(&Value::Null);
    let k = (limit + usize::from(itself.is_some())).saturating_add(offset);
    if k > MOST_POINTS {
        return Err(Refusal::bad(format!("limit and offset: {k} together; at most {MOST_POINTS}")));
    }
    let params = SearchParams { k, list_size: number(wanted, "hnsw_ef", LIST_SIZE)?, ..SearchParams::DEFAULT };
    let (start, exact) = (Instant::now(), wanted.get("exact").and_then(Value::as_bool).unwrap_or(false));
    let found = match (&filter, exact) {
        (None, false) => collection.search(&vector, &params),
        (None, true) => collection.exact(&vector, k),
        (Some(filter), false) => collection.search_filtered(&vector, &params, filter),
        (Some(filter), true) => collection.exact_filtered(&vector, k, filter),
    }?;
    metrics.searched(start.elapsed(), found.stats.reads);
    let metric = collection.config().metric;
    let threshold = body.get("score_threshold").and_then(Value::as_f64);
    let is_near = |score: f64| {
        threshold.is_none_or(|threshold| match metric {
            Metric::Cosine | Metric::InnerProduct => score >= threshold,
            _ => score <= threshold,
        })
    };
    let hits = found.hits.iter().filter(|hit| itself.as_ref() != Some(&hit.key)).map(|hit| (&hit.key, score(metric, hit.distance)));
    let mut points = Vec::new();
    for (key, score) in hits.filter(|(_, score)| is_near(*score)).skip(offset).take(limit) {
        if let Some(mut point) = parts.point(collection, key)? {
            point.insert("version".into(), json!(found.sequence));
            point.insert("score".into(), json!(score));
            points.push(Value::Object(point));
        }
    }
    Ok(if form == Form::Query { json!({"points": points}) } else { Value::from(points) })
}

/// What Qdrant means by the score: how alike under Cosine and Dot, how far under the others.
fn score(metric: Metric, distance: f32) -> f64 {
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
