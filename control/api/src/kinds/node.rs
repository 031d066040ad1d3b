//! core/v1 Node.
//!
//! A kubelet registers its node with a status, so unlike other kinds the status of a new node is kept.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata, pod};
use crate::strategy::{Column, Strategy};

/// core/v1 Node.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Strategy for Node {
    fn namespaced(&self) -> bool {
        false
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        field::map_mut(object, "spec");
        let Some(status) = field::map_mut(object, "status") else { return };
        for list in ["capacity", "allocatable"] {
            pod::defaults::canonical_quantities(status.get_mut(list));
        }
        if let Some(capacity) = status.get("capacity").filter(|capacity| !capacity.is_null()).cloned() {
            field::set_if_absent(status, "allocatable", capacity);
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        metadata::keep(new, old, "status");
        metadata::count_generation(new, old, false);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", field::flag(object, "/spec/unschedulable").to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Status", "Whether the node is ready, and whether it takes new pods."),
            Column::text("Roles", "Roles that the node's labels name."),
            Column::AGE,
            Column::text("Version", "Version that the node's kubelet reports."),
            Column::wide("Internal-IP", "Address of the node inside the cluster."),
            Column::wide("External-IP", "Address of the node outside the cluster."),
            Column::wide("OS-Image", "Operating system of the node."),
            Column::wide("Kernel-Version", "Kernel of the node."),
            Column::wide("Container-Runtime", "Container runtime of the node and its version."),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |key: &str| field::text(object, &format!("/status/nodeInfo/{key}")).to_owned();
        let known = |key: &str| Some(info(key)).filter(|text| !text.is_empty()).unwrap_or_else(|| cell::UNKNOWN.to_owned());
        vec![
            cell::name(object),
            status(object).into(),
            cell::or_none(roles(object)).into(),
            cell::age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            known("osImage").into(),
            known("kernelVersion").into(),
            known("containerRuntimeVersion").into(),
        ]
    }
}

fn status(node: &Value) -> String {
    let ready = field::list(node, "/status/conditions").iter().rev().find(|condition| field::text(condition, "/type") == "Ready");
    let ready = match ready.map(|condition| field::text(condition, "/status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    if field::flag(node, "/spec/unschedulable") { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = field::texts(node, "/metadata/labels")
        .filter_map(|(key, value)| if key == "kubernetes.io/role" { Some(value) } else { key.strip_prefix("node-role.kubernetes.io/") })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Value, kind: &str) -> String {
    let found = field::list(node, "/status/addresses").iter().find(|address| field::text(address, "/type") == kind);
    found.map_or(cell::NONE, |address| field::text(address, "/address")).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_readiness_roles_and_addresses() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "a": "b"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}, {"type": "InternalIP", "address": "fd30::11"}],
                "nodeInfo": {"kubeletVersion": "v1.35.0", "kernelVersion": "6.1"},
            },
        });
        let row = Node.cells(&node, "2026-01-01T00:00:00Z".parse().unwrap());
        let expected = ["n", "Ready,SchedulingDisabled", "control-plane,worker", "<unknown>", "v1.35.0", "172.30.0.11", "<none>", "<unknown>", "6.1", "<unknown>"];
        assert_eq!(row, expected.map(Value::from));
        assert_eq!(row.len(), Node.columns().len());
        let bare = Node.cells(&json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}), "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(bare[1..3], ["NotReady", "<none>"].map(Value::from));
    }

    #[test]
    fn a_node_registers_with_its_status() {
        let mut node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}});
        Node.default(&mut node);
        Node.prepare_create(&mut node);
        assert_eq!(node["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
    }
}
