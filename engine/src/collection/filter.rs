//! Filters by payload: what a point must say of itself to be found.
//!
//! Their JSON is that of Qdrant's REST interface, as far as it goes: `must`, `should`, `must_not`, `min_should`; of a field `match` (`value`,
//! `any`, `except`), `range`, `values_count`; `is_empty`, `is_null`, `has_id`; filters in filters. What is not known is refused, never passed over.
//!
//! A field is a path of names with dots between them. What lies in arrays on the way is all looked at, and one value that fits is enough.

use super::{CollectionError, KeyKind, PointKey};
use serde_json::{Map, Value};
use std::{cmp::Ordering, collections::BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// Filters in filters, at most.
const MAX_DEPTH: usize = 16;
/// Conditions of a filter, and values of `any`, all together at most.
const MAX_CONDITIONS: usize = 1 << 16;

/// A point passes when all of `must`, none of `must_not` and, where there are any, at least `min_should` of `should` hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// All of these.
    pub must: Vec<Condition>,
    /// So many of these, at least; 1 unless it is said.
    pub should: Vec<Condition>,
    /// How many of `should`.
    pub min_should: usize,
    /// None of these.
    pub must_not: Vec<Condition>,
}

/// What may hold of a point.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A value of the field equals one of these.
    Any(String, Values),
    /// A value of the field equals none of these.
    Except(String, Values),
    /// A number of the field lies within.
    Range(String, Range),
    /// The field has so many values.
    Count(String, Range),
    /// The field is absent, null, or an empty array.
    IsEmpty(String),
    /// The field is there, and null.
    IsNull(String),
    /// The key is one of these.
    HasKey(BTreeSet<PointKey>),
    /// Another filter.
    Filter(Box<Filter>),
}

/// Texts, numbers, true and false, of which one is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    all: Vec<Value>,
    /// Of no field; what equals one of all has one of these.
    terms: BTreeSet<Term>,
}

impl Values {
    /// Those that are texts, numbers, true or false.
    pub fn new(values: impl IntoIterator<Item = Value>) -> Values {
        let all: Vec<Value> = values.into_iter().filter(is_scalar).collect();
        let terms = all.iter().filter_map(|value| Term::of(0, value)).collect();
        Values { all, terms }
    }

    fn contains(&self, value: &Value) -> bool {
        Term::of(0, value).is_some_and(|term| self.terms.contains(&term)) && self.all.iter().any(|one| equals(one, value))
    }
}

/// Bounds; each that is there holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// More than.
    pub gt: Option<f64>,
    /// At least.
    pub gte: Option<f64>,
    /// Less than.
    pub lt: Option<f64>,
    /// At most.
    pub lte: Option<f64>,
}

impl Range {
    fn holds(&self, value: f64) -> bool {
        self.gt.is_none_or(|bound| value > bound)
            && self.gte.is_none_or(|bound| value >= bound)
            && self.lt.is_none_or(|bound| value < bound)
            && self.lte.is_none_or(|bound| value <= bound)
    }
}

/// A scalar of a field, as the store orders them: the field's hash, the kind, the value. Equal values have equal terms; unequal ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term([u8; Term::BYTES]);

impl Term {
    pub(super) const BYTES: usize = 17;
    const BOOL: u8 = 1;
    const NUMBER: u8 = 2;
    const TEXT: u8 = 3;

    fn new(field: u64, kind: u8, value: u64) -> Term {
        let mut bytes = [kind; Term::BYTES];
        bytes[..8].copy_from_slice(&field.to_be_bytes());
        bytes[9..].copy_from_slice(&value.to_be_bytes());
        Term(bytes)
    }

