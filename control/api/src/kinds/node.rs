//! core/v1 Node.
//!
//! A kubelet registers its node with a status, so unlike other kinds the status of a new node is kept.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::at::At;
use super::{address, cell, field, metadata, names, pod};
use crate::quantity::Quantity;
use crate::status::FieldError;
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
        if let Some(spec) = field::map_mut(object, "spec") {
            align_pod_cidrs(spec);
        }
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

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = At::new(object, "").child("spec");
        taints(&spec, &mut errors);
        pod_cidrs(&spec, &mut errors);
        resources(object, &mut errors);
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new, old) = (At::new(new, "").child("spec"), At::new(old, "").child("spec"));
        // The ranges may come once, when the node is registered without them.
        if old.len("podCIDRs") > 0 && !new.child("podCIDRs").same(&old.child("podCIDRs")) {
            errors.push(
                new.forbidden("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
            );
        }
        if !old.text("providerID").is_empty() && new.text("providerID") != old.text("providerID") {
            errors.push(
                new.forbidden(
                    "providerID",
                    "node updates may not change providerID except from \"\" to valid",
                ),
            );
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        resources(new, &mut errors);
        errors
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
        let known = |key: &str| {
            Some(info(key)).filter(|text| !text.is_empty()).unwrap_or_else(|| cell::UNKNOWN.to_owned())
        };
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

/// `podCIDR` is the old form of the head of `podCIDRs`; upstream answers both, and reads the old one when the list is empty.
fn align_pod_cidrs(spec: &mut Map<String, Value>) {
    let head = spec.get("podCIDRs").and_then(|list| list.get(0)).cloned();
    match (head, spec.get("podCIDR").filter(|cidr| !field::is_zero(cidr)).cloned()) {
        (Some(head), _) => {
            spec.insert("podCIDR".to_owned(), head);
        }
        (None, Some(cidr)) => {
            spec.insert("podCIDRs".to_owned(), vec![cidr].into());
        }
        (None, None) => {}
    }
}

fn status(node: &Value) -> String {
    let ready = field::list(node, "/status/conditions")
        .iter()
        .rev()
        .find(|condition| field::text(condition, "/type") == "Ready");
    let ready = match ready.map(|condition| field::text(condition, "/status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    if field::flag(node, "/spec/unschedulable") {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = field::texts(node, "/metadata/labels")
        .filter_map(|(key, value)| {
            if key == "kubernetes.io/role" {
                Some(value)
            } else {
                key.strip_prefix("node-role.kubernetes.io/")
            }
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Value, kind: &str) -> String {
    let found =
        field::list(node, "/status/addresses").iter().find(|address| field::text(address, "/type") == kind);
    found.map_or(cell::NONE, |address| field::text(address, "/address")).to_owned()
}

fn taints(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in spec.items("taints") {
        let key = taint.text("key");
        metadata::invalid(errors, &taint.path_of("key"), key, names::qualified_name(key));
        let messages = names::label_value(taint.text("value"));
        if !messages.is_empty() {
            errors.push(taint.invalid("value", messages.join(";")));
        }
        let effect = taint.text("effect");
        if effect.is_empty() {
            errors.push(taint.required("effect", ""));
        } else {
            taint.check_choice("effect", pod::scheduling::TAINT_EFFECTS, errors);
        }
        if seen.contains(&(key, effect)) {
            let mut duplicate = FieldError::duplicate(taint.path.clone(), taint.value.clone());
            "taints must be unique by key and effect pair".clone_into(&mut duplicate.detail);
            errors.push(duplicate);
        }
        seen.push((key, effect));
    }
}

fn pod_cidrs(spec: &At<'_>, errors: &mut Vec<FieldError>) {
    for range in spec.items("podCIDRs") {
        errors.extend(address::invalid_cidr(&range.path, range.as_text()));
    }
    let families: Vec<bool> = spec
        .items("podCIDRs")
        .filter_map(|range| address::parse_cidr(range.as_text()))
        .map(|(address, _)| address.is_ipv4())
        .collect();
    if families.len() > 2 || matches!(families.as_slice(), [first, second] if first == second) {
        errors.push(spec.invalid("podCIDRs", "may specify no more than one CIDR for each IP family"));
    }
}

fn resources(node: &Value, errors: &mut Vec<FieldError>) {
    let status = At::new(node, "").child("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status.entries(list) {
            metadata::invalid(errors, &amount.path, name, names::qualified_name(name));
            match Quantity::parse(amount.as_text()) {
                Ok(quantity) if quantity.is_negative() => {
                    errors.push(FieldError::invalid(
                        amount.path,
                        quantity.to_string(),
                        "must be greater than or equal to 0",
                    ));
                }
                _ => {}
            }
        }
    }
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
        let expected = [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "<unknown>",
            "v1.35.0",
            "172.30.0.11",
            "<none>",
            "<unknown>",
            "6.1",
            "<unknown>",
        ];
        assert_eq!(row, expected.map(Value::from));
        assert_eq!(row.len(), Node.columns().len());
        let bare = Node.cells(
            &json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            "2026-01-01T00:00:00Z".parse().unwrap(),
        );
        assert_eq!(bare[1..3], ["NotReady", "<none>"].map(Value::from));
    }

    #[track_caller]
    fn check(errors: &[FieldError], expected: &[&str]) {
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn taints_are_unique_by_key_and_effect() {
        let node = |taints: Value| Node.validate(&json!({"spec": {"taints": taints}}));
        check(&node(json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}])), &[]);
        check(
            &node(
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "x"}, {"key": "b", "effect": "Maybe"}]),
            ),
            &[
                "spec.taints[1]: Duplicate value: {\"key\":\"a\",\"effect\":\"NoSchedule\",\"value\":\"x\"}: taints must be unique by key and effect pair",
                "spec.taints[2].effect: Unsupported value: \"Maybe\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ],
        );
    }

    #[test]
    fn pod_ranges_come_once() {
        let node = |cidrs: &[&str]| json!({"spec": {"podCIDRs": cidrs}});
        let both = node(&["10.244.0.0/24", "fd00:10:244::/64"]);
        check(&Node.validate(&both), &[]);
        check(&Node.validate_transition(&both, &node(&[])), &[]);
        check(
            &Node.validate_transition(&node(&["10.244.1.0/24"]), &both),
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        );
        check(
            &Node.validate(&node(&["10.244.0.0/24", "10.244.1.0/24"])),
            &[
                "spec.podCIDRs: Invalid value: [\"10.244.0.0/24\",\"10.244.1.0/24\"]: may specify no more than one CIDR for each IP family",
            ],
        );
    }

    #[test]
    fn a_node_registers_with_its_status() {
        let mut node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}});
        Node.default(&mut node);
        Node.prepare_create(&mut node);
        assert_eq!(node["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
    }
}
