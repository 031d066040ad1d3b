//! apps/v1 ReplicaSet.

use jiff::Timestamp;
use serde_json::Value;

use super::at::At;
use super::workload::{self, count};
use super::{cell, field};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// apps/v1 ReplicaSet.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn has_status(&self) -> bool {
        true
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = field::map_mut(object, "spec") {
            field::set_if_absent(spec, "replicas", 1);
        }
        workload::default_template(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = At::new(object, "").child("spec");
        for key in ["replicas", "minReadySeconds"] {
            spec.check_not_negative(key, &mut errors);
        }
        // Upstream says "deployment" here too.
        workload::selector_and_template(object, "deployment", &mut errors);
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        workload::selector_unchanged(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", count(object, "/status/replicas").to_string())]
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::integer("Desired", "Pods that are wanted."),
            Column::integer("Current", "Pods that exist."),
            Column::integer("Ready", "Pods that are ready."),
            Column::AGE,
            workload::CONTAINERS,
            workload::IMAGES,
            workload::SELECTOR,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [containers, images] = workload::container_cells(object);
        vec![
            cell::name(object),
            count(object, "/spec/replicas").into(),
            count(object, "/status/replicas").into(),
            count(object, "/status/readyReplicas").into(),
            cell::age(object, now),
            containers,
            images,
            cell::or_none(cell::selector(object, "/spec/selector")).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replica_set_needs_selector_and_template() {
        let mut object = json!({"spec": {"replicas": -1}});
        ReplicaSet.default(&mut object);
        assert_eq!(
            ReplicaSet.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
            ]
        );
    }

    #[test]
    fn a_row_shows_wanted_current_and_ready() {
        let mut object = json!({"metadata": {"name": "rs"}, "spec": {}, "status": {"replicas": 1}});
        ReplicaSet.default(&mut object);
        let row = ReplicaSet.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row[..4], [json!("rs"), json!(1), json!(1), json!(0)]);
        assert_eq!(row[7], "<none>");
        assert_eq!(row.len(), ReplicaSet.columns().len());
    }
}