    fn of(field: u64, value: &Value) -> Option<Term> {
        match value {
            Value::Bool(value) => Some(Term::new(field, Term::BOOL, u64::from(*value))),
            Value::Number(number) => number.as_f64().map(|number| Term::new(field, Term::NUMBER, ordered(number))),
            Value::String(text) => Some(Term::new(field, Term::TEXT, xxh3_64(text.as_bytes()))),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bits that are ordered as the numbers are.
fn ordered(number: f64) -> u64 {
    // One zero.
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The terms of a payload, in order, each once.
pub(super) fn terms_of(payload: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    if let Ok(Value::Object(payload)) = serde_json::from_str(payload) {
        collect(&mut String::new(), true, &payload, &mut terms);
    }
    terms.sort_unstable();
    terms.dedup();
    terms
}

fn collect(path: &mut String, is_first: bool, object: &Map<String, Value>, terms: &mut Vec<Term>) {
    for (name, value) in object {
        let before = path.len();
        if !is_first {
            path.push('.');
        }
        path.push_str(name);
        collect_value(path, value, terms);
        path.truncate(before);
    }
}

fn collect_value(path: &mut String, value: &Value, terms: &mut Vec<Term>) {
    match value {
        Value::Object(object) => collect(path, false, object, terms),
        Value::Array(values) => values.iter().for_each(|value| collect_value(path, value, terms)),
        scalar => terms.extend(Term::of(xxh3_64(path.as_bytes()), scalar)),
    }
}

/// Where the store keeps the keys of some points, each of which may pass; the others do not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// Those of terms from the first to the last.
    Terms(Term, Term),
    /// These keys.
    Keys(BTreeSet<PointKey>),
}

impl Filter {
    /// Whether a point passes; `payload` is JSON text, or nothing.
    pub fn passes(&self, key: &PointKey, payload: &str) -> bool {
        let payload = if payload.is_empty() { Value::Null } else { serde_json::from_str(payload).unwrap_or_default() };
        self.holds(key, &payload)
    }

    fn holds(&self, key: &PointKey, payload: &Value) -> bool {
        let holds = |condition: &&Condition| condition.holds(key, payload);
        self.must.iter().all(|condition| holds(&condition))
            && (self.should.is_empty() || self.should.iter().filter(holds).take(self.min_should.max(1)).count() >= self.min_should.max(1))
            && !self.must_not.iter().any(|condition| holds(&condition))
    }

    /// The ways to all that may pass, each a union; where there is none, all may.
    pub(super) fn ways(&self) -> Vec<Vec<Place>> {
        let mut ways: Vec<Vec<Place>> = self.must.iter().flat_map(Condition::ways).collect();
        // Of `should` one holds at least.
        let each: Option<Vec<_>> = self.should.iter().map(|condition| condition.ways().into_iter().next()).collect();
        ways.extend(each.filter(|each| !each.is_empty()).map(|each| each.concat()));
        ways
    }

    /// Reads a filter; `kind` is that of the keys of `has_id`.
    ///
    /// # Errors
    /// What is not known or makes no sense, by its place.
    pub fn from_json(json: &Value, kind: KeyKind) -> Result<Filter, CollectionError> {
        Reader { kind, left: MAX_CONDITIONS }.filter(json, "filter", 0).map_err(|detail| CollectionError::Filter { detail })
    }
}

impl Condition {
    fn holds(&self, key: &PointKey, payload: &Value) -> bool {
        let any = |field: &str, holds: &dyn Fn(&Value) -> bool| {
            let mut found = false;
            each_value(payload, field, &mut |value| found |= holds(value));
            found
        };
        match self {
            Condition::Any(field, values) => any(field, &|value| values.contains(value)),
            Condition::Except(field, values) => any(field, &|value| is_scalar(value) && !values.contains(value)),
            Condition::Range(field, range) => any(field, &|value| value.as_f64().is_some_and(|number| range.holds(number))),
            Condition::Count(field, range) => {
                let mut count = 0;
                each_value(payload, field, &mut |value| count += u64::from(!value.is_null()));
                range.holds(count as f64)
            }
            Condition::IsEmpty(field) => !any(field, &|value| !value.is_null()),
            Condition::IsNull(field) => any(field, &Value::is_null),
            Condition::HasKey(keys) => keys.contains(key),
            Condition::Filter(filter) => filter.holds(key, payload),
        }
    }

    fn ways(&self) -> Vec<Vec<Place>> {
        match self {
            Condition::Any(field, values) => {
                let field = xxh3_64(field.as_bytes());
                let terms: Option<Vec<_>> = values.all.iter().map(|value| Term::of(field, value)).collect();
                terms.into_iter().map(|terms| terms.into_iter().map(|term| Place::Terms(term, term)).collect()).collect()
            }
            Condition::Range(field, range) => {
                let low = range.gt.into_iter().chain(range.gte).fold(f64::NEG_INFINITY, f64::max);
                let high = range.lt.into_iter().chain(range.lte).fold(f64::INFINITY, f64::min);
                let term = |number| Term::new(xxh3_64(field.as_bytes()), Term::NUMBER, ordered(number));
                vec![vec![Place::Terms(term(low), term(high))]]
            }
            Condition::HasKey(keys) => vec![vec![Place::Keys(keys.clone())]],
            Condition::Filter(filter) => filter.ways(),
            Condition::Except(..) | Condition::Count(..) | Condition::IsEmpty(_) | Condition::IsNull(_) => Vec::new(),
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_))
}

/// Whether two scalars are the same; numbers by their value, whole ones exactly.
fn equals(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.partial_cmp(&b) == Some(Ordering::Equal)),
        },
        _ => is_scalar(a) && a == b,
    }
}

