//! NodeRestriction: a kubelet writes its own Node, its own lease and the pods on its node, and nothing else.
//!
//! Applies to users of the group `system:nodes` with a name `system:node:NAME`.

use api::status::{ApiError, quote};
use serde_json::Value;

use super::service_account::MIRROR_ANNOTATION;
use super::{AdmissionRequest, Operation};
use crate::auth::node::node_of;
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Labels under this prefix are for administrators to isolate nodes by: a node may not give itself one.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io/";
const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(super) async fn admit(registry: &Registry, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let Some(node) = node_of(&request.attributes.user) else { return Ok(()) };
    let (group, plural) = (request.resource.group, request.resource.plural);
    let outcome = match (group, plural, request.attributes.subresource.as_str()) {
        ("", "pods", "") => pod(node, request),
        ("", "pods", "status") => pod_status(node, request),
        ("", "pods", "eviction") => Ok(()),
        ("", "pods", other) => Err(format!(
            "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
            quote(other)
        )),
        ("", "nodes", _) => own_node(node, request),
        ("coordination.k8s.io", "leases", "") => own_lease(node, request),
        ("", "serviceaccounts", "token") => token_for_own_pod(registry, node, request).await,
        _ => Ok(()),
    };
    outcome.map_err(|why| request.forbidden(why))
}

fn runs_on(pod: &Value, node: &str) -> bool {
    pod["spec"]["nodeName"] == node
}

fn pod(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let name = quote(node);
    match request.operation {
        Operation::Create => {
            let Some(pod) = &request.object else { return Ok(()) };
            if pod["metadata"]["annotations"][MIRROR_ANNOTATION].is_null() {
                return Err(format!(
                    "pod does not have {} annotation, node {name} can only create mirror pods",
                    quote(MIRROR_ANNOTATION)
                ));
            }
            if !runs_on(pod, node) {
                return Err(format!("node {name} can only create pods with spec.nodeName set to itself"));
            }
            Ok(())
        }
        Operation::Delete => match request.old_value() {
            Some(pod) if !runs_on(&pod, node) => {
                Err(format!("node {name} can only delete pods with spec.nodeName set to itself"))
            }
            _ => Ok(()),
        },
        operation => Err(format!(
            "unexpected operation {}, node {name} can only create and delete mirror pods",
            upper(operation)
        )),
    }
}

fn upper(operation: Operation) -> String {
    quote(&format!("{operation:?}").to_uppercase())
}

fn pod_status(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let Some(old) = request.old_value() else { return Ok(()) };
    if !runs_on(&old, node) {
        return Err(format!(
            "node {} can only update pod status for pods with spec.nodeName set to itself",
            quote(node)
        ));
    }
    let labels = |pod: &Value| pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    match &request.object {
        Some(new) if labels(new) != labels(&old) => {
            Err(format!("node {} cannot update labels through pod status", quote(node)))
        }
        _ => Ok(()),
    }
}

fn own_node(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let asked = match request.attributes.name.as_str() {
        "" => {
            request.object.as_ref().and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default()
        }
        name => name,
    };
    if asked != node {
        return Err(format!("node {} is not allowed to modify node {}", quote(node), quote(asked)));
    }
    let Some(new) = &request.object else { return Ok(()) };
    let old = request.old_value().unwrap_or_default();
    let taints = |object: &Value| object["spec"]["taints"].as_array().cloned().unwrap_or_default();
    if request.operation == Operation::Update && taints(new) != taints(&old) {
        return Err(format!("node {} is not allowed to modify taints", quote(node)));
    }
    let restricted = restricted_changes(&old["metadata"]["labels"], &new["metadata"]["labels"]);
    if restricted.is_empty() {
        return Ok(());
    }
    let action = if request.operation == Operation::Create { "set the following" } else { "modify" };
    Err(format!("is not allowed to {action} labels: {}", restricted.join(", ")))
}

/// Restricted labels that differ between two label maps.
fn restricted_changes(old: &Value, new: &Value) -> Vec<String> {
    let keys = [old, new].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.keys());
    let mut changed: Vec<String> = keys
        .filter(|key| {
            let domain = key.split_once('/').map_or("", |(domain, _)| domain);
            let restricted = RESTRICTED_LABELS.trim_end_matches('/');
            domain == restricted || domain.ends_with(&format!(".{restricted}"))
        })
        .filter(|key| old[key.as_str()] != new[key.as_str()])
        .cloned()
        .collect();
    changed.sort();
    changed.dedup();
    changed
}

