//! What bodies are made of: types that say what is allowed, from which `openapi.rs` draws the schemas. A field that nobody knows, or one that comes
//! twice, is refused by its place.

use crate::reply::Refusal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use std::{borrow::Cow, fmt, marker::PhantomData};

/// Bytes of a filter or a payload.
const LONGEST: usize = 1 << 20;

/// What `serde_json` says of a number that its type does not hold.
const TOO_LARGE: &str = "number out of range";

/// Reads a body; none at all is an empty object.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    // A list would be taken for an object's fields in their order.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
        return Err(Refusal::bad("bad_input", "an object is expected, not a list"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // Once more, and slower: where was it?
        let mut again = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, T>(&mut again) {
            Err(at) if error.is_data() => misfit(&at),
            Err(at) if error.to_string().starts_with(TOO_LARGE) => {
                let field = at.path().to_string();
                Refusal::bad("non_finite", format!("{field}: a number that is out of range")).field(field)
            }
            _ => Refusal::bad("malformed_json", format!("no JSON: {error}")),
        }
    })
}

/// Reads a part of a body that has been read.
pub(crate) fn read_part<T: DeserializeOwned>(part: Value, at: &str) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(part).map_err(|error| misfit(&error).within(at))
}

fn misfit<E: fmt::Display>(error: &serde_path_to_error::Error<E>) -> Refusal {
    let (path, text) = (error.path().to_string(), error.inner().to_string());
    // The place in the text says less than the path.
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    if path == "." { Refusal::bad("bad_input", text) } else { Refusal::bad("bad_input", format!("{path}: {text}")).field(path) }
}

/// The id of a point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Id {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Of;
        impl Visitor<'_> for Of {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number or a text")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Id, E> {
                Ok(Id::Number(number))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::Text(text.to_string()))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Id::Number(number) => serializer.serialize_u64(*number),
            Id::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "A whole number or a text, UUIDs among them.", "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": u64::MAX}, {"type": "string", "minLength": 1, "maxLength": 512},
        ]})
    }
}

/// A vector: the one without a name, which clients may name "".
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VectorBody {
    Dense(Vec<f32>),
    /// With a name, sparse, or none.
    Other,
}

impl VectorBody {
    pub(crate) fn dense(self) -> Result<Vec<f32>, Refusal> {
        match self {
            VectorBody::Dense(vector) => Ok(vector),
            VectorBody::Other => Err(Refusal::not_there("what has a name, is sparse, or is not one vector")),
        }
    }
}

fn numbers<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<f32>, A::Error> {
    let mut all = Vec::with_capacity(seq.size_hint().unwrap_or(128));
    while let Some(number) = seq.next_element()? {
        all.push(number);
    }
    Ok(all)
}

impl<'de> Deserialize<'de> for VectorBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<VectorBody, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = VectorBody;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<VectorBody, A::Error> {
                numbers(seq).map(VectorBody::Dense)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VectorBody, A::Error> {
                let (mut dense, mut other) = (None, false);
                while let Some(name) = map.next_key::<Cow<str>>()? {
                    match &*name {
                        "" | "vector" if dense.is_none() => dense = Some(map.next_value()?),
                        "name" => other |= !map.next_value::<Cow<str>>()?.is_empty(),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            other = true;
                        }
                    }
                }
                Ok(dense.filter(|_| !other).map_or(VectorBody::Other, VectorBody::Dense))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

impl JsonSchema for VectorBody {
    fn schema_name() -> Cow<'static, str> {
        "Vector".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "As many numbers as the collection has dimensions.", "type": "array", "items": {"type": "number"},
            "minItems": 1, "maxItems": roxanne_core::id::MAX_DIM})
    }
}

/// Maximal marginal relevance.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mmr {
    /// From 0, the nearest, to 1, the farthest from each other; 0.5 unless said.
    #[serde(default, deserialize_with = "share")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) diversity: Option<f64>,
    /// Hits of which to choose; as many as are wanted unless said.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) candidates_limit: Option<usize>,
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let share = Option::<f64>::deserialize(deserializer)?;
    if share.is_none_or(|share| (0.0..=1.0).contains(&share)) { Ok(share) } else { Err(D::Error::custom("it is 0 to 1")) }
}

