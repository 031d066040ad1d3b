//! Facts about one pod that several controllers ask for, and how a pod is made from a template. No decisions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Labels' value of a pod's `status.phase`, empty when unset.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}

/// Whether all containers ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as one of its controller's replicas.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// The pod's condition of this type.
pub fn condition<'a>(pod: &'a Pod, name: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|it| it.type_ == name)
}

/// Whether the Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|it| it.status == "True")
}

/// Since when the pod is Ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|it| it.status == "True")?.last_transition_time.as_ref().map(|it| it.0)
}

/// Whether the pod has been Ready for `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod)
        && (min_ready_seconds == 0
            || ready_since(pod)
                .is_some_and(|since| now.duration_since(since).as_secs() >= i64::from(min_ready_seconds)))
}

/// The node that the pod is bound to, empty when unbound.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|it| it.node_name.as_deref()).unwrap_or_default()
}

/// A pod of `template` that belongs to `owner`.
pub fn from_template(template: &PodTemplateSpec, namespace: Option<&str>, owner: OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: namespace.map(Into::into),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
