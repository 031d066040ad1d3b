//! What all objects have in common: rules for `metadata`, and how a write keeps to its half of the object (apimachinery
//! `api/validation`, `registry/rest`).
//!
//! The server's request handlers fill metadata in (uid, creationTimestamp, generated names); here it is judged.

use serde_json::{Map, Value, json};

use super::{address, field, names};
use crate::status::FieldError;
use crate::strategy::NameRule;

/// The message for a field that may never change.
pub const IMMUTABLE: &str = "field is immutable";

/// Largest sum of the lengths of all annotations' keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Sets an empty status: what a new object has before its controller speaks.
pub fn clear_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert("status".to_owned(), json!({}));
    }
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = field::map_mut(object, "metadata") {
        metadata.insert("generation".to_owned(), generation.into());
    }
}

/// Takes the generation from `old`, one more when `changed`. Clients have no say in it.
pub fn count_generation(new: &mut Value, old: &Value, changed: bool) {
    match field::integer(old, "/metadata/generation") {
        None if !changed => {
            if let Some(metadata) = field::existing_mut(new, "/metadata") {
                metadata.shift_remove("generation");
            }
        }
        generation => set_generation(new, generation.unwrap_or(0) + i64::from(changed)),
    }
}

/// The specs differ in more than order and empty fields.
#[must_use]
pub fn spec_changed(new: &Value, old: &Value) -> bool {
    !field::same(field::at(new, "/spec"), field::at(old, "/spec"))
}

/// Something else than metadata and status differs.
#[must_use]
pub fn body_changed(new: &Value, old: &Value) -> bool {
    let is_body = |key: &str| !matches!(key, "metadata" | "status" | "kind" | "apiVersion");
    match (new.as_object(), old.as_object()) {
        (Some(new), Some(old)) => !field::same_fields(new, old, is_body),
        _ => true,
    }
}

/// Puts `key` of `old` back into `new`, removing it when `old` has none.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(key);
        }
    }
}

/// Puts everything but metadata and status of `old` back into `new`, and the generation.
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let keys: Vec<String> = [&*new, old]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(Map::keys)
        .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
        .cloned()
        .collect();
    for key in keys {
        keep(new, old, &key);
    }
    count_generation(new, old, false);
}

/// Puts one field of the metadata of `old` back into `new`.
pub fn keep_metadata(new: &mut Value, old: &Value, key: &str) {
    let kept = old.pointer("/metadata").and_then(|metadata| metadata.get(key)).cloned();
    let Some(metadata) = field::map_mut(new, "metadata") else { return };
    match kept {
        Some(value) => {
            metadata.insert(key.to_owned(), value);
        }
        None => {
            metadata.shift_remove(key);
        }
    }
}

/// `messages` of a rule of `names` as errors of one field.
pub fn invalid(errors: &mut Vec<FieldError>, path: &str, value: &str, messages: Vec<String>) {
    errors.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

/// The error of a field that changed and may not, if it did.
#[must_use]
pub fn immutable(new: &Value, old: &Value, pointer: &str, path: &str) -> Option<FieldError> {
    let value = field::at(new, pointer);
    (!field::same(value, field::at(old, pointer)))
        .then(|| FieldError::invalid(path, value.cloned().unwrap_or(Value::Null), IMMUTABLE))
}

/// What is wrong with `name` by `rule`.
#[must_use]
pub fn check_name(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::dns_subdomain(name),
        NameRule::DnsLabel => names::dns_label(name),
        NameRule::Dns1035Label => names::dns_1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
        NameRule::IpAddress => match name.parse::<std::net::IpAddr>() {
            Err(_) => vec![address::NOT_AN_IP.to_owned()],
            Ok(address) if address.to_string() != name => {
                vec!["must be a canonical format IP address".to_owned()]
            }
            Ok(_) => Vec::new(),
        },
    }
}

/// A `generateName` may end in a dash, since more follows it.
fn check_prefix(rule: NameRule, prefix: &str) -> Vec<String> {
    match prefix.strip_suffix('-') {
        Some(stem) if !stem.is_empty() => check_name(
            rule,
            &format!("{}a", &stem[..stem.len() - stem.chars().next_back().map_or(0, char::len_utf8)]),
        ),
        _ => check_name(rule, prefix),
    }
}

/// What is wrong with the metadata of a new object, whose name has been generated if it had to be.
#[must_use]
pub fn validate(object: &Value, namespaced: bool, rule: NameRule) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix = field::text(object, "/metadata/generateName");
    if !prefix.is_empty() {
        invalid(&mut errors, "metadata.generateName", prefix, check_prefix(rule, prefix));
    }
    match field::text(object, "/metadata/name") {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => invalid(&mut errors, "metadata.name", name, check_name(rule, name)),
    }
    match (namespaced, field::text(object, "/metadata/namespace")) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, namespace) => {
            invalid(&mut errors, "metadata.namespace", namespace, names::dns_label(namespace));
        }
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    if let Some(generation) =
        field::integer(object, "/metadata/generation").filter(|&generation| generation < 0)
    {
        errors.push(FieldError::invalid(
            "metadata.generation",
            generation,
            "must be greater than or equal to 0",
        ));
    }
    validate_maps(object, &mut errors);
    validate_finalizers(object, &mut errors);
    errors
}

