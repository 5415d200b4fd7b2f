//! Upserts, deletions, and changes of payloads.

use super::{filter_of, key_of};
use crate::{
    body::{self, Few, Id, Ignored, Lacking, VectorBody},
    collections::Served,
    reply::Refusal,
};
use roxanne_engine::collection::{Change, Collection, Point, PointKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard},
};

/// Points that are changed together where a filter names them.
const AT_ONCE: usize = 1000;

/// What a write answers.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Written {
    /// The batch after which it stands.
    operation_id: u64,
    /// `completed`: it is on the disk, and every later search sees it.
    status: &'static str,
}

impl Written {
    pub(crate) fn at(sequence: u64) -> Written {
        Written { operation_id: sequence, status: "completed" }
    }
}

/// Points: as a list, or as columns.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upsert {
    points: Option<Few<PointBody>>,
    batch: Option<Columns>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
    #[serde(default)]
    update_filter: Lacking,
    #[serde(default)]
    update_mode: Lacking,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PointBody {
    id: Id,
    vector: VectorBody,
    /// Any JSON object.
    #[serde(default, deserialize_with = "body::object")]
    payload: Option<Map<String, Value>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Columns {
    ids: Few<Id>,
    vectors: Few<VectorBody>,
    payloads: Option<Few<Payload>>,
}

/// Any JSON object, or null.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Payload(#[serde(deserialize_with = "body::object")] Option<Map<String, Value>>);

/// The text that is kept of a payload: nothing of an empty one.
fn text_of(payload: Option<Map<String, Value>>) -> String {
    payload.filter(|payload| !payload.is_empty()).map_or_else(String::new, |payload| Value::Object(payload).to_string())
}

fn reading(served: &Served) -> RwLockReadGuard<'_, ()> {
    served.changing.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone(served: &Served) -> RwLockWriteGuard<'_, ()> {
    served.changing.write().unwrap_or_else(PoisonError::into_inner)
}

/// `PUT points`. Of one id the last counts.
pub(crate) fn upsert(served: &Served, body: Upsert) -> Result<Written, Refusal> {
    let collection = &served.collection;
    Lacking::none_of(&[("update_filter", &body.update_filter), ("update_mode", &body.update_mode)])?;
    let points = match (body.points, body.batch) {
        (Some(points), None) => points.0,
        (None, Some(Columns { ids: Few(ids), vectors: Few(vectors), payloads })) => {
            let payloads = payloads.map_or_else(|| vec![Payload::default(); ids.len()], |payloads| payloads.0);
            if ids.len() != vectors.len() || payloads.len() != ids.len() {
                return Err(Refusal::bad("bad_input", "batch: as many vectors and payloads as ids are expected").field("batch"));
            }
            let rows = ids.into_iter().zip(vectors).zip(payloads);
            rows.map(|((id, vector), Payload(payload))| PointBody { id, vector, payload }).collect()
        }
        _ => return Err(Refusal::bad("bad_input", "points or batch is expected").field("points")),
    };
    let mut all = Vec::with_capacity(points.len());
    for PointBody { id, vector, payload } in points {
        all.push(Point { key: key_of(collection, &id)?, vector: vector.dense()?, payload: text_of(payload) });
    }
    let mut last: HashMap<PointKey, usize> = HashMap::new();
    all.iter().enumerate().for_each(|(i, point)| _ = last.insert(point.key.clone(), i));
    let changes = all.into_iter().enumerate().filter(|(i, point)| last.get(&point.key) == Some(i));
    let changes: Vec<Change> = changes.map(|(_, point)| Change::Upsert(point)).collect();
    let _guard = reading(served);
    Ok(Written::at(collection.write(changes)?.sequence))
}

/// Which points: by their ids, or by a filter.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    points: Option<Few<Id>>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
}

/// Shows the points that are named, a part at a time; gives the batch after the last.
fn each_named(
    collection: &Collection,
    named: &Named,
    mut each: impl FnMut(Vec<PointKey>) -> Result<u64, Refusal>,
) -> Result<Written, Refusal> {
    let mut sequence = collection.stats().sequence;
    if named.points.is_some() && named.filter.is_some() {
        return Err(Refusal::bad("bad_input", "points and filter: one of them is expected").field("filter"));
    }
    if let Some(ids) = &named.points {
        let mut keys = ids.0.iter().map(|id| key_of(collection, id)).collect::<Result<Vec<_>, _>>()?;
        keys.sort_unstable();
        keys.dedup();
        for some in keys.chunks(AT_ONCE) {
            sequence = each(some.to_vec())?;
        }
        return Ok(Written::at(sequence));
    }
    let filter = filter_of(collection, named.filter.as_ref())?;
    let filter = filter.ok_or_else(|| Refusal::bad("bad_input", "points or filter is expected").field("points"))?;
    let mut after = None;
    loop {
        let keys: Vec<PointKey> = collection.scroll(after.as_ref(), AT_ONCE, Some(&filter))?.into_iter().map(|(key, _)| key).collect();
        let Some(last) = keys.last() else { return Ok(Written::at(sequence)) };
        after = Some(last.clone());
        sequence = each(keys)?;
    }
}

