//! apps/v1 Deployment.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::workload::{self, count};
use super::{cell, field, metadata};
use crate::strategy::{Column, Strategy};

/// apps/v1 Deployment.
#[derive(Debug, Clone, Copy)]
pub struct Deployment;

impl Strategy for Deployment {
    fn has_status(&self) -> bool {
        true
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = field::map_mut(object, "spec") {
            field::set_if_absent(spec, "replicas", 1);
            field::set_if_absent(spec, "strategy", json!({}));
            field::set_if_absent(spec, "revisionHistoryLimit", 10);
            field::set_if_absent(spec, "progressDeadlineSeconds", 600);
            if let Some(strategy) = spec.get_mut("strategy") {
                default_strategy(strategy);
            }
        }
        workload::default_template(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::keep(new, old, "status");
        let annotations = |object: &Value| object.pointer("/metadata/annotations").cloned();
        // Annotations of a deployment are copied to its ReplicaSets, so the controller has to look at them as at the spec.
        let changed = metadata::spec_changed(new, old) || !field::same(annotations(new).as_ref(), annotations(old).as_ref());
        metadata::count_generation(new, old, changed);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        metadata::keep_all_but_status(new, old);
        metadata::keep_metadata(new, old, "labels");
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Ready", "Pods that are ready, of all that are wanted."),
            Column::text("Up-to-date", "Pods of the current template."),
            Column::text("Available", "Pods that have been ready for long enough."),
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
            format!("{}/{}", count(object, "/status/readyReplicas"), count(object, "/spec/replicas")).into(),
            count(object, "/status/updatedReplicas").into(),
            count(object, "/status/availableReplicas").into(),
            cell::age(object, now),
            containers,
            images,
            cell::selector(object, "/spec/selector").into(),
        ]
    }
}

fn default_strategy(strategy: &mut Value) {
    let Some(map) = strategy.as_object_mut() else { return };
    field::set_if_zero(map, "type", "RollingUpdate");
    if map["type"] == "RollingUpdate" {
        field::set_if_absent(map, "rollingUpdate", json!({}));
        if let Some(rolling) = map.get_mut("rollingUpdate").and_then(Value::as_object_mut) {
            field::set_if_absent(rolling, "maxUnavailable", "25%");
            field::set_if_absent(rolling, "maxSurge", "25%");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_deployment_gets_upstreams_defaults() {
        let mut object = json!({"spec": {"selector": {}, "template": {"spec": {"containers": []}}}});
        Deployment.default(&mut object);
        assert_eq!(
            object,
            json!({"spec": {
                "selector": {},
                "template": {
                    "metadata": {},
                    "spec": {
                        "containers": [], "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                        "securityContext": {}, "schedulerName": "default-scheduler",
                    },
                },
                "replicas": 1,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            }})
        );
        let mut recreate = json!({"spec": {"strategy": {"type": "Recreate"}, "replicas": 0}});
        Deployment.default(&mut recreate);
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
        assert_eq!(recreate["spec"]["replicas"], 0);
    }

    #[test]
    fn annotations_count_as_a_change_and_labels_do_not() {
        let old = json!({"metadata": {"generation": 1, "annotations": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let check = |mut new: Value, generation: i64| {
            Deployment.prepare_update(&mut new, &old);
            assert_eq!(new["metadata"]["generation"], generation);
            assert_eq!(new["status"], json!({"replicas": 1}));
        };
        check(json!({"metadata": {"annotations": {"a": "1"}, "labels": {"x": "y"}}, "spec": {"replicas": 1}}), 1);
        check(json!({"metadata": {"annotations": {"a": "2"}}, "spec": {"replicas": 1}}), 2);
        check(json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"replicas": 2}}), 2);
    }

    #[test]
    fn a_row_shows_ready_of_wanted() {
        let object = json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [{"name": "a", "image": "b"}, {"name": "c", "image": "d"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3},
        });
        let row = Deployment.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(row, [json!("web"), json!("2/3"), json!(3), json!(0), json!("<unknown>"), json!("a,c"), json!("b,d"), json!("app=web")]);
        assert_eq!(row.len(), Deployment.columns().len());
    }
}
