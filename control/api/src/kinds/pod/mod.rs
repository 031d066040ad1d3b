//! core/v1 Pod.
//!
//! Files: `defaults` and `validation` (of pods and templates; the latter with `containers`, `probes`, `volumes`, `scheduling`), `update` (what
//! may change), `columns`, `qos`, `binding`, `warnings`.
//! What admission adds (tolerations, the service account's token volume, priority) is not here.

pub mod binding;
pub mod columns;
pub mod containers;
pub mod defaults;
pub mod probes;
pub mod qos;
pub mod scheduling;
pub mod update;
pub mod validation;
pub mod volumes;
pub mod warnings;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::at::At;
use super::{field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};
pub use binding::bind;

/// core/v1 Pod.
#[derive(Debug, Clone, Copy)]
pub struct Pod;

impl Strategy for Pod {
    fn has_status(&self) -> bool {
        true
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        metadata::set_generation(object, 1);
        let class = qos::class(object);
        if let Some(map) = object.as_object_mut() {
            map.insert("status".to_owned(), json!({"phase": "Pending", "qosClass": class}));
        }
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        metadata::keep_all_but_status(new, old);
        for key in ["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            metadata::keep_metadata(new, old, key);
        }
        let class = field::text(old, "/status/qosClass").to_owned();
        if !class.is_empty()
            && let Some(status) = field::map_mut(new, "status")
        {
            status.insert("qosClass".to_owned(), class.into());
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(object, self.namespaced(), self.name_rule());
        errors.extend(validation::new_pod(object));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        errors.extend(update::validate(new, old));
        // The rest of the spec cannot have changed; what could is judged anew.
        if errors.is_empty() && metadata::body_changed(new, old) {
            validation::pod_spec(&At::new(new, "").child("spec"), &mut errors);
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        errors.extend(validation::status(new));
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let mut fields: Vec<(&'static str, String)> = [
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("status.phase", "/status/phase"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ]
        .into_iter()
        .map(|(name, pointer)| (name, field::text(object, pointer).to_owned()))
        .collect();
        fields.push(("spec.hostNetwork", field::flag(object, "/spec/hostNetwork").to_string()));
        fields.push(("status.podIP", columns::first_address(object)));
        fields
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(object, now)
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        // Updates of pods come from programs, often; nobody would read the warnings.
        if old.is_some() { Vec::new() } else { warnings::of_pod(new) }
    }

    fn graceful_deletion(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let unscheduled = field::text(object, "/spec/nodeName").is_empty();
        let finished = matches!(field::text(object, "/status/phase"), "Succeeded" | "Failed");
        if unscheduled || finished {
            return Some(0);
        }
        let period =
            requested.or_else(|| field::integer(object, "/spec/terminationGracePeriodSeconds")).unwrap_or(0);
        // A negative period asks for the shortest that is not a forced deletion.
        Some(if period < 0 { 1 } else { period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pod_is_pending_with_its_class() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
        Pod.prepare_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(pod["metadata"]["generation"], 1);
    }

    #[test]
    fn spec_and_status_are_written_apart() {
        let old = json!({"metadata": {"generation": 1, "ownerReferences": [1]}, "spec": {"nodeName": "n"}, "status": {"phase": "Running", "qosClass": "Burstable"}});
        let mut new =
            json!({"metadata": {"generation": 1}, "spec": {"nodeName": "m"}, "status": {"phase": "Failed"}});
        let mut status = new.clone();
        Pod.prepare_update(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"generation": 2}, "spec": {"nodeName": "m"}, "status": {"phase": "Running", "qosClass": "Burstable"}})
        );
        Pod.prepare_status_update(&mut status, &old);
        assert_eq!(
            status,
            json!({"metadata": {"generation": 1, "ownerReferences": [1]}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed", "qosClass": "Burstable"}})
        );
    }

    #[test]
    fn grace_comes_from_the_request_then_the_spec_and_is_zero_when_nothing_runs() {
        let check = |node: &str, phase: &str, requested: Option<i64>, expected: i64| {
            let pod = json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
            assert_eq!(
                Pod.graceful_deletion(&pod, requested),
                Some(expected),
                "{node} {phase} {requested:?}"
            );
        };
        check("n", "Running", None, 30);
        check("n", "Running", Some(5), 5);
        check("n", "Running", Some(0), 0);
        check("n", "Running", Some(-1), 1);
        check("", "Pending", Some(5), 0);
        check("n", "Failed", None, 0);
    }
}
