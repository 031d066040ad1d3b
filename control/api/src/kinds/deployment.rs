//! apps/v1 Deployment.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::at::At;
use super::workload::{self, count};
use super::{cell, field, metadata};
use crate::status::FieldError;
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
        let [now, before] = [&*new, old].map(|object| field::at(object, "/metadata/annotations"));
        // Annotations of a deployment are copied to its ReplicaSets, so the controller has to look at them as at the spec.
        let changed = metadata::spec_changed(new, old) || !field::same(now, before);
        metadata::count_generation(new, old, changed);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        metadata::keep_all_but_status(new, old);
        metadata::keep_metadata(new, old, "labels");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = At::new(object, "").child("spec");
        for key in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            spec.check_not_negative(key, &mut errors);
        }
        workload::selector_and_template(object, "deployment", &mut errors);
        validate_strategy(&spec.child("strategy"), &mut errors);
        let ready = spec.integer("minReadySeconds").unwrap_or(0);
        if spec.integer("progressDeadlineSeconds").is_some_and(|deadline| deadline <= ready) {
            errors.push(spec.invalid("progressDeadlineSeconds", "must be greater than minReadySeconds"));
        }
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

fn validate_strategy(strategy: &At<'_>, errors: &mut Vec<FieldError>) {
    match strategy.text("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                errors.push(
                    strategy.forbidden(
                        "rollingUpdate",
                        "may not be specified when strategy `type` is 'Recreate'",
                    ),
                );
            }
        }
        "RollingUpdate" => {
            let rolling = strategy.child("rollingUpdate");
            workload::positive_amount(&rolling, "maxUnavailable", errors);
            workload::positive_amount(&rolling, "maxSurge", errors);
            let zero = |key: &str| workload::is_zero_amount(rolling.child(key).value);
            if zero("maxUnavailable") && zero("maxSurge") {
                errors.push(rolling.invalid("maxUnavailable", "may not be 0 when `maxSurge` is 0"));
            }
            workload::not_above_all(&rolling, "maxUnavailable", errors);
        }
        other => errors.push(FieldError::not_supported(
            strategy.path_of("type"),
            other,
            &["Recreate", "RollingUpdate"],
        )),
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

    #[track_caller]
    fn check(change: impl Fn(&mut Value), expected: &[&str]) {
        let mut object = json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
        }});
        change(&mut object["spec"]);
        Deployment.default(&mut object);
        assert_eq!(
            Deployment.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn selector_and_template_fit() {
        check(|_| {}, &[]);
        check(
            |spec| spec["template"]["metadata"]["labels"] = json!({"app": "other"}),
            &[
                r#"spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`"#,
            ],
        );
        check(
            |spec| spec["selector"] = json!(null),
            &[
                "spec.selector: Required value",
                r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`"#,
            ],
        );
        check(
            |spec| spec["selector"] = json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            |spec| spec["template"]["spec"]["restartPolicy"] = json!("Never"),
            &[r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#],
        );
        check(
            |spec| spec["template"]["spec"]["containers"] = json!([]),
            &["spec.template.spec.containers: Required value"],
        );
        let old = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let errors =
            Deployment.validate_transition(&json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}), &old);
        assert_eq!(
            errors[0].to_string(),
            r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#
        );
    }

    #[test]
    fn a_rollout_can_move() {
        let rolling = |unavailable: Value, surge: Value| move |spec: &mut Value| spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        check(rolling(json!(0), json!(1)), &[]);
        check(
            rolling(json!("0%"), json!(0)),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            rolling(json!("200%"), json!(1)),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%",
            ],
        );
        check(
            rolling(json!("x"), json!(-1)),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            |spec| spec["replicas"] = json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            |spec| spec["minReadySeconds"] = json!(600),
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn annotations_count_as_a_change_and_labels_do_not() {
        let old = json!({"metadata": {"generation": 1, "annotations": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let check = |mut new: Value, generation: i64| {
            Deployment.prepare_update(&mut new, &old);
            assert_eq!(new["metadata"]["generation"], generation);
            assert_eq!(new["status"], json!({"replicas": 1}));
        };
        check(
            json!({"metadata": {"annotations": {"a": "1"}, "labels": {"x": "y"}}, "spec": {"replicas": 1}}),
            1,
        );
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
        assert_eq!(
            row,
            [
                json!("web"),
                json!("2/3"),
                json!(3),
                json!(0),
                json!("<unknown>"),
                json!("a,c"),
                json!("b,d"),
                json!("app=web")
            ]
        );
        assert_eq!(row.len(), Deployment.columns().len());
    }
}
