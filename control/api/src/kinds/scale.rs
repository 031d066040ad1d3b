//! autoscaling/v1 Scale: the view of a workload that shows and sets nothing but its size.
//!
//! Only kinds with `spec.replicas` and a `LabelSelector` have it: Deployment, ReplicaSet.

use serde_json::{Value, json};

use super::{cell, field};
use crate::status::FieldError;

/// The Scale of a workload.
#[must_use]
pub fn of(workload: &Value) -> Value {
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> = field::map(workload, "/metadata")
        .into_iter()
        .flatten()
        .filter(|(key, _)| kept.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": field::integer(workload, "/spec/replicas").unwrap_or(0)},
        "status": {
            "replicas": field::integer(workload, "/status/replicas").unwrap_or(0),
            "selector": cell::selector(workload, "/spec/selector"),
        },
    })
}

/// Sets the size of `workload` to that of `scale`. The resource version of `scale`, if it has one, becomes the workload's, so that a stale
/// writer meets a conflict.
///
/// # Errors
/// The size is negative.
pub fn apply(workload: &mut Value, scale: &Value) -> Result<(), Vec<FieldError>> {
    let replicas = field::integer(scale, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        return Err(vec![FieldError::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        )]);
    }
    if let Some(spec) = field::map_mut(workload, "spec") {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let version = field::text(scale, "/metadata/resourceVersion");
    if !version.is_empty()
        && let Some(metadata) = field::map_mut(workload, "metadata")
    {
        metadata.insert("resourceVersion".to_owned(), version.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_scale_shows_and_sets_the_size() {
        let mut workload = json!({
            "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        });
        let mut scale = of(&workload);
        assert_eq!(scale["metadata"], json!({"name": "web", "namespace": "default", "resourceVersion": "7"}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web"}));
        scale["spec"]["replicas"] = json!(5);
        apply(&mut workload, &scale).unwrap();
        assert_eq!(workload["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(
            apply(&mut workload, &scale).unwrap_err()[0].to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
