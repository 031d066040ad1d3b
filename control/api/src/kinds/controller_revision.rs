//! apps/v1 ControllerRevision: a snapshot of a workload's template, never changed.

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// apps/v1 ControllerRevision.
#[derive(Debug, Clone, Copy)]
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match object.get("data") {
            None | Some(Value::Null) => errors.push(FieldError::required("data", "data is mandatory")),
            Some(data) if !data.is_object() => {
                errors.push(FieldError::invalid(
                    "data",
                    data.clone(),
                    "error parsing data: data must be an object",
                ));
            }
            Some(_) => {}
        }
        if let Some(revision) = field::integer(object, "/revision").filter(|&revision| revision < 0) {
            errors.push(FieldError::invalid("revision", revision, "must be greater than or equal to 0"));
        }
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        metadata::immutable(new, old, "/data", "data").into_iter().collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Controller", "Workload whose template this is."),
            Column::text("Revision", "Number of the snapshot, growing with each change."),
            Column::AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner = field::list(object, "/metadata/ownerReferences")
            .iter()
            .find(|owner| field::flag(owner, "/controller"));
        let controller = owner.map_or(cell::NONE.to_owned(), |owner| {
            let kind = field::text(owner, "/kind");
            let name = field::text(owner, "/name");
            match field::text(owner, "/apiVersion").split_once('/') {
                Some((group, _)) => format!("{}.{group}/{name}", kind.to_lowercase()),
                None => format!("{}/{name}", kind.to_lowercase()),
            }
        });
        vec![
            cell::name(object),
            controller.into(),
            field::integer(object, "/revision").unwrap_or(0).into(),
            cell::age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_names_the_workload() {
        let object = json!({
            "metadata": {"name": "r", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "controller": true}]},
            "revision": 2,
            "data": {},
        });
        let row = ControllerRevision.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row[..3], [json!("r"), json!("daemonset.apps/ds"), json!(2)]);
        assert!(ControllerRevision.validate(&object).is_empty());
        let changed = json!({"revision": 3, "data": {"a": 1}});
        let errors: Vec<String> = ControllerRevision
            .validate_transition(&changed, &object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(errors, [r#"data: Invalid value: {"a":1}: field is immutable"#]);
    }
}