/// What `points/query` asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum QueryBody {
    Vector(VectorBody),
    /// What is near to a point that is there.
    Id(Id),
    /// What is near and not all alike.
    Mmr(Box<QueryBody>, Mmr),
    /// Recommendation, fusion, and the like.
    Other,
}

impl<'de> Deserialize<'de> for QueryBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<QueryBody, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = QueryBody;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of numbers, an id, or an object with nearest")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<QueryBody, E> {
                Ok(QueryBody::Id(Id::Number(number)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<QueryBody, E> {
                Ok(QueryBody::Id(Id::Text(text.to_string())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<QueryBody, A::Error> {
                numbers(seq).map(|vector| QueryBody::Vector(VectorBody::Dense(vector)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<QueryBody, A::Error> {
                let (mut query, mut mmr, mut other) = (None, None, false);
                while let Some(name) = map.next_key::<Cow<str>>()? {
                    match &*name {
                        "nearest" if query.is_none() => query = Some(map.next_value()?),
                        "" | "vector" if query.is_none() => query = Some(QueryBody::Vector(VectorBody::Dense(map.next_value()?))),
                        "mmr" => mmr = map.next_value::<Option<Mmr>>()?,
                        "name" => other |= !map.next_value::<Cow<str>>()?.is_empty(),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            other = true;
                        }
                    }
                }
                Ok(match (query.filter(|_| !other), mmr) {
                    (None, _) => QueryBody::Other,
                    (Some(query), None) => query,
                    (Some(query), Some(mmr)) => QueryBody::Mmr(Box::new(query), mmr),
                })
            }
        }
        deserializer.deserialize_any(Of)
    }
}

impl JsonSchema for QueryBody {
    fn schema_name() -> Cow<'static, str> {
        "Query".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (vector, id) = (generator.subschema_for::<VectorBody>(), generator.subschema_for::<Id>());
        let mmr = generator.subschema_for::<Mmr>();
        json_schema!({"anyOf": [vector, id, {
            "type": "object", "properties": {"nearest": {"anyOf": [vector, id]}, "mmr": {"anyOf": [mmr, {"type": "null"}]}}, "required": ["nearest"], "additionalProperties": false,
        }]})
    }
}

/// A list that is not too long: what is read takes many times its text.
#[derive(Debug, Default)]
pub(crate) struct Few<T>(pub(crate) Vec<T>);

/// Entries of one.
const MOST_ENTRIES: usize = 200_000;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Few<T>, D::Error> {
        struct Of<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Of<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    if all.len() == MOST_ENTRIES {
                        return Err(A::Error::custom(format_args!("more than {MOST_ENTRIES} entries")));
                    }
                    all.push(one);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Of(PhantomData)).map(Few)
    }
}

impl<T: JsonSchema> JsonSchema for Few<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Few{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({"type": "array", "items": items, "maxItems": MOST_ENTRIES})
    }
}

/// A field of Qdrant's that means nothing here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Ignored(#[allow(dead_code)] IgnoredAny);

impl JsonSchema for Ignored {
    fn schema_name() -> Cow<'static, str> {
        "Ignored".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Taken from clients of Qdrant; it means nothing here."})
    }
}

/// A field of Qdrant's for what is not there; whether it asks for something.
#[derive(Debug, Default)]
pub(crate) struct Lacking(bool);

impl Lacking {
    pub(crate) fn none_of(fields: &[(&str, &Lacking)]) -> Result<(), Refusal> {
        let asked = fields.iter().find(|(_, field)| field.0);
        asked.map_or(Ok(()), |(name, _)| Err(Refusal::not_there(name).field(*name)))
    }
}

impl<'de> Deserialize<'de> for Lacking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lacking, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let text: String = text.get().chars().filter(|c| !c.is_whitespace()).take(5).collect();
        Ok(Lacking(!matches!(&*text, "null" | "[]" | "{}" | "\"\"")))
    }
}

