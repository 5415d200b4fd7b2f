//! The description of all routes, drawn from the routes themselves and from the types of their bodies.

use crate::{
    reply::{Envelope, ErrorBody},
    route::{Gives, Route, Takes},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema, transform::ReplaceBoolSchemas};
use serde_json::{Map, Value, json};

/// The schema of filters; `roxanne_engine::collection::Filter` reads them, and says by its place what it does not know.
pub(crate) fn filter(generator: &mut SchemaGenerator) -> Schema {
    let filter = generator.subschema_for::<FilterSchema>();
    json_schema!({"anyOf": [filter, {"type": "null"}]})
}

struct FilterSchema;

impl JsonSchema for FilterSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Filter".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let conditions = generator.subschema_for::<Conditions>();
        json_schema!({
            "description": "All of must, one of should (or min_should), none of must_not.",
            "type": "object", "additionalProperties": false,
            "properties": {
                "must": conditions, "should": conditions, "must_not": conditions,
                "min_should": {"type": ["object", "null"], "additionalProperties": false, "required": ["conditions", "min_count"],
                    "properties": {"conditions": conditions, "min_count": {"type": "integer", "minimum": 0}}},
            },
        })
    }
}

struct Conditions;

impl JsonSchema for Conditions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Conditions".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let condition = generator.subschema_for::<Condition>();
        json_schema!({"anyOf": [{"type": "array", "items": condition, "maxItems": 100}, condition, {"type": "null"}]})
    }
}

struct Condition;

impl JsonSchema for Condition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Condition".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (filter, id) = (generator.subschema_for::<FilterSchema>(), generator.subschema_for::<crate::body::Id>());
        let scalar = json!({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]});
        let scalars = json!({"type": "array", "items": scalar});
        let number = json!({"type": ["number", "null"]});
        let numbers = json!({"type": "object", "additionalProperties": false,
            "properties": {"gt": number, "gte": number, "lt": number, "lte": number}});
        let key = json!({"type": "string", "minLength": 1});
        let field = |name: &str, of: Value| json!({"type": "object", "additionalProperties": false, "required": ["key", name], "properties": {"key": key, name: of}});
        let of_key = |name: &str| {
            let of = json!({"type": "object", "additionalProperties": false, "required": ["key"], "properties": {"key": key}});
            json!({"type": "object", "additionalProperties": false, "required": [name], "properties": {name: of}})
        };
        let one =
            |name: &str, of: &Value| json!({"type": "object", "additionalProperties": false, "required": [name], "properties": {name: of}});
        let matches = json!({"anyOf": [one("value", &scalar), one("any", &scalars), one("except", &scalars)]});
        json_schema!({"anyOf": [
            field("match", matches), field("range", numbers.clone()), field("values_count", numbers),
            of_key("is_empty"), of_key("is_null"), one("has_id", &json!({"type": "array", "items": id})), filter,
        ]})
    }
}

/// The document, for clients and tools: OpenAPI 3.1.
pub(crate) fn document(routes: &[Route], version: &str) -> Value {
    // Tools stumble over `true` where a schema is expected.
    let mut objects = ReplaceBoolSchemas::default();
    objects.skip_additional_properties = true;
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let settings = settings.with_transform(objects);
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {"title": "roxanne", "version": version, "license": {"name": "MIT OR Apache-2.0"},
            "description": "Vector search on flash: a part of Qdrant's dialect, and /v1 for what it has not."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": {"description": "Why not.", "content": {"application/json": {"schema": error}}}},
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "api-key"}, "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"key": []}, {"bearer": []}],
    })
}

/// Why any request may fail.
const FAILURES: [u16; 15] = [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 501, 503, 504];

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let in_path = route.names().map(|name| {
        let schema = match name {
            "collection" | "snapshot" => json!({"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", "maxLength": 200}),
            "job" => json!({"type": "integer", "minimum": 1, "maximum": u64::MAX}),
            "id" => json!({"type": "string", "minLength": 1, "maxLength": 512}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = route.parameters.iter().map(|parameter| {
        json!({"name": parameter.name, "in": "query", "description": parameter.about, "schema": {
            "type": "integer", "minimum": parameter.least, "maximum": parameter.most}})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let content = match &route.gives {
        Gives::Json(schema) => {
            let result = schema(generator);
            // What is around every result.
            let mut envelope = <Envelope<Value> as JsonSchema>::json_schema(generator).to_value();
            envelope["properties"]["result"] = if result.as_bool() == Some(true) { json!({}) } else { result.to_value() };
            json!({"application/json": {"schema": envelope}})
        }
        Gives::Bare(kind) => json!({*kind: {}}),
    };
    let mut responses = Map::new();
    responses.insert(route.status.as_u16().to_string(), json!({"description": "Done.", "content": content}));
    let failures = FAILURES.iter().chain(&[507]).map(|status| (status.to_string(), json!({"$ref": "#/components/responses/Error"})));
    responses.extend(failures);
    let mut operation = json!({
        "operationId": route.name, "summary": route.about, "tags": [route.tag()], "parameters": parameters, "responses": responses,
    });
    match &route.takes {
        Takes::Nothing => {}
        Takes::Json(schema, may_lack) => {
            let schema = schema(generator);
            operation["requestBody"] = json!({"required": !may_lack, "content": {"application/json": {"schema": schema}}});
        }
        Takes::Rows => {
            let about = "Rows of little-endian 32-bit floats.";
            operation["requestBody"] = json!({"required": true, "description": about, "content": {"application/octet-stream": {}}});
        }
    }
    match route.role {
        Some(role) => operation["description"] = json!(format!("Takes a key of the role {}.", role.name())),
        None => operation["security"] = json!([]),
    }
    operation
}
