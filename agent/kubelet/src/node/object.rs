//! The Node object: labels, capacity, addresses, conditions. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use crate::containerd::images::StoredImage;

/// Images that a status lists, at most.
const MAX_IMAGES: usize = 50;

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Name of the Node object.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// Addresses, preferred first.
    pub addresses: Vec<IpAddr>,
    /// Port of the HTTPS server.
    pub port: u16,
    /// Versions and ids.
    pub info: NodeSystemInfo,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Size of the file system with the pods' data.
    pub storage_bytes: u64,
    /// Number of pods.
    pub max_pods: u32,
}

/// How the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why it is not ready; none: it is.
    pub problems: Vec<String>,
    /// Whether pods can get a network.
    pub network_ready: bool,
}

/// The whole object, as for a first registration.
pub fn node(facts: &NodeFacts, health: &Health, images: &[StoredImage], now: Timestamp) -> Node {
    let resources = capacity(facts);
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels(facts)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            addresses: Some(addresses(facts)),
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(conditions(health, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: facts.port.into() }),
            }),
            images: Some(list_images(images)),
            node_info: Some(facts.info.clone()),
            ..NodeStatus::default()
        }),
    }
}

/// Labels that a kubelet sets on its own node.
pub fn labels(facts: &NodeFacts) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", facts.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &facts.info.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", &facts.info.architecture),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Resources of the node; nothing is held back for the system, so all of it is allocatable.
pub fn capacity(facts: &NodeFacts) -> BTreeMap<String, Quantity> {
    [
        ("cpu", facts.cpus.to_string()),
        ("memory", format!("{}Ki", facts.memory_bytes / 1024)),
        ("ephemeral-storage", format!("{}Ki", facts.storage_bytes / 1024)),
        ("pods", facts.max_pods.to_string()),
        ("hugepages-1Gi", "0".into()),
        ("hugepages-2Mi", "0".into()),
    ]
    .map(|(name, value)| (name.to_owned(), Quantity(value)))
    .into()
}

fn addresses(facts: &NodeFacts) -> Vec<NodeAddress> {
    let internal = facts.addresses.iter().map(|ip| ("InternalIP", ip.to_string()));
    internal
        .chain([("Hostname", facts.hostname.clone())])
        .map(|(type_, address)| NodeAddress { type_: type_.into(), address })
        .collect()
}

fn list_images(images: &[StoredImage]) -> Vec<ContainerImage> {
    let mut by_digest: BTreeMap<&str, ContainerImage> = BTreeMap::new();
    for image in images {
        let entry = by_digest.entry(&image.digest).or_insert_with(|| ContainerImage {
            names: Some(Vec::new()),
            size_bytes: Some(image.size_bytes),
        });
        entry.names.get_or_insert_default().push(image.name.clone());
    }
    let mut list: Vec<_> = by_digest.into_values().collect();
    list.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    list.truncate(MAX_IMAGES);
    list
}

fn conditions(health: &Health, now: Timestamp) -> Vec<NodeCondition> {
    let ready = health.problems.is_empty();
    let ready_text =
        if ready { "kubelet is posting ready status".into() } else { health.problems.join(", ") };
    let rows = [
        (
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available".into(),
        ),
        ("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure".into()),
        ("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".into()),
        if health.network_ready {
            ("NetworkUnavailable", false, "PodNetworkReady", "pod ranges are set and routed".to_owned())
        } else {
            ("NetworkUnavailable", true, "NoPodCIDR", "the node has no podCIDR yet".to_owned())
        },
        ("Ready", ready, if ready { "KubeletReady" } else { "KubeletNotReady" }, ready_text),
    ];
    rows.into_iter()
        .map(|(type_, status, reason, message)| NodeCondition {
            type_: type_.into(),
            status: if status { "True" } else { "False" }.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        })
        .collect()
}

/// Strategic merge patch of the status. `known` is what the API has: transition times of unchanged conditions stay.
/// Addresses are replaced as a whole, for the API merges them by type, of which there may be two.
pub fn status_patch(built: &Node, known: Option<&NodeStatus>) -> Value {
    let mut status = built.status.clone().unwrap_or_default();
    let old = known.and_then(|known| known.conditions.as_deref()).unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        let same = old.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(since) = same.and_then(|old| old.last_transition_time.clone()) {
            condition.last_transition_time = Some(since);
        }
    }
    let mut body = serde_json::to_value(&status).unwrap_or_default();
    if let Some(addresses) = body.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.push(json!({"$patch": "replace"}));
    }
    json!({"status": body})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "node1".into(),
            hostname: "node1".into(),
            addresses: vec!["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()],
            port: 10250,
            info: NodeSystemInfo { architecture: "amd64".into(), ..NodeSystemInfo::default() },
            cpus: 2,
            memory_bytes: 1 << 30,
            storage_bytes: 1 << 40,
            max_pods: 110,
        }
    }

    #[test]
    fn a_node_shows_its_addresses_and_resources() {
        let health = Health { problems: Vec::new(), network_ready: true };
        let node = node(&facts(), &health, &[], Timestamp::UNIX_EPOCH);
        let status = serde_json::to_value(node.status.unwrap()).unwrap();
        assert_eq!(status["addresses"][1], json!({"type": "InternalIP", "address": "fd30::11"}));
        assert_eq!(status["capacity"]["memory"], "1048576Ki");
        assert_eq!(status["conditions"][4]["reason"], "KubeletReady");
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let bad = Health { problems: vec!["container runtime is down".into()], network_ready: true };
        let before = node(&facts(), &bad, &[], Timestamp::UNIX_EPOCH).status;
        let later = Timestamp::from_second(100).unwrap();
        let time = |health: &Health, index: usize| {
            let patch = status_patch(&node(&facts(), health, &[], later), before.as_ref());
            patch["status"]["conditions"][index]["lastTransitionTime"].as_str().unwrap().to_owned()
        };
        assert_eq!(time(&bad, 4), "1970-01-01T00:00:00Z");
        let good = Health { problems: Vec::new(), network_ready: true };
        assert_eq!(time(&good, 4), "1970-01-01T00:01:40Z");
        assert_eq!(time(&good, 0), "1970-01-01T00:00:00Z");
    }
}
