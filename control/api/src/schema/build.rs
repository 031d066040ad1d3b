//! From JSON schemas to compact tables.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Field, Shape, Tables, Type, TypeId, go, merge};

const REF_PREFIX: &str = "#/components/schemas/";

/// Types that are no objects, whatever their schemas say.
const SCALARS: [(&str, Shape); 6] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", Shape::Quantity),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", Shape::Any),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", Shape::MicroTime),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", Shape::Time),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", Shape::Any),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", Shape::IntOrString),
];

/// Tables of all `definitions` that are objects with fields.
pub(super) fn tables(definitions: Map<String, Value>) -> Tables {
    let mut names: Vec<&String> =
        definitions.iter().filter(|(name, _)| scalar(name).is_none()).map(|(name, _)| name).collect();
    names.sort();
    let by_name: HashMap<String, TypeId> =
        names.iter().enumerate().map(|(i, name)| ((*name).clone(), TypeId(i as u32))).collect();
    let types = names.iter().map(|name| type_of(name, &definitions[*name], &by_name)).collect();
    Tables { types, by_name }
}

fn scalar(name: &str) -> Option<Shape> {
    SCALARS.iter().find(|(n, _)| *n == name).map(|(_, shape)| shape.clone())
}

fn type_of(name: &str, schema: &Value, by_name: &HashMap<String, TypeId>) -> Type {
    let required: HashSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields: Vec<Field> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(field, schema)| {
            let (omit_zero, go_name) = go::of(name, field);
            Field {
                name: field.clone(),
                shape: shape(schema, by_name),
                required: required.contains(field.as_str()),
                merge: merge::of(name, field),
                omit_zero,
                go_name,
            }
        })
        .collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Type { name: name.to_owned(), fields }
}

fn shape(schema: &Value, by_name: &HashMap<String, TypeId>) -> Shape {
    // A reference with a description beside it is wrapped in `allOf`, as upstream's documents have it.
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"));
    if let Some(target) = reference.and_then(Value::as_str) {
        let name = target.strip_prefix(REF_PREFIX).unwrap_or(target);
        return scalar(name).or_else(|| by_name.get(name).map(|id| Shape::Struct(*id))).unwrap_or(Shape::Any);
    }
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("format")) {
        ("string", "byte") => Shape::Bytes,
        ("string", _) => Shape::String,
        ("boolean", _) => Shape::Boolean,
        ("integer", "int32") => Shape::Int32,
        ("integer", _) => Shape::Int64,
        ("number", _) => Shape::Number,
        ("array", _) => {
            Shape::List(Box::new(schema.get("items").map_or(Shape::Any, |items| shape(items, by_name))))
        }
        ("object", _) => match schema.get("additionalProperties") {
            Some(values) => Shape::Map(Box::new(shape(values, by_name))),
            None => Shape::Any,
        },
        _ => Shape::Any,
    }
}