fn own_lease(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.attributes.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {} system namespace", quote(LEASE_NAMESPACE)));
    }
    let asked = match request.operation {
        Operation::Create => {
            request.object.as_ref().and_then(|lease| lease["metadata"]["name"].as_str()).unwrap_or_default()
        }
        _ => request.attributes.name.as_str(),
    };
    if asked == node {
        Ok(())
    } else {
        Err("can only access node lease with the same name as the requesting node".to_owned())
    }
}

async fn token_for_own_pod(
    registry: &Registry,
    node: &str,
    request: &AdmissionRequest<'_>,
) -> Result<(), String> {
    let reference = request.object.as_ref().map_or(&Value::Null, |token| &token["spec"]["boundObjectRef"]);
    let (name, uid) = bound_pod(reference)?;
    let pod = registry
        .get(rows::pods(), &request.attributes.namespace, name)
        .await
        .map_err(|error| error.message)?
        .value();
    if pod["metadata"]["uid"] != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if runs_on(&pod, node) {
        Ok(())
    } else {
        Err("node requested token bound to a pod scheduled on a different node".to_owned())
    }
}

/// Name and uid of the pod that a token shall be bound to.
fn bound_pod(reference: &Value) -> Result<(&str, &str), String> {
    if reference.is_null() || reference["kind"] != "Pod" || reference["apiVersion"] != "v1" {
        return Err("node requested token not bound to a pod".to_owned());
    }
    let text = |field: &str| reference[field].as_str().filter(|text| !text.is_empty());
    let name = text("name").ok_or("node requested token not bound to a pod")?;
    let uid = text("uid").ok_or("node requested token with a pod binding without a uid")?;
    Ok((name, uid))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::*;
    use crate::attributes::UserInfo;

    fn kubelet() -> UserInfo {
        UserInfo::named("system:node:n1", &["system:nodes"])
    }

    #[track_caller]
    fn check(
        decide: impl Fn(&str, &AdmissionRequest<'_>) -> Result<(), String>,
        request: &str,
        object: Value,
        expected: Result<(), &str>,
    ) {
        let attributes = testing::attributes(kubelet(), request);
        let request = testing::request(&attributes, Some(object));
        assert_eq!(decide("n1", &request), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_kubelet_creates_mirror_pods_of_its_own_node_only() {
        let mirror = |node: &str| json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "h"}}, "spec": {"nodeName": node}});
        check(pod, "create core/pods shop", mirror("n1"), Ok(()));
        check(
            pod,
            "create core/pods shop",
            mirror("n2"),
            Err(r#"node "n1" can only create pods with spec.nodeName set to itself"#),
        );
        check(
            pod,
            "create core/pods shop",
            json!({"spec": {"nodeName": "n1"}}),
            Err(
                r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#,
            ),
        );
    }

    #[test]
    fn a_kubelet_writes_its_own_node_and_lease_only() {
        check(own_node, "create core/nodes", json!({"metadata": {"name": "n1"}}), Ok(()));
        check(
            own_node,
            "create core/nodes",
            json!({"metadata": {"name": "n2"}}),
            Err(r#"node "n1" is not allowed to modify node "n2""#),
        );
        check(
            own_node,
            "update core/nodes - n1",
            json!({"spec": {"taints": [{"key": "x"}]}}),
            Err(r#"node "n1" is not allowed to modify taints"#),
        );
        check(
            own_node,
            "update core/nodes - n1",
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/pci": "1", "zone": "a"}}}),
            Err("is not allowed to modify labels: node-restriction.kubernetes.io/pci"),
        );
        let lease = |name: &str| json!({"metadata": {"name": name}});
        check(
            own_lease,
            "create coordination.k8s.io/leases shop",
            lease("n1"),
            Err(r#"can only access leases in the "kube-node-lease" system namespace"#),
        );
        let mut attributes = testing::attributes(kubelet(), "create coordination.k8s.io/leases x");
        attributes.namespace = LEASE_NAMESPACE.to_owned();
        assert_eq!(own_lease("n1", &testing::request(&attributes, Some(lease("n1")))), Ok(()));
        assert!(own_lease("n1", &testing::request(&attributes, Some(lease("n2")))).is_err());
    }

    #[test]
    fn a_kubelets_token_is_bound_to_a_pod_by_uid() {
        let reference =
            |kind: &str, uid: &str| json!({"apiVersion": "v1", "kind": kind, "name": "p", "uid": uid});
        assert_eq!(bound_pod(&reference("Pod", "u")), Ok(("p", "u")));
        assert_eq!(bound_pod(&Value::Null), Err("node requested token not bound to a pod".into()));
        assert_eq!(
            bound_pod(&reference("Secret", "u")),
            Err("node requested token not bound to a pod".into())
        );
        assert_eq!(
            bound_pod(&reference("Pod", "")),
            Err("node requested token with a pod binding without a uid".into())
        );
    }
}