/// Shows all values of a field that are no arrays, null ones too.
fn each_value(value: &Value, path: &str, each: &mut dyn FnMut(&Value)) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| each_value(value, path, each)),
        Value::Object(object) if !path.is_empty() => {
            // A name may have dots itself.
            let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
            for end in ends {
                if let Some(value) = object.get(&path[..end]) {
                    each_value(value, path.get(end + 1..).unwrap_or_default(), each);
                }
            }
        }
        scalar if path.is_empty() => each(scalar),
        _ => {}
    }
}

/// Reads filters.
struct Reader {
    kind: KeyKind,
    /// Conditions and values that may still come.
    left: usize,
}

impl Reader {
    fn filter(&mut self, json: &Value, at: &str, depth: usize) -> Result<Filter, String> {
        let Value::Object(parts) = json else { return Err(format!("{at}: an object is expected")) };
        if depth > MAX_DEPTH {
            return Err(format!("{at}: more than {MAX_DEPTH} filters in filters"));
        }
        let mut filter = Filter { min_should: 1, ..Filter::default() };
        for (name, part) in parts {
            let at = format!("{at}.{name}");
            match name.as_str() {
                "must" => filter.must = self.conditions(part, &at, depth)?,
                "should" => filter.should.extend(self.conditions(part, &at, depth)?),
                "must_not" => filter.must_not = self.conditions(part, &at, depth)?,
                "min_should" if !part.is_null() => {
                    let count =
                        part.get("min_count").and_then(Value::as_u64).ok_or_else(|| format!("{at}.min_count: a number is expected"))?;
                    let conditions = part.get("conditions").ok_or_else(|| format!("{at}.conditions is missing"))?;
                    let some = Filter {
                        should: self.conditions(conditions, &at, depth)?,
                        min_should: usize::try_from(count).unwrap_or(usize::MAX),
                        ..Filter::default()
                    };
                    // Of none, one at least: nothing passes. Of any number at least none: all do.
                    if some.should.is_empty() && count > 0 {
                        filter.must.push(Condition::HasKey(BTreeSet::new()));
                    } else if count > 0 {
                        filter.must.push(Condition::Filter(Box::new(some)));
                    }
                }
                "min_should" => {}
                _ => return Err(format!("{at}: not known; a filter has must, should, must_not, min_should")),
            }
        }
        Ok(filter)
    }

    fn conditions(&mut self, json: &Value, at: &str, depth: usize) -> Result<Vec<Condition>, String> {
        match json {
            Value::Null => Ok(Vec::new()),
            Value::Array(all) => all.iter().enumerate().map(|(i, one)| self.condition(one, &format!("{at}[{i}]"), depth)).collect(),
            one => Ok(vec![self.condition(one, at, depth)?]),
        }
    }

    fn take(&mut self, count: usize, at: &str) -> Result<(), String> {
        self.left = self.left.checked_sub(count).ok_or_else(|| format!("{at}: more than {MAX_CONDITIONS} conditions and values"))?;
        Ok(())
    }

