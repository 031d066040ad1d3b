//! Binding a pod to a node: the `pods/binding` subresource.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::field;
use crate::status::{ApiError, FieldError};

/// Binds `pod` as `binding` says: sets its node, adds the binding's annotations and labels, sets the condition `PodScheduled`.
///
/// # Errors
/// The binding names no node; the pod is another than the binding means, is bound already, is being deleted, or is gated.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), ApiError> {
    let name = field::text(pod, "/metadata/name").to_owned();
    let errors = validate(binding);
    if !errors.is_empty() {
        return Err(ApiError::invalid(("", "Binding"), &name, errors));
    }
    if let Some(reason) = refuse(pod, binding, &name) {
        return Err(ApiError::conflict(("", "pods/binding"), &name, reason));
    }
    for key in ["annotations", "labels"] {
        let Some(added) = field::map(binding, &format!("/metadata/{key}")).filter(|added| !added.is_empty())
        else {
            continue;
        };
        if let Some(metadata) = field::map_mut(pod, "metadata") {
            let slot = metadata.entry(key).or_insert_with(|| json!({}));
            if let Some(slot) = slot.as_object_mut() {
                slot.extend(added.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
    }
    if let Some(spec) = field::map_mut(pod, "spec") {
        spec.insert("nodeName".to_owned(), field::text(binding, "/target/name").into());
    }
    set_scheduled(pod, now);
    Ok(())
}

fn validate(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = field::text(binding, "/target/kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if field::text(binding, "/target/name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    errors
}

fn refuse(pod: &Value, binding: &Value, name: &str) -> Option<String> {
    let wanted = field::text(binding, "/metadata/uid");
    let uid = field::text(pod, "/metadata/uid");
    if !wanted.is_empty() && wanted != uid {
        return Some(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if field::at(pod, "/metadata/deletionTimestamp").is_some() {
        return Some(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = field::text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return Some(format!("pod {name} is already assigned to node {node:?}"));
    }
    (!field::list(pod, "/spec/schedulingGates").is_empty())
        .then(|| format!("pod {name} has non-empty .spec.schedulingGates"))
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": seconds.to_string()});
    let Some(status) = field::map_mut(pod, "status") else { return };
    // The hint has served: a node is chosen.
    status.shift_remove("nominatedNodeName");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| field::text(condition, "/type") == "PodScheduled") {
        Some(condition) if field::text(condition, "/status") == "True" => {}
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn binding_sets_node_and_condition() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending", "nominatedNodeName": "m", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        bind(
            &mut pod,
            &json!({"metadata": {"annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}}),
            now(),
        )
        .unwrap();
        assert_eq!(
            pod,
            json!({
                "metadata": {"name": "p", "annotations": {"a": "b"}},
                "spec": {"nodeName": "n"},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            })
        );
        let again = bind(&mut pod, &json!({"target": {"name": "m"}}), now()).unwrap_err();
        assert_eq!(
            again.to_string(),
            r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#
        );
    }

    #[test]
    fn bindings_that_mean_nothing_are_refused() {
        let check = |pod: Value, binding: Value, expected: &str| {
            let mut pod = pod;
            assert_eq!(bind(&mut pod, &binding, now()).unwrap_err().to_string(), expected);
        };
        let to_node = json!({"target": {"name": "n"}});
        check(
            json!({"metadata": {"name": "p"}}),
            json!({}),
            r#"Binding "p" is invalid: target.name: Required value"#,
        );
        check(
            json!({"metadata": {"name": "p", "deletionTimestamp": "t"}}),
            to_node.clone(),
            r#"Operation cannot be fulfilled on pods/binding "p": pod p is being deleted, cannot be assigned to a host"#,
        );
        check(
            json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
            to_node,
            r#"Operation cannot be fulfilled on pods/binding "p": pod p has non-empty .spec.schedulingGates"#,
        );
    }
}
