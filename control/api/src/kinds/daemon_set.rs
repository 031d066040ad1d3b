//! apps/v1 DaemonSet.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::at::At;
use super::workload::{self, count};
use super::{cell, field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// apps/v1 DaemonSet.
#[derive(Debug, Clone, Copy)]
pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn has_status(&self) -> bool {
        true
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = field::map_mut(object, "spec") {
            field::set_if_absent(spec, "updateStrategy", json!({}));
            field::set_if_absent(spec, "revisionHistoryLimit", 10);
            if let Some(strategy) = spec.get_mut("updateStrategy").and_then(Value::as_object_mut) {
                field::set_if_zero(strategy, "type", "RollingUpdate");
                if strategy["type"] == "RollingUpdate" {
                    field::set_if_absent(strategy, "rollingUpdate", json!({}));
                    if let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut) {
                        field::set_if_absent(rolling, "maxUnavailable", 1);
                        field::set_if_absent(rolling, "maxSurge", 0);
                    }
                }
            }
        }
        workload::default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        metadata::clear_status(object);
        metadata::set_generation(object, 1);
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::keep(new, old, "status");
        metadata::count_generation(new, old, metadata::spec_changed(new, old));
        let changed = !field::same(field::at(new, "/spec/template"), field::at(old, "/spec/template"));
        let generation = field::map(old, "/metadata/annotations")
            .and_then(|annotations| annotations.get(TEMPLATE_GENERATION)?.as_str()?.parse::<i64>().ok())
            .unwrap_or(0);
        set_template_generation(new, generation + i64::from(changed));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = At::new(object, "").child("spec");
        workload::selector_and_template(object, "daemonset", &mut errors);
        for key in ["minReadySeconds", "revisionHistoryLimit"] {
            spec.check_not_negative(key, &mut errors);
        }
        validate_strategy(&spec.child("updateStrategy"), &mut errors);
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        workload::selector_unchanged(new, old)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::integer("Desired", "Nodes that should run the pod."),
            Column::integer("Current", "Nodes that should and do."),
            Column::integer("Ready", "Nodes whose pod is ready."),
            Column::integer("Up-to-date", "Nodes whose pod is of the current template."),
            Column::integer("Available", "Nodes whose pod has been ready for long enough."),
            Column::text("Node Selector", "Labels of the nodes that should run the pod."),
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
            count(object, "/status/desiredNumberScheduled").into(),
            count(object, "/status/currentNumberScheduled").into(),
            count(object, "/status/numberReady").into(),
            count(object, "/status/updatedNumberScheduled").into(),
            count(object, "/status/numberAvailable").into(),
            cell::labels(object, "/spec/template/spec/nodeSelector").into(),
            cell::age(object, now),
            containers,
            images,
            cell::or_none(cell::selector(object, "/spec/selector")).into(),
        ]
    }
}

/// The template's own generation, which the v1 API shows as a deprecated annotation.
fn set_template_generation(object: &mut Value, generation: i64) {
    let annotations = field::map_mut(object, "metadata").and_then(|it| {
        let annotations = it.entry("annotations").or_insert(Value::Null);
        if annotations.is_null() {
            *annotations = json!({});
        }
        annotations.as_object_mut()
    });
    if let Some(annotations) = annotations {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn validate_strategy(strategy: &At<'_>, errors: &mut Vec<FieldError>) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let Some(rolling) = strategy.present("rollingUpdate") else {
                errors.push(strategy.required("rollingUpdate", ""));
                return;
            };
            workload::positive_amount(&rolling, "maxUnavailable", errors);
            workload::not_above_all(&rolling, "maxUnavailable", errors);
            workload::positive_amount(&rolling, "maxSurge", errors);
            workload::not_above_all(&rolling, "maxSurge", errors);
            let some = |key: &str| rolling.has(key) && !workload::is_zero_amount(rolling.child(key).value);
            match (some("maxUnavailable"), some("maxSurge")) {
                (true, true) => {
                    errors
                        .push(rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero"));
                }
                (false, false) => {
                    errors.push(rolling.required("maxUnavailable", "cannot be 0 when maxSurge is 0"));
                }
                _ => {}
            }
        }
        other => errors.push(FieldError::not_supported(
            strategy.path_of("type"),
            other,
            &["OnDelete", "RollingUpdate"],
        )),
    }
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_daemon_set_gets_upstreams_defaults() {
        let mut object = json!({"spec": {}});
        DaemonSet.default(&mut object);
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(object["spec"]["revisionHistoryLimit"], 10);
        let mut on_delete = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        DaemonSet.default(&mut on_delete);
        assert_eq!(on_delete["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn an_update_replaces_or_surges_and_never_both() {
        let check = |rolling: Value, expected: &[&str]| {
            let mut object = json!({"spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
                "updateStrategy": {"rollingUpdate": rolling},
            }});
            DaemonSet.default(&mut object);
            assert_eq!(
                DaemonSet.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>(),
                expected
            );
        };
        check(json!({}), &[]);
        check(json!({"maxUnavailable": 0, "maxSurge": "10%"}), &[]);
        check(
            json!({"maxUnavailable": 0}),
            &[
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        );
        check(
            json!({"maxSurge": 1}),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        );
    }

    #[test]
    fn the_template_has_a_generation_of_its_own() {
        let mut first = json!({"metadata": {}, "spec": {"template": {"a": 1}, "minReadySeconds": 1}});
        DaemonSet.prepare_create(&mut first);
        let mut second = first.clone();
        second["spec"]["minReadySeconds"] = json!(2);
        DaemonSet.prepare_update(&mut second, &first);
        assert_eq!(
            (&second["metadata"]["generation"], &second["metadata"]["annotations"][TEMPLATE_GENERATION]),
            (&json!(2), &json!("1"))
        );
        let mut third = second.clone();
        third["spec"]["template"] = json!({"a": 2});
        DaemonSet.prepare_update(&mut third, &second);
        assert_eq!(
            (&third["metadata"]["generation"], &third["metadata"]["annotations"][TEMPLATE_GENERATION]),
            (&json!(3), &json!("2"))
        );
    }

    #[test]
    fn a_row_counts_nodes() {
        let object = json!({"metadata": {"name": "ds"}, "spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}, "status": {"desiredNumberScheduled": 2}});
        let row = DaemonSet.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row[..7], [json!("ds"), json!(2), json!(0), json!(0), json!(0), json!(0), json!("a=b")]);
        assert_eq!(row.len(), DaemonSet.columns().len());
    }
}