/// `POST points/delete`.
pub(crate) fn delete(served: &Served, named: &Named) -> Result<Written, Refusal> {
    let collection = &served.collection;
    each_named(collection, named, |keys| {
        let _guard = reading(served);
        Ok(collection.write(keys.into_iter().map(Change::Delete).collect())?.sequence)
    })
}

/// A payload for the points that are named.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPayload {
    /// Any JSON object.
    #[serde(deserialize_with = "body::object")]
    #[schemars(with = "Map<String, Value>")]
    payload: Option<Map<String, Value>>,
    points: Option<Few<Id>>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
    #[serde(default)]
    key: Lacking,
}

/// Fields of the payloads of the points that are named.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeletePayload {
    /// Names on the first level.
    keys: Vec<String>,
    points: Option<Few<Id>>,
    #[serde(default, deserialize_with = "body::json")]
    #[schemars(schema_with = "crate::openapi::filter")]
    filter: Option<Value>,
    #[serde(default)]
    #[allow(dead_code)]
    shard_key: Ignored,
}

/// Reads points, changes their payloads, and writes them back; nobody else may write between.
fn change_payloads(served: &Served, named: &Named, change: impl Fn(&mut Map<String, Value>)) -> Result<Written, Refusal> {
    let collection = &served.collection;
    each_named(collection, named, |keys| {
        let _guard = alone(served);
        let mut changes = Vec::new();
        for key in keys {
            let Some(mut point) = collection.get(&key)? else { continue };
            let mut payload = serde_json::from_str(&point.payload).unwrap_or_default();
            change(&mut payload);
            point.payload = text_of(Some(payload));
            changes.push(Change::Upsert(point));
        }
        Ok(collection.write(changes)?.sequence)
    })
}

/// `POST points/payload`: fields are added, or take the place of those of their name; with `overwrite`, `PUT points/payload`, all others go.
pub(crate) fn set_payload(served: &Served, body: SetPayload, overwrite: bool) -> Result<Written, Refusal> {
    Lacking::none_of(&[("key", &body.key)])?;
    let given = body.payload.ok_or_else(|| Refusal::bad("bad_input", "payload: an object is expected").field("payload"))?;
    let named = Named { points: body.points, filter: body.filter, ..Named::default() };
    change_payloads(served, &named, |payload| {
        if overwrite {
            payload.clear();
        }
        payload.extend(given.clone());
    })
}

/// `POST points/payload/delete`.
pub(crate) fn delete_payload(served: &Served, body: DeletePayload) -> Result<Written, Refusal> {
    if body.keys.iter().any(|name| name.contains(['.', '['])) {
        return Err(Refusal::not_there("deleting within a payload (keys with dots)").field("keys"));
    }
    let named = Named { points: body.points, filter: body.filter, ..Named::default() };
    change_payloads(served, &named, |payload| body.keys.iter().for_each(|name| _ = payload.remove(name)))
}

/// `POST points/payload/clear`.
pub(crate) fn clear_payload(served: &Served, named: &Named) -> Result<Written, Refusal> {
    change_payloads(served, named, Map::clear)
}

/// Writes, one after the other.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    operations: Few<Operation>,
}

/// One write.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Upsert(Upsert),
    Delete(Named),
    SetPayload(SetPayload),
    OverwritePayload(SetPayload),
    DeletePayload(DeletePayload),
    ClearPayload(Named),
}

/// `POST points/batch`.
pub(crate) fn batch(served: &Served, body: Batch) -> Result<Vec<Written>, Refusal> {
    let one = |operation| match operation {
        Operation::Upsert(body) => upsert(served, body),
        Operation::Delete(named) => delete(served, &named),
        Operation::SetPayload(body) => set_payload(served, body, false),
        Operation::OverwritePayload(body) => set_payload(served, body, true),
        Operation::DeletePayload(body) => delete_payload(served, body),
        Operation::ClearPayload(named) => clear_payload(served, &named),
    };
    body.operations.0.into_iter().map(one).collect()
}
