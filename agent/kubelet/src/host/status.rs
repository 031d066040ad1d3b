//! Writes a pod's status and deletes its object, never another pod's of the same name.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::Host;
use crate::pods::effects::Written;
use crate::pods::state::{name, namespace, uid};
use crate::pods::status::OWNED_CONDITIONS;

impl Host {
    pub(super) async fn patch_status(&self, pod: &Pod, previous: &PodStatus, status: &PodStatus) -> Written {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(pod));
        let patch = status_patch(uid(pod), previous, status);
        match api.patch_status(name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                if let Err(error) = self.files(uid(pod)).save_status(status) {
                    tracing::debug!(pod = name(pod), %error, "status not saved");
                }
                Written::Stored
            }
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Written::Gone,
            Err(error) => Written::Later(error.to_string()),
        }
    }

    pub(super) async fn delete_pod(&self, pod: &Pod) -> Result<(), String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid(pod).to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(name(pod), &params).await {
            Ok(_) => Ok(()),
            // Gone, or another pod of this name.
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A strategic merge patch: own conditions are merged by type, so that others' stay; lists of containers are replaced
/// as a whole; addresses are replaced, not added to; what is unset is removed.
fn status_patch(uid: &str, previous: &PodStatus, status: &PodStatus) -> Value {
    let mut body = serde_json::to_value(status).unwrap_or_default();
    if let Some(conditions) = body.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| {
            condition["type"].as_str().is_some_and(|type_| OWNED_CONDITIONS.contains(&type_))
        });
        for condition in conditions {
            for field in ["reason", "message"] {
                if condition.get(field).is_none() {
                    condition[field] = Value::Null;
                }
            }
        }
    }
    for (field, before, after) in [("podIPs", &previous.pod_ips, &status.pod_ips)] {
        if before.as_ref().is_some_and(|list| !list.is_empty()) && before != after {
            let list = body.get(field).cloned().unwrap_or(json!([]));
            let mut list = list.as_array().cloned().unwrap_or_default();
            list.push(json!({"$patch": "replace"}));
            body[field] = Value::Array(list);
        }
    }
    for field in ["reason", "message", "podIP"] {
        if body.get(field).is_none() {
            body[field] = Value::Null;
        }
    }
    json!({"metadata": {"uid": uid}, "status": body})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_patch_carries_the_uid_and_only_own_conditions() {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running",
            "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "example.com/gate", "status": "True"}]}))
        .unwrap();
        let patch = status_patch("u", &PodStatus::default(), &status);
        assert_eq!(patch["metadata"], json!({"uid": "u"}));
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0]["message"], Value::Null, "a message of before goes away");
        assert_eq!(patch["status"]["podIPs"], json!([{"ip": "10.0.0.2"}]));
        let moved: PodStatus = serde_json::from_value(json!({"podIPs": [{"ip": "10.0.0.3"}]})).unwrap();
        let patch = status_patch("u", &status, &moved);
        assert_eq!(patch["status"]["podIPs"], json!([{"ip": "10.0.0.3"}, {"$patch": "replace"}]));
    }
}
