//! The schemas of the documents: k8s-openapi's, with the marks that clients look for: group, version and kind, how lists merge.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::registry::{self, RESOURCES};
use crate::schema::{self, merge};

const V3_REF: &str = "#/components/schemas/";
const V2_REF: &str = "#/definitions/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Schemas of every type, and of lists of the stored kinds.
pub(super) fn all() -> Map<String, Value> {
    let mut all = schema::definitions();
    for (name, schema) in &mut all {
        add_merge_marks(name, schema);
    }
    set(&mut all, "io.k8s.apimachinery.pkg.util.intstr.IntOrString", |schema| {
        schema.remove("x-kubernetes-int-or-string");
        schema.insert("format".into(), "int-or-string".into());
        schema.insert("oneOf".into(), json!([{ "type": "integer" }, { "type": "string" }]));
    });
    set(&mut all, "io.k8s.apimachinery.pkg.api.resource.Quantity", |schema| {
        schema.remove("x-kubernetes-int-or-string");
        schema.insert("oneOf".into(), json!([{ "type": "string" }, { "type": "number" }]));
    });
    for row in RESOURCES {
        add_kind(&mut all, row.type_name, row.group, row.version, row.kind);
        for sub in row.subresources {
            add_kind(&mut all, sub.type_name, sub.group, sub.version, sub.kind);
        }
        if row.is_stored() {
            let (name, schema) = list(row);
            all.insert(name, schema);
        }
    }
    add_kind(&mut all, &format!("{META}.Status"), "", "v1", "Status");
    for (group, version) in registry::group_versions() {
        add_kind(&mut all, &format!("{META}.DeleteOptions"), group, version, "DeleteOptions");
        add_kind(&mut all, &format!("{META}.WatchEvent"), group, version, "WatchEvent");
    }
    all
}

/// The same schemas in the form of the v2 document.
pub(super) fn v2() -> Map<String, Value> {
    all().into_iter().map(|(name, schema)| (name, v2_form(schema))).collect()
}

/// The schemas that `from` refers to, directly or through others.
pub(super) fn reached(from: &Value, all: &Map<String, Value>) -> Map<String, Value> {
    let mut names = BTreeSet::new();
    let mut open = references(from);
    while let Some(name) = open.pop() {
        if let Some(schema) = all.get(&name)
            && names.insert(name)
        {
            open.extend(references(schema));
        }
    }
    names.into_iter().filter_map(|name| all.get(&name).map(|schema| (name.clone(), schema.clone()))).collect()
}

/// A reference to a type, as the v3 documents write it.
pub(super) fn reference(type_name: &str) -> Value {
    json!({ "$ref": format!("{V3_REF}{type_name}") })
}

/// The name of the list type that goes with a type.
pub(super) fn list_name(row: &crate::Resource) -> String {
    format!("{}List", row.type_name)
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix(V3_REF))
                .map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn set(all: &mut Map<String, Value>, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(schema) = all.get_mut(name).and_then(Value::as_object_mut) {
        change(schema);
    }
}

fn add_merge_marks(type_name: &str, schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, property) in properties {
        if let Some(property) = property.as_object_mut() {
            property.extend(
                merge::extensions(type_name, field).into_iter().map(|(name, value)| (name.to_owned(), value)),
            );
        }
    }
}

fn add_kind(all: &mut Map<String, Value>, type_name: &str, group: &str, version: &str, kind: &str) {
    let entry = json!({ "group": group, "kind": kind, "version": version });
    set(all, type_name, |schema| {
        let kinds = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
        if let Some(kinds) = kinds.as_array_mut().filter(|kinds| !kinds.contains(&entry)) {
            kinds.push(entry);
        }
    });
}

fn list(row: &crate::Resource) -> (String, Value) {
    let text = |description: &str| json!({ "description": description, "type": "string" });
    let schema = json!({
        "description": format!("{} is a list of {}.", row.list_kind, row.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("The versioned schema of this representation of an object."),
            "items": { "description": format!("The {}.", row.plural), "type": "array", "items": reference(row.type_name) },
            "kind": text("The REST resource that this object represents."),
            "metadata": { "description": "Standard list metadata.", "allOf": [reference(&format!("{META}.ListMeta"))] },
        },
        "x-kubernetes-group-version-kind": [{ "group": row.group, "kind": row.list_kind, "version": row.version }],
    });
    (list_name(row), schema)
}

/// v2 has other references, no `allOf` around them, and no `oneOf`.
fn v2_form(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(Value::Array(mut wrapped)) = map.remove("allOf")
                && let Some(Value::Object(inner)) = wrapped.pop()
            {
                map.extend(inner);
            }
            if map.remove("oneOf").is_some() {
                map.insert("type".into(), "string".into());
            }
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace(V3_REF, V2_REF);
            }
            map.into_iter().map(|(key, value)| (key, v2_form(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(v2_form).collect(),
        other => other,
    }
}