    fn condition(&mut self, json: &Value, at: &str, depth: usize) -> Result<Condition, String> {
        self.take(1, at)?;
        let Value::Object(parts) = json else { return Err(format!("{at}: an object is expected")) };
        let field_of = |json: &Value, at: &str| {
            let field = json.get("key").and_then(Value::as_str).filter(|field| !field.is_empty());
            // Arrays are looked into with and without the mark.
            field.map(|field| field.replace("[]", "")).ok_or_else(|| format!("{at}.key: the name of a field is expected"))
        };
        if ["must", "should", "must_not", "min_should"].iter().any(|name| parts.contains_key(*name)) {
            return Ok(Condition::Filter(Box::new(self.filter(json, at, depth + 1)?)));
        }
        let only = |allowed: &[&str]| match parts.iter().find(|(name, value)| !allowed.contains(&name.as_str()) && !value.is_null()) {
            Some((name, _)) => Err(format!(
                "{at}.{name}: not known; a condition has key with match, range or values_count, or is_empty, is_null, has_id, filter"
            )),
            None => Ok(()),
        };
        if let Some(filter) = parts.get("filter") {
            only(&["filter"])?;
            return Ok(Condition::Filter(Box::new(self.filter(filter, &format!("{at}.filter"), depth + 1)?)));
        }
        if let Some(keys) = parts.get("has_id") {
            only(&["has_id"])?;
            let keys = keys.as_array().ok_or_else(|| format!("{at}.has_id: a list is expected"))?;
            self.take(keys.len(), at)?;
            let key = |key: &Value| match (key, self.kind) {
                (Value::Number(number), KeyKind::Numbers) => number.as_u64().map(PointKey::Number),
                (Value::String(text), KeyKind::Strings) => self.kind.parse(text).ok(),
                // A text that is a number may be written as one.
                (Value::Number(number), KeyKind::Strings) => number.as_u64().and_then(|number| self.kind.parse(&number.to_string()).ok()),
                _ => None,
            };
            let keys: Option<BTreeSet<_>> = keys.iter().map(key).collect();
            return keys.map(Condition::HasKey).ok_or_else(|| format!("{at}.has_id: keys of this collection are {}", self.kind.name()));
        }
        for (name, condition) in [("is_empty", Condition::IsEmpty as fn(String) -> Condition), ("is_null", Condition::IsNull)] {
            if let Some(of) = parts.get(name) {
                only(&[name])?;
                if let Some(more) = of.as_object().and_then(|of| of.keys().find(|part| *part != "key")) {
                    return Err(format!("{at}.{name}.{more}: not known; it has a key and nothing else"));
                }
                return Ok(condition(field_of(of, &format!("{at}.{name}"))?));
            }
        }
        let field = field_of(json, at)?;
        let given = |name: &str| parts.get(name).filter(|value| !value.is_null());
        only(&["key", "match", "range", "values_count"])?;
        match (given("match"), given("range"), given("values_count")) {
            (Some(wanted), None, None) => self.matches(field, wanted, &format!("{at}.match")),
            (None, Some(range), None) => Ok(Condition::Range(field, bounds(range, &format!("{at}.range"))?)),
            (None, None, Some(range)) => Ok(Condition::Count(field, bounds(range, &format!("{at}.values_count"))?)),
            _ => Err(format!("{at}: one of match, range and values_count is expected")),
        }
    }

    fn matches(&mut self, field: String, wanted: &Value, at: &str) -> Result<Condition, String> {
        let parts = wanted.as_object().ok_or_else(|| format!("{at}: an object is expected"))?;
        let mut list = |values: &Value, name: &str| {
            let values = values.as_array().filter(|values| values.iter().all(is_scalar));
            let values = values.ok_or_else(|| format!("{at}.{name}: a list of texts, numbers, true and false is expected"))?;
            self.take(values.len(), at)?;
            Ok::<_, String>(Values::new(values.iter().cloned()))
        };
        match parts.iter().next().filter(|_| parts.len() == 1).map(|(name, value)| (name.as_str(), value)) {
            Some(("value", value)) if is_scalar(value) => Ok(Condition::Any(field, Values::new([value.clone()]))),
            Some(("value", _)) => Err(format!("{at}.value: a text, a number, true or false is expected")),
            Some(("any", values)) => Ok(Condition::Any(field, list(values, "any")?)),
            Some(("except", values)) => Ok(Condition::Except(field, list(values, "except")?)),
            _ => Err(format!("{at}: one of value, any and except is expected (text search is not there)")),
        }
    }
}

