//! Points as Qdrant's clients write, change and look for them.

pub(crate) mod read;
pub(crate) mod search;
pub(crate) mod write;

use crate::{body::Id, reply::Refusal};
use roxanne_engine::collection::{Collection, Filter, KeyKind, PointKey};
use serde_json::Value;

/// Points that one answer holds at most.
pub(crate) const MOST_POINTS: usize = 10_000;

/// The key of an id.
pub(crate) fn key_of(collection: &Collection, id: &Id) -> Result<PointKey, Refusal> {
    let kind = collection.config().keys;
    match (id, kind) {
        (Id::Number(number), KeyKind::Numbers) => Ok(PointKey::Number(*number)),
        (Id::Number(number), KeyKind::Strings) => Ok(kind.parse(&number.to_string())?),
        (Id::Text(text), KeyKind::Strings) => Ok(kind.parse(&canonical(text))?),
        (Id::Text(text), KeyKind::Numbers) => {
            Err(Refusal::bad("bad_key", format!("{text:?} is no id: ids of this collection are whole numbers")))
        }
    }
}

/// A key as a path names it.
fn key_of_path(collection: &Collection, id: &str) -> Result<PointKey, Refusal> {
    Ok(collection.config().keys.parse(&canonical(id))?)
}

/// A UUID in the one form that it goes back in; any other text as it is.
fn canonical(text: &str) -> String {
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let digits: String = bare.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let dashes: Vec<usize> = bare.match_indices('-').map(|(at, _)| at).collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) && (dashes.is_empty() || dashes == [8, 13, 18, 23]);
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
pub(crate) fn id_of(key: &PointKey) -> Id {
    match key {
        PointKey::Number(number) => Id::Number(*number),
        PointKey::Text(text) => match text.parse::<u64>() {
            Ok(number) if number.to_string() == **text => Id::Number(number),
            _ => Id::Text(text.to_string()),
        },
    }
}

pub(crate) fn filter_of(collection: &Collection, filter: Option<&Value>) -> Result<Option<Filter>, Refusal> {
    let kind = collection.config().keys;
    if let Some(what) = filter.and_then(lacking) {
        return Err(Refusal::not_there(what).field("filter"));
    }
    let read = |filter: &Value| match kind {
        KeyKind::Strings => Filter::from_json(&with_canonical_ids(filter), kind),
        KeyKind::Numbers => Filter::from_json(filter, kind),
    };
    Ok(filter.map(read).transpose()?)
}

/// A condition of Qdrant's that is not there.
fn lacking(filter: &Value) -> Option<&'static str> {
    let is_text = |value: &Value| value.is_string();
    match filter {
        Value::Array(parts) => parts.iter().find_map(lacking),
        Value::Object(parts) => parts.iter().find_map(|(name, part)| match (name.as_str(), part) {
            ("match", Value::Object(how)) if ["text", "text_any", "phrase"].iter().any(|name| how.contains_key(*name)) => {
                Some("search in texts")
            }
            ("range", Value::Object(bounds)) if bounds.values().any(is_text) => Some("a range of dates"),
            ("geo_bounding_box" | "geo_radius" | "geo_polygon", part) if !part.is_null() => Some("a geographic condition"),
            ("nested", part) if !part.is_null() => Some("a condition on one element of an array (nested)"),
            ("must" | "should" | "must_not" | "min_should" | "conditions", part) => lacking(part),
            _ => None,
        }),
        _ => None,
    }
}

/// Numbers that an answer holds at most, or texts of their length.
const MOST_NUMBERS: usize = 16 << 20;

/// Proves that so many points, of so many numbers each, are no more than an answer holds.
pub(crate) fn fits(points: usize, numbers: usize) -> Result<(), Refusal> {
    let wanted = points.saturating_mul(numbers);
    if wanted <= MOST_NUMBERS {
        return Ok(());
    }
    let detail = format!(
        "limit: {points} points of {numbers} numbers are more than an answer holds, which is {MOST_NUMBERS}; ask for fewer, or without vectors"
    );
    Err(Refusal::bad("limit_out_of_range", detail).field("limit"))
}

/// Proves that a request asks for no more, and no less, than an answer holds.
pub(crate) fn in_range(field: &str, got: usize, least: usize) -> Result<usize, Refusal> {
    if (least..=MOST_POINTS).contains(&got) { Ok(got) } else { Err(Refusal::out_of_range(field, got, least, MOST_POINTS)) }
}
