//! A stored object: wire bytes and the compact index that selectors, admission and watches read instead of them.
//!
//! The index is made once a revision; nothing here knows a kind but through its registry row.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::registry::{RESOURCES, Resource};
use serde_json::{Map, Value};

/// One object at one revision: key, revisions, body (JSON with `metadata.resourceVersion`), index.
pub type Object = store::Entry<Meta>;

/// What is known of an object without parsing its body.
#[derive(Debug, Default)]
pub struct Meta {
    /// Empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Labels.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Uids of the owners.
    pub owners: Box<[Box<str>]>,
    /// Field-selector values of the kind, without name and namespace.
    pub fields: Box<[(&'static str, Box<str>)]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl Meta {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(it, _)| &**it == key).map(|(_, value)| &**value)
    }

    /// The value of a selectable field; name and namespace are fields of every kind.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(it, _)| *it == name).map(|(_, value)| &**value),
        }
    }
}

impl store::Index for Meta {
    fn of(key: &str, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(metadata) = value.get("metadata").and_then(Value::as_object) else { return Self::default() };
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().into();
        let labels = metadata.get("labels").and_then(Value::as_object).into_iter().flatten();
        let owners = metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
        let fields = resource_of_key(key).map(|it| it.strategy.selectable_fields(&value)).unwrap_or_default();
        Self {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            labels: labels
                .filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
                .collect(),
            owners: owners.filter_map(|it| Some(it.get("uid")?.as_str()?.into())).collect(),
            fields: fields.into_iter().map(|(field, value)| (field, value.into_boxed_str())).collect(),
            deleting: metadata.get("deletionTimestamp").is_some_and(|it| !it.is_null()),
        }
    }

    fn fields(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (field, value) in &self.fields {
            visit(field, value);
        }
    }
}

/// Parses an object's body.
pub trait ToValue {
    /// The body as a JSON tree; null if etcd holds something else than JSON under the key.
    fn value(&self) -> Value;
}

impl ToValue for Object {
    fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The prefixes of all stored resources, as the store keeps collections: each once.
#[must_use]
pub fn prefixes() -> Vec<String> {
    BY_PREFIX.keys().map(|it| format!("{it}/")).collect()
}

/// Two resources may share a prefix; the first in the registry is the form in which objects are stored.
static BY_PREFIX: LazyLock<HashMap<&'static str, &'static Resource>> = LazyLock::new(|| {
    let mut rows = HashMap::new();
    for row in RESOURCES.iter().filter(|it| it.is_stored()) {
        rows.entry(row.storage_prefix).or_insert(row);
    }
    rows
});

/// The resource whose form the objects of `resource` are stored in: another one for a second version of the same objects.
#[must_use]
pub fn stored_as(resource: &'static Resource) -> &'static Resource {
    BY_PREFIX.get(resource.storage_prefix).copied().unwrap_or(resource)
}

/// A stored object as `resource` shows it: the one kind with two versions is converted.
#[must_use]
pub fn shown_as(resource: &'static Resource, stored: Value) -> Value {
    if stored_as(resource) == resource { stored } else { api::kinds::event::to_events(&stored) }
}

/// An object of `resource` in the form in which it is stored.
#[must_use]
pub fn as_stored(resource: &'static Resource, shown: &Value) -> Value {
    if stored_as(resource) == resource { shown.clone() } else { api::kinds::event::to_core(shown) }
}

fn resource_of_key(key: &str) -> Option<&'static Resource> {
    key.rmatch_indices('/').find_map(|(at, _)| BY_PREFIX.get(&key[..at]).copied())
}

/// The bytes that etcd holds for an object: kind, apiVersion and metadata first, no resourceVersion, no managedFields (field
/// managers are not tracked, and half-true ones would mislead clients).
#[must_use]
pub fn encode(object: &Value, resource: &Resource) -> Vec<u8> {
    let mut ordered = Map::new();
    ordered.insert("kind".to_owned(), resource.kind.into());
    ordered.insert("apiVersion".to_owned(), resource.api_version().into());
    let mut metadata = object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["resourceVersion", "managedFields", "selfLink"] {
        metadata.shift_remove(field);
    }
    ordered.insert("metadata".to_owned(), metadata.into());
    for (field, value) in object.as_object().into_iter().flatten() {
        if !ordered.contains_key(field) {
            ordered.insert(field.clone(), value.clone());
        }
    }
    serde_json::to_vec(&ordered).unwrap_or_default()
}

/// `metadata.{field}` as text, empty if absent.
#[must_use]
pub fn metadata_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|it| it.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// The fields of `metadata`, which is put there if absent. `None` if the object is no JSON object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Map::new().into());
    if !metadata.is_object() {
        *metadata = Map::new().into();
    }
    metadata.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::Index as _;

    use super::*;

    #[test]
    fn the_index_reads_what_selectors_ask() {
        let body = json!({"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b", "uid": "u",
            "labels": {"x": "y"}, "ownerReferences": [{"uid": "o"}], "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let meta = Meta::of("/registry/configmaps/b/a", body.to_string().as_bytes());
        assert_eq!((meta.label("x"), meta.label("y")), (Some("y"), None));
        assert_eq!((meta.field("metadata.name"), meta.field("metadata.namespace")), (Some("a"), Some("b")));
        assert!(meta.deleting && &*meta.owners[0] == "o" && &*meta.uid == "u");
    }

    #[test]
    fn stored_bytes_begin_with_kind_and_carry_no_revision() {
        let Some(row) = api::registry::lookup("", "v1", "configmaps") else {
            panic!("configmaps are registered")
        };
        let object = json!({"data": {"k": "v"}, "metadata": {"name": "a", "resourceVersion": "7"}});
        assert_eq!(
            String::from_utf8_lossy(&encode(&object, row)),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#
        );
    }
}