fn bounds(json: &Value, at: &str) -> Result<Range, String> {
    let parts = json.as_object().ok_or_else(|| format!("{at}: an object is expected"))?;
    let mut range = Range::default();
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_null()) {
        let bound = match name.as_str() {
            "gt" => &mut range.gt,
            "gte" => &mut range.gte,
            "lt" => &mut range.lt,
            "lte" => &mut range.lte,
            _ => return Err(format!("{at}.{name}: not known; bounds are gt, gte, lt, lte")),
        };
        *bound = Some(value.as_f64().ok_or_else(|| format!("{at}.{name}: a number is expected"))?);
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Result<Filter, String> {
        Filter::from_json(&json, KeyKind::Numbers).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_hold_as_qdrant_has_it() {
        let payload = json!({
            "city": "London", "n": 3, "price": 2.5, "open": true, "tags": ["a", "b"], "none": null, "no_tags": [],
            "country": {"name": "UK", "cities": [{"name": "Leeds", "people": 1}, {"name": "York", "people": 2}]}, "a.b": 7,
            "big": 9_007_199_254_740_993u64,
        })
        .to_string();
        let passes = |filter: Value| read(filter).unwrap().passes(&PointKey::Number(5), &payload);
        for (holds, condition) in [
            (true, json!({"key": "city", "match": {"value": "London"}})),
            (false, json!({"key": "city", "match": {"value": "london"}})),
            (true, json!({"key": "n", "match": {"value": 3}})),
            (true, json!({"key": "n", "match": {"value": 3.0}})),
            (false, json!({"key": "n", "match": {"value": "3"}})),
            (true, json!({"key": "open", "match": {"value": true}})),
            (true, json!({"key": "tags", "match": {"value": "b"}})),
            (true, json!({"key": "tags[]", "match": {"any": ["x", "a"]}})),
            (false, json!({"key": "tags", "match": {"any": []}})),
            (true, json!({"key": "tags", "match": {"except": ["a"]}})),
            (false, json!({"key": "tags", "match": {"except": ["a", "b"]}})),
            (false, json!({"key": "absent", "match": {"except": ["a"]}})),
            (true, json!({"key": "price", "range": {"gt": 2, "lte": 2.5}})),
            (false, json!({"key": "price", "range": {"gt": 2.5, "lt": null}})),
            (false, json!({"key": "city", "range": {"gt": 0}})),
            (true, json!({"key": "country.cities[].people", "range": {"gte": 2}})),
            (true, json!({"key": "country.cities.name", "match": {"value": "York"}})),
            (true, json!({"key": "a.b", "match": {"value": 7}})),
            (true, json!({"key": "big", "match": {"value": 9_007_199_254_740_993u64}})),
            (false, json!({"key": "big", "match": {"value": 9_007_199_254_740_992u64}})),
            (true, json!({"is_empty": {"key": "absent"}})),
            (false, json!({"is_empty": {"key": "country"}})),
            (false, json!({"is_empty": {"key": "country.cities"}})),
            (true, json!({"key": "country.cities", "values_count": {"gt": 1, "lt": 3}})),
            (true, json!({"is_empty": {"key": "no_tags"}})),
            (true, json!({"is_empty": {"key": "none"}})),
            (false, json!({"is_empty": {"key": "tags"}})),
            (true, json!({"is_null": {"key": "none"}})),
            (false, json!({"is_null": {"key": "absent"}})),
            (true, json!({"key": "tags", "values_count": {"gte": 2}})),
            (true, json!({"has_id": [4, 5]})),
            (false, json!({"has_id": []})),
            (true, json!({"should": [{"has_id": [4]}, {"key": "n", "match": {"value": 3}}]})),
            (true, json!({"filter": {"must_not": {"has_id": [4]}}})),
            (true, json!({"min_should": {"conditions": [{"has_id": [5]}, {"has_id": [4]}, {"is_null": {"key": "none"}}], "min_count": 2}})),
            (false, json!({"min_should": {"conditions": [{"has_id": [5]}, {"has_id": [4]}], "min_count": 2}})),
        ] {
            assert_eq!(passes(json!({"must": [condition]})), holds, "must {condition}");
            assert_eq!(passes(json!({"should": condition})), holds, "should {condition}");
            assert_eq!(passes(json!({"must_not": condition})), !holds, "must_not {condition}");
        }
        assert!(passes(json!({})) && passes(json!({"must": null})));
        assert!(read(json!({"must_not": {"has_id": [1]}})).unwrap().passes(&PointKey::Number(5), ""));
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_place() {
        let deep = (0..20).fold(json!({"has_id": [1]}), |inner, _| json!({"must": [inner]}));
        for (filter, said) in [
            (json!([]), "filter: an object"),
            (json!({"most": []}), "filter.most: not known"),
            (json!({"must": [{"key": "a"}]}), "filter.must[0]: one of match"),
            (json!({"must": [{"key": "a", "match": {"text": "x"}}]}), "filter.must[0].match: one of value"),
            (json!({"must": [{"key": "a", "match": {"value": [1]}}]}), "match.value: a text"),
            (json!({"must": [{"key": "a", "match": {"any": [null]}}]}), "match.any: a list"),
            (json!({"must": [{"key": "", "range": {}}]}), "must[0].key: the name"),
            (json!({"must": [{"key": "a", "range": {"above": 1}}]}), "range.above: not known"),
            (json!({"must": [{"key": "a", "range": {"gt": "1"}}]}), "range.gt: a number"),
            (json!({"must": [{"key": "a", "geo_radius": {}}]}), "must[0].geo_radius: not known"),
            (json!({"should": {"has_id": ["x"]}}), "should.has_id: keys of this collection are numbers"),
            (json!({"must": [{"key": "a", "range": {}, "match": {"value": 1}}]}), "must[0]: one of match"),
            (json!({"should": {"is_null": {"key": "a", "more": 1}}}), "should.is_null.more: not known"),
            (json!({"min_should": {"conditions": []}}), "min_should.min_count"),
            (deep, "filters in filters"),
            (json!({"must": {"key": "a", "match": {"any": vec![1; MAX_CONDITIONS + 1]}}}), "conditions and values"),
        ] {
            let error = read(filter).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn terms_lead_to_all_that_may_pass() {
        let payload = json!({"n": [3, -1.5], "c": {"d": "x"}, "t": true, "nothing": null}).to_string();
        let terms = terms_of(&payload);
        assert_eq!(terms.len(), 4);
        let reaches = |condition: Value| {
            let filter = read(json!({"must": condition})).unwrap();
            let ways = filter.ways();
            let hit = |place: &Place| matches!(place, Place::Terms(from, to) if terms.iter().any(|term| from <= term && term <= to));
            assert_eq!(ways.len(), 1);
            ways[0].iter().any(hit)
        };
        assert!(reaches(json!({"key": "n", "match": {"value": 3}})) && !reaches(json!({"key": "n", "match": {"value": 2}})));
        assert!(reaches(json!({"key": "n", "range": {"lt": -1}})) && !reaches(json!({"key": "n", "range": {"gt": 3.5}})));
        assert!(reaches(json!({"key": "n", "range": {"gt": -2, "lt": 0}})) && reaches(json!({"key": "n", "range": {}})));
        assert!(reaches(json!({"key": "c.d", "match": {"any": ["y", "x"]}})) && !reaches(json!({"key": "c.d", "match": {"any": []}})));
        assert!(ordered(0.0) == ordered(-0.0) && ordered(-1.0) < ordered(-0.5) && ordered(f64::NEG_INFINITY) < ordered(f64::MIN));
        let all = read(json!({"must_not": [{"has_id": [1]}], "should": [{"is_null": {"key": "a"}}, {"has_id": [1]}]})).unwrap();
        assert!(all.ways().is_empty());
    }
}