impl JsonSchema for Lacking {
    fn schema_name() -> Cow<'static, str> {
        "Lacking".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Qdrant's; what it asks for is not there, and all but nothing is answered by 501.", "anyOf": [
            {"type": "null"}, {"type": "string", "maxLength": 0}, {"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0},
        ]})
    }
}

/// JSON in which no name comes twice within an object.
pub(crate) struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut all = Vec::new();
                while let Some(Unique(value)) = seq.next_element()? {
                    all.push(value);
                }
                Ok(all.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut all = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    let Unique(value) = map.next_value()?;
                    if all.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    all.insert(name, value);
                }
                Ok(all.into())
            }
        }
        deserializer.deserialize_any(Of).map(Unique)
    }
}

/// Reads JSON that stays JSON, such as a filter or a payload; null is none. What is read takes many times its text, so the text is bounded first.
pub(crate) fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    if text.get().len() > LONGEST {
        return Err(D::Error::custom(format_args!("{} bytes; at most {LONGEST}", text.get().len())));
    }
    let Unique(value) = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// The same of an object, such as a payload.
pub(crate) fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    match json(deserializer)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(D::Error::custom("an object is expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        points: Vec<Point>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Point {
        #[allow(dead_code)]
        vector: VectorBody,
        #[serde(default, deserialize_with = "object")]
        #[allow(dead_code)]
        payload: Option<Map<String, Value>>,
    }

    #[track_caller]
    fn refused(body: &str, said: &str) {
        let refusal = read::<Body>(body.as_bytes()).unwrap_err();
        assert!(refusal.detail.contains(said), "{body}: {}", refusal.detail);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_place() {
        refused(r#"{"points": [{"vector": [1, "a"]}]}"#, "points[0].vector[1]: invalid type: string");
        refused(r#"{"points": [{"vector": [1], "payload": {"a": {"b": 1, "b": 2}}}]}"#, "points[0].payload: duplicate field `b`");
        refused(r#"{"points": [{"vector": [1], "payload": 7}]}"#, "points[0].payload: an object is expected");
        refused(r#"{"points": [], "more": 1}"#, "unknown field `more`");
        refused(r#"{"points": [], "points": []}"#, "duplicate field `points`");
        refused(r#"{"points": [}"#, "no JSON");
        refused(r#"{"points": [{"vector": [1, 1e252]}]}"#, "points[0].vector[1]: a number that is out of range");
        refused("", "missing field `points`");
        refused("[[]]", "an object is expected");
    }

    #[test]
    fn a_vector_may_be_wrapped_and_a_query_too() {
        let dense = |text: &str| serde_json::from_str::<VectorBody>(text).unwrap().dense().ok();
        assert_eq!(dense("[1, 2.5]"), Some(vec![1.0, 2.5]));
        assert_eq!(dense(r#"{"": [1]}"#), Some(vec![1.0]));
        assert_eq!(dense(r#"{"name": "", "vector": [1]}"#), Some(vec![1.0]));
        assert_eq!(dense(r#"{"name": "a", "vector": [1]}"#), None);
        assert_eq!(dense(r#"{"indices": [1], "values": [1]}"#), None);
        let query = |text: &str| serde_json::from_str::<QueryBody>(text).unwrap();
        assert_eq!(query("[1]"), query(r#"{"nearest": [1], "mmr": null}"#));
        assert_eq!(query("7"), QueryBody::Id(Id::Number(7)));
        assert_eq!(query(r#"{"nearest": "a"}"#), QueryBody::Id(Id::Text("a".into())));
        assert_eq!(query(r#"{"recommend": {"positive": [1]}}"#), QueryBody::Other);
        let mmr = Mmr { diversity: Some(1.0), candidates_limit: None };
        assert_eq!(query(r#"{"nearest": [1], "mmr": {"diversity": 1}}"#), QueryBody::Mmr(Box::new(query("[1]")), mmr));
        assert!(serde_json::from_str::<QueryBody>(r#"{"nearest": [1], "mmr": {"diversity": 2}}"#).is_err());
    }
}
