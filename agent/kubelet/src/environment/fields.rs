//! The downward API: fields of the pod and resources of a container as text. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pods::state::{container, host_network, name, namespace, spec, uid};
use crate::quantity;

/// What a pod may learn of its node and of what the node gave it.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// Addresses of the pod; empty before the sandbox is up.
    pub pod_ips: Vec<IpAddr>,
    /// Allocatable resources of the node: stand in for limits that are not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of a fieldRef.
pub fn pod_field(pod: &Pod, path: &str, node: &NodeFacts) -> Result<String, String> {
    let pod_ips = if host_network(pod) { &node.host_ips } else { &node.pod_ips };
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let all = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(match path {
        "metadata.name" => name(pod).into(),
        "metadata.namespace" => namespace(pod).into(),
        "metadata.uid" => uid(pod).into(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&node.host_ips),
        "status.hostIPs" => all(&node.host_ips),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => all(pod_ips),
        _ => {
            let entry = |map: Option<&BTreeMap<String, String>>, key: &str| {
                map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
            };
            if let Some(key) = subscript(path, "metadata.labels") {
                entry(pod.metadata.labels.as_ref(), key)
            } else if let Some(key) = subscript(path, "metadata.annotations") {
                entry(pod.metadata.annotations.as_ref(), key)
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// A map as `key="escaped value"` lines, sorted by key, as upstream formats it.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = |value: &str| serde_json::Value::from(value).to_string();
    let list: Vec<_> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    list.join("\n")
}

/// The value of a resourceFieldRef, divided by its divisor and rounded up.
pub fn resource_field(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, String> {
    let source = match selector.container_name.as_deref() {
        None | Some("") => own,
        Some(name) => container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
    };
    let (kind, resource) =
        selector.resource.split_once('.').ok_or_else(|| unsupported(&selector.resource))?;
    let resources = source.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let value = match kind {
        "limits" => {
            limits.and_then(|list| list.get(resource)).or_else(|| node.allocatable.get(resource)).cloned()
        }
        "requests" => requests.and_then(|list| list.get(resource)).or_else(|| limits?.get(resource)).cloned(),
        _ => return Err(unsupported(&selector.resource)),
    };
    let value = value.as_ref().and_then(quantity::milli).unwrap_or(0);
    let divisor = selector.divisor.as_ref().and_then(quantity::milli).filter(|d| *d > 0).unwrap_or(1000);
    Ok(((value + divisor - 1) / divisor).to_string())
}

fn unsupported(resource: &str) -> String {
    format!("unsupported container resource : {resource}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u",
                "labels": {"app": "x", "b/c": "say \"hi\""}, "annotations": {}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [{"name": "c",
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}}))
        .unwrap()
    }

    #[test]
    fn fields_of_the_pod_are_text() {
        let node = NodeFacts {
            host_ips: vec!["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()],
            pod_ips: vec!["10.244.0.5".parse().unwrap()],
            ..NodeFacts::default()
        };
        let table = [
            ("metadata.name", "web"),
            ("metadata.labels['b/c']", "say \"hi\""),
            ("metadata.labels", "app=\"x\"\nb/c=\"say \\\"hi\\\"\""),
            ("metadata.annotations['none']", ""),
            ("status.hostIPs", "172.30.0.11,fd30::11"),
            ("status.podIP", "10.244.0.5"),
            ("spec.nodeName", "n1"),
        ];
        for (path, expected) in table {
            assert_eq!(pod_field(&pod(), path, &node).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(pod_field(&pod(), "spec.x", &node).unwrap_err(), "unsupported fieldPath: spec.x");
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let node = NodeFacts {
            allocatable: [("ephemeral-storage".to_owned(), Quantity("10Gi".into()))].into(),
            ..NodeFacts::default()
        };
        let table = [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.memory", Some("1Mi"), "64"),
            ("requests.memory", None, "67108864"),
            ("limits.ephemeral-storage", Some("1Gi"), "10"),
        ];
        for (resource, divisor, expected) in table {
            let pod = pod();
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.map(|divisor| Quantity(divisor.into())),
                container_name: None,
            };
            let found = resource_field(&pod, &spec(&pod).containers[0], &selector, &node);
            assert_eq!(found.as_deref(), Ok(expected), "{resource} / {divisor:?}");
        }
    }
}
