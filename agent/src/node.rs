//! What the network needs of a Node object, taken from it once; the rest (images, conditions, heartbeats) is not kept.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use network::Cidr;

/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Taint by which an autoscaler says that it is about to remove a node (KEP-3836).
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// status.addresses of the types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// spec.podCIDRs.
    pub pod_cidrs: Vec<Cidr>,
    /// Its zone, empty if it has none.
    pub zone: String,
    /// It is about to go: deleted, or tainted by an autoscaler.
    pub leaving: bool,
}

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let taints = || spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let usable =
            addresses.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
        let pod_cidrs = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        Self {
            addresses: usable.filter_map(|address| address.address.parse().ok()).collect(),
            pod_cidrs: pod_cidrs.filter_map(|text| text.parse().ok()).collect(),
            zone: node.labels().get(ZONE_LABEL).cloned().unwrap_or_default(),
            leaving: node.metadata.deletion_timestamp.is_some()
                || taints().any(|taint| taint.key == DELETION_TAINT),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn facts(json: serde_json::Value) -> NodeFacts {
        NodeFacts::from(&serde_json::from_value::<Node>(json).unwrap())
    }

    #[test]
    fn a_heartbeat_is_no_change_of_the_network_and_an_address_is() {
        let with = |address: &str, heartbeat: &str| {
            facts(serde_json::json!({
                "metadata": {"name": "n", "labels": {ZONE_LABEL: "a"}},
                "spec": {"podCIDRs": ["10.244.1.0/24"]},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "n"}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}]
                }
            }))
        };
        let first = with("172.30.0.11", "2026-01-01T00:00:00Z");
        assert_eq!(first, with("172.30.0.11", "2026-01-01T00:00:10Z"));
        assert_ne!(first, with("172.30.0.12", "2026-01-01T00:00:00Z"));
        assert_eq!(first.addresses, ["172.30.0.11".parse::<IpAddr>().unwrap()]);
        assert_eq!((first.pod_cidrs, first.zone), (vec!["10.244.1.0/24".parse().unwrap()], "a".to_owned()));
    }

    #[test]
    fn a_node_that_is_about_to_go_is_told_by_taint_or_deletion() {
        let tainted =
            serde_json::json!({"spec": {"taints": [{"key": DELETION_TAINT, "effect": "NoSchedule"}]}});
        let deleted = serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        for (json, expected) in [(serde_json::json!({}), false), (tainted, true), (deleted, true)] {
            assert_eq!(facts(json).leaving, expected);
        }
    }
}