/// What is wrong with the step from `old` to `new` in metadata. The server has already filled in the resource version.
#[must_use]
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if field::at(old, "/metadata/deletionTimestamp").is_some() {
        let before: Vec<&str> = field::items(old, "/metadata/finalizers").collect();
        let mut extra: Vec<&str> = field::items(new, "/metadata/finalizers")
            .filter(|finalizer| !before.contains(finalizer))
            .collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            let list = extra.iter().map(|finalizer| format!("{finalizer:?}")).collect::<Vec<_>>().join(", ");
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"),
            ));
        }
    }
    if field::text(new, "/metadata/resourceVersion").is_empty() {
        errors.push(FieldError::invalid("metadata.resourceVersion", "", "must be specified for an update"));
    }
    let generation = |object: &Value| field::integer(object, "/metadata/generation").unwrap_or(0);
    if generation(new) < generation(old) {
        errors.push(FieldError::invalid("metadata.generation", generation(new), "must not be decremented"));
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        errors.extend(immutable(new, old, &format!("/metadata/{key}"), &format!("metadata.{key}")));
    }
    validate_maps(new, &mut errors);
    errors
}

/// Labels, annotations and owners.
fn validate_maps(object: &Value, errors: &mut Vec<FieldError>) {
    validate_labels(object, "/metadata/labels", "metadata.labels", errors);
    validate_annotations(object, "/metadata/annotations", "metadata.annotations", errors);
    validate_owners(object, errors);
}

/// What is wrong with the labels at `pointer`.
pub fn validate_labels(object: &Value, pointer: &str, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in field::texts(object, pointer) {
        invalid(errors, path, key, names::qualified_name(key));
        invalid(errors, path, value, names::label_value(value));
    }
}

/// What is wrong with the annotations at `pointer`.
pub fn validate_annotations(object: &Value, pointer: &str, path: &str, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in field::texts(object, pointer) {
        invalid(errors, path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn validate_owners(object: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in field::list(object, "/metadata/ownerReferences") {
        let text = |key: &str| field::text(owner, &format!("/{key}"));
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(key).is_empty() {
                let message =
                    if key == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                errors.push(FieldError::invalid(format!("{PATH}.{key}"), "", message));
            }
        }
        if (text("apiVersion"), text("kind")) == ("v1", "Event") {
            errors.push(FieldError::invalid(
                PATH,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if field::flag(owner, "/controller") {
            let name = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(name),
                Some(first) => errors.push(FieldError::invalid(
                    PATH,
                    object.pointer("/metadata/ownerReferences").cloned().unwrap_or_default(),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"),
                )),
            }
        }
    }
}

fn validate_finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.finalizers";
    let finalizers: Vec<&str> = field::items(object, "/metadata/finalizers").collect();
    for finalizer in &finalizers {
        invalid(errors, PATH, finalizer, names::qualified_name(finalizer));
    }
    if finalizers.contains(&ORPHAN) && finalizers.contains(&FOREGROUND) {
        errors.push(FieldError::invalid(
            PATH,
            object.pointer("/metadata/finalizers").cloned().unwrap_or_default(),
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_create(metadata: Value, expected: &[&str]) {
        let errors = validate(&json!({ "metadata": metadata }), true, NameRule::DnsSubdomain);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn metadata_of_new_objects_is_judged_in_upstreams_words() {
        check_create(json!({"name": "a", "namespace": "b"}), &[]);
        check_create(json!({"name": "a-x7k2p", "generateName": "a-", "namespace": "b"}), &[]);
        check_create(
            json!({}),
            &[
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value",
            ],
        );
        check_create(
            json!({"name": "a", "namespace": "b", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
                {"apiVersion": "v1", "kind": "Pod", "name": "q", "controller": true},
            ]}),
            &[
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"p\",\"uid\":\"1\",\"controller\":true},{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"q\",\"controller\":true}]: Only one reference can have Controller set to true. Found \"true\" in references for Pod/p and Pod/q",
            ],
        );
        check_create(
            json!({"name": "a", "namespace": "b", "annotations": {"k": "x".repeat(ANNOTATIONS_MAX)}}),
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        let cluster =
            validate(&json!({"metadata": {"name": "a", "namespace": "b"}}), false, NameRule::DnsLabel);
        assert_eq!(
            cluster.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn identity_and_deletion_never_change() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "resourceVersion": "1", "deletionTimestamp": "t", "finalizers": ["x/y", "x/z"]}});
        let errors: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/z\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_status_write_keeps_everything_else() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "data": 1});
        let mut new =
            json!({"metadata": {"generation": 9}, "spec": {"a": 2}, "status": {"s": 1}, "extra": 1});
        keep_all_but_status(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "data": 1, "status": {"s": 1}})
        );
    }
}
