//! core/v1 Namespace, and its `/finalize` subresource.
//!
//! Deleting a namespace takes two steps: DELETE sets the deletion time and the phase, the namespace controller empties it and takes its
//! finalizer from `spec.finalizers`; only then does it go. The handlers of DELETE ask `begin_deletion` and `is_finalized`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, NameRule, Strategy};

/// The finalizer that the namespace controller takes away when the namespace is empty.
pub const FINALIZER: &str = "kubernetes";

/// core/v1 Namespace.
#[derive(Debug, Clone, Copy)]
pub struct Namespace;

impl Strategy for Namespace {
    fn namespaced(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let name = field::text(object, "/metadata/name").to_owned();
        if !name.is_empty()
            && let Some(metadata) = field::map_mut(object, "metadata")
        {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            if labels.is_null() {
                *labels = json!({});
            }
            if let Some(labels) = labels.as_object_mut() {
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            }
        }
        field::map_mut(object, "spec");
        if let Some(status) = field::map_mut(object, "status") {
            field::set_if_zero(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.insert("status".to_owned(), json!({"phase": "Active"}));
        }
        let Some(spec) = field::map_mut(object, "spec") else { return };
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if finalizers.is_null() {
            *finalizers = json!([]);
        }
        if let Some(finalizers) =
            finalizers.as_array_mut().filter(|list| !list.iter().any(|f| f == FINALIZER))
        {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::keep(new, old, "status");
        metadata::keep(new, old, "spec");
        metadata::count_generation(new, old, false);
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        let phase = field::text(new, "/status/phase");
        let deleting = field::at(new, "/metadata/deletionTimestamp").is_some();
        if deleting && phase != "Terminating" {
            errors.push(FieldError::invalid(
                "status.Phase",
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            ));
        }
        if !deleting && phase != "Active" {
            errors.push(FieldError::invalid(
                "status.Phase",
                phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            ));
        }
        errors
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, finalizer) in field::items(object, "/spec/finalizers").enumerate() {
            validate_finalizer(finalizer, &format!("spec.finalizers[{index}]"), &mut errors);
        }
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", field::text(object, "/status/phase").to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Status", "Active, or Terminating while it is being emptied."),
            Column::AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cell::name(object), field::text(object, "/status/phase").into(), cell::age(object, now)]
    }
}

fn validate_finalizer(finalizer: &str, path: &str, errors: &mut Vec<FieldError>) {
    metadata::invalid(errors, path, finalizer, names::qualified_name(finalizer));
    if !finalizer.contains('/') && finalizer != FINALIZER {
        errors.push(FieldError::invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
}

/// What a write of `/finalize` may change: `spec.finalizers`, nothing else.
pub fn finalize(new: &mut Value, old: &Value) {
    metadata::keep(new, old, "status");
    metadata::count_generation(new, old, false);
}

/// The first step of deletion. `now` becomes the deletion time unless there is one already.
pub fn begin_deletion(namespace: &mut Value, now: Timestamp) {
    if field::at(namespace, "/metadata/deletionTimestamp").is_none()
        && let Some(metadata) = field::map_mut(namespace, "metadata")
    {
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        metadata.insert("deletionTimestamp".to_owned(), seconds.to_string().into());
    }
    if let Some(status) = field::map_mut(namespace, "status") {
        status.insert("phase".to_owned(), "Terminating".into());
    }
}

/// Nothing keeps a namespace that is being deleted any more.
#[must_use]
pub fn is_finalized(namespace: &Value) -> bool {
    field::at(namespace, "/metadata/deletionTimestamp").is_some()
        && field::list(namespace, "/spec/finalizers").is_empty()
        && field::list(namespace, "/metadata/finalizers").is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_finalized_by_the_controller() {
        let mut object = json!({"metadata": {"name": "a"}});
        Namespace.default(&mut object);
        Namespace.prepare_create(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
        assert!(Namespace.validate_create(&object).is_empty());
    }

    #[test]
    fn a_namespace_goes_when_its_last_finalizer_goes() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        begin_deletion(&mut object, "2026-01-01T00:00:00.7Z".parse().unwrap());
        assert_eq!(
            (&object["metadata"]["deletionTimestamp"], &object["status"]["phase"]),
            (&json!("2026-01-01T00:00:00Z"), &json!("Terminating"))
        );
        assert!(!is_finalized(&object));
        let mut update = object.clone();
        update["spec"] = json!({"finalizers": []});
        let mut finalized = update.clone();
        Namespace.prepare_update(&mut update, &object);
        assert!(!is_finalized(&update), "an ordinary update keeps the finalizers");
        finalize(&mut finalized, &object);
        assert!(is_finalized(&finalized));
    }

    #[test]
    fn foreign_finalizers_need_a_domain() {
        let errors = Namespace.validate(&json!({"spec": {"finalizers": ["kubernetes", "other", "a.b/c"]}}));
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                r#"spec.finalizers[1]: Invalid value: "other": name is neither a standard finalizer name nor is it fully qualified"#
            ]
        );
    }
}
