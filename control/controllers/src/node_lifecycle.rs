//! Notices nodes that fell silent, and keeps the taints that mirror a node's conditions (upstream: pkg/controller/nodelifecycle).
//! Owns those taints, and the conditions of a silent node; reads leases. Woken by nodes and node leases.
//! Pods are driven away by `taint_eviction`, not here.
//!
//! # Limits
//! There are no zones: nodes are judged one by one.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::plan::{self, Action, Context, EventKind, Notes, PatchStyle, Plan, Target};
use crate::pod;
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[Watch::Node(of_node), Watch::Lease(of_lease)];

/// Namespace of the leases that nodes renew.
pub const LEASES: &str = "kube-node-lease";

/// A node that was not heard of for this long is not known to be well. Its lease is renewed every 10 s.
const GRACE: SignedDuration = SignedDuration::from_secs(40);

/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that taint a node (NoSchedule) when they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that nobody vouches for once the node is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// A node that turns ready, or stops being so, decides whether the others may be emptied.
fn of_node(view: &View, change: &Change<Node>) -> Vec<Key> {
    let ready = |it: &Arc<Node>| condition(it, "Ready").map(|it| it.status.clone());
    if change.old.as_ref().map(ready) != change.new.as_ref().map(ready) {
        return view.nodes.all().iter().map(|it| Key::of(&it.metadata)).collect();
    }
    change.new.iter().map(|it| Key::of(&it.metadata)).collect()
}

fn of_lease(_: &View, change: &Change<Lease>) -> Vec<Key> {
    change
        .latest()
        .filter(|it| it.metadata.namespace.as_deref() == Some(LEASES))
        .map(|it| Key::cluster(it.metadata.name.clone().unwrap_or_default()))
        .into_iter()
        .collect()
}

fn condition<'a>(node: &'a Node, name: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|it| it.type_ == name)
}

/// The latest signs of life of a node, by the node's own clock: lease and heartbeat.
fn signs(view: &View, node: &Node) -> [Option<Timestamp>; 2] {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let lease = view.leases.get(LEASES, name);
    let ready = condition(node, "Ready");
    [
        lease.and_then(|it| it.spec.as_ref()?.renew_time.as_ref().map(|it| it.0)),
        ready.and_then(|it| it.last_heartbeat_time.as_ref()).map(|it| it.0),
    ]
}

/// Whether another node is well, as far as its own clock can be trusted.
fn is_well(view: &View, node: &Node, context: &Context<'_>) -> bool {
    let heard = signs(view, node).into_iter().flatten().fold(context.since, Timestamp::max);
    let ready = condition(node, "Ready").is_some_and(|it| it.status == "True");
    ready && context.now.duration_since(heard) <= GRACE
}

/// Decides about the node under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let Some(node) = view.nodes.at(key) else { return Plan::await_change() };
    if node.metadata.deletion_timestamp.is_some() {
        return Plan::await_change();
    }
    // A sign counts from when it was first seen here, so that the clocks of nodes do not matter.
    let signs = signs(view, &node).map(|it| it.map_or_else(String::new, |it| it.to_string())).join(" ");
    let heard = context.noted.get(&signs).copied().unwrap_or(context.now);
    let is_silent = context.now.duration_since(heard) > GRACE;
    let ready = match condition(&node, "Ready") {
        _ if is_silent => "Unknown",
        Some(it) => it.status.as_str(),
        None => "",
    };
    // When no node is well, the fault is more likely ours than theirs: nobody is driven away.
    let may_evict = ready == "True" || view.nodes.all().iter().any(|it| is_well(view, it, context));

    let mut plan = Plan { noted: Notes::from([(signs, heard)]), ..Plan::default() };
    if context.noted.is_empty() {
        let text = format!("Node {0} event: Registered Node {0} in Controller", key.name);
        plan.actions.push(plan::event(&*node, EventKind::Normal, "RegisteredNode", text));
    }
    plan.actions.extend(taint(&node, ready, may_evict, context.now));
    if is_silent {
        plan.actions.extend(silence(view, &node, context.now));
    } else {
        let left = GRACE - context.now.duration_since(heard);
        plan.requeue_after(Duration::from_secs(u64::try_from(left.as_secs()).unwrap_or(0) + 1));
    }
    plan
}

/// The patch that brings the node's own taints in line with its conditions, if they differ.
fn taint(node: &Node, ready: &str, may_evict: bool, now: Timestamp) -> Option<Action> {
    let current = node.spec.as_ref().and_then(|it| it.taints.clone()).unwrap_or_default();
    let wanted = wanted_taints(node, ready, may_evict);
    let is_ours = |it: &Taint| {
        let pressure = PRESSURES.iter().any(|(_, key)| it.key == *key) || it.key == UNSCHEDULABLE;
        matches!(it.key.as_str(), NOT_READY | UNREACHABLE)
            && matches!(it.effect.as_str(), "NoSchedule" | "NoExecute")
            || pressure && it.effect == "NoSchedule"
    };
    let is_wanted = |it: &Taint| wanted.iter().any(|(key, effect)| it.key == *key && it.effect == *effect);
    let mut taints: Vec<Taint> = current.iter().filter(|it| !is_ours(it) || is_wanted(it)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|it| it.key == *key && it.effect == *effect) {
            let time_added = (*effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: (*key).into(), effect: (*effect).into(), value: None, time_added });
        }
    }
    let patch = json!({"spec": {"taints": if taints.is_empty() { Value::Null } else { json!(taints) }}});
    (taints != current).then(|| plan::guarded_patch(node, patch))
}

fn wanted_taints(node: &Node, ready: &str, may_evict: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = match ready {
        "True" => vec![],
        "Unknown" => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        "False" => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        _ => vec![(NOT_READY, "NoSchedule")],
    };
    if !may_evict {
        wanted.retain(|(_, effect)| *effect != "NoExecute");
    }
    let is_true = |name: &str| condition(node, name).is_some_and(|it| it.status == "True");
    wanted.extend(PRESSURES.iter().filter(|(name, _)| is_true(name)).map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().and_then(|it| it.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// What is to be written about a node that fell silent: its conditions are unknown, its pods are not ready.
fn silence(view: &View, node: &Node, now: Timestamp) -> Vec<Action> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut actions = Vec::new();
    let stale: Vec<Value> = REPORTED
        .iter()
        .filter(|it| condition(node, it).is_none_or(|known| known.status != "Unknown"))
        .map(|it| unknown(it, condition(node, it).is_some(), now))
        .collect();
    if !stale.is_empty() {
        actions.push(Action::Patch {
            target: Target::of(node),
            subresource: Some("status"),
            style: PatchStyle::Strategic,
            patch: json!({"status": {"conditions": stale}}),
        });
        let text = format!("Node {name} status is now: NodeNotReady");
        actions.push(plan::event(node, EventKind::Normal, "NodeNotReady", text));
    }
    for pod in view.pods.indexed(name).iter().filter(|it| pod::is_ready(it) && !pod::is_finished(it)) {
        actions.push(Action::Patch {
            target: Target::of(&**pod),
            subresource: Some("status"),
            style: PatchStyle::Strategic,
            patch: json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": Time(now)}]}}),
        });
        actions.push(plan::event(&**pod, EventKind::Warning, "NodeNotReady", "Node is not ready".into()));
    }
    actions
}

fn unknown(name: &str, was_reported: bool, now: Timestamp) -> Value {
    let (reason, message) = if was_reported {
        ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    } else {
        ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
    };
    json!({"type": name, "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": Time(now)})
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::fake::{NOW, describe, pod_line, settings};

    /// `name ready seconds-since-renewal [taint:effect ..]`
    fn add(view: &View, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let renewed = NOW - SignedDuration::from_secs(words[2].parse().unwrap_or(0));
        let taints = words[3..].iter().filter_map(|it| it.split_once(':')).map(|(key, effect)| Taint {
            key: key.into(),
            effect: effect.into(),
            ..Taint::default()
        });
        let mut node = Node::default();
        node.metadata.name = Some(words[0].into());
        node.spec = Some(NodeSpec { taints: Some(taints.collect()), ..NodeSpec::default() });
        let ready =
            NodeCondition { type_: "Ready".into(), status: words[1].into(), ..NodeCondition::default() };
        node.status = Some(NodeStatus { conditions: Some(vec![ready]), ..NodeStatus::default() });
        view.nodes.apply(node);
        let mut lease = Lease::default();
        lease.metadata.namespace = Some(LEASES.into());
        lease.metadata.name = Some(words[0].into());
        lease.spec = Some(LeaseSpec { renew_time: Some(MicroTime(renewed)), ..LeaseSpec::default() });
        view.leases.apply(lease);
    }

    /// Decides about `n1`, whose last sign of life was seen `heard` seconds ago.
    fn check(nodes: &[&str], heard: i64, want: Expect) {
        let view = View::default();
        nodes.iter().for_each(|it| add(&view, it));
        view.pods.apply(pod_line("a n1 Ready 5m", None));
        let settings = settings();
        let first = Context { since: NOW - SignedDuration::from_secs(600), ..Context::at(NOW, &settings) };
        let mut noted = plan(&view, &Key::cluster("n1"), &first).noted;
        noted.values_mut().for_each(|it| *it -= SignedDuration::from_secs(heard));
        let context = Context { noted: &noted, ..first };
        want.assert_eq(&describe(&plan(&view, &Key::cluster("n1"), &context)));
    }

    #[test]
    fn a_node_that_is_seen_for_the_first_time_is_greeted() {
        let view = View::default();
        add(&view, "n1 True 3");
        let settings = settings();
        expect![[r#"
            event Normal RegisteredNode Node n1 event: Registered Node n1 in Controller
            requeue after 41s
        "#]]
        .assert_eq(&describe(&plan(&view, &Key::cluster("n1"), &Context::at(NOW, &settings))));
    }

    #[test]
    fn a_ready_node_loses_the_taint_it_was_born_with() {
        check(
            &["n1 True 3 node.kubernetes.io/not-ready:NoSchedule gpu:NoSchedule"],
            3,
            expect![[r#"
            patch Node n1 {"spec":{"taints":[{"effect":"NoSchedule","key":"gpu"}]}}
            requeue after 38s
        "#]],
        );
    }

    #[test]
    fn a_silent_node_is_unknown_tainted_and_its_pods_not_ready() {
        check(
            &["n1 True 41", "n2 True 1"],
            41,
            expect![[r#"
            patch Node n1 {"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"2027-01-15T08:00:00Z"}]}}
            patch Node/status n1 {"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"Kubelet stopped posting node status.","lastTransitionTime":"2027-01-15T08:00:00Z"},{"type":"MemoryPressure","status":"Unknown","reason":"NodeStatusNeverUpdated","message":"Kubelet never posted node status.","lastTransitionTime":"2027-01-15T08:00:00Z"},{"type":"DiskPressure","status":"Unknown","reason":"NodeStatusNeverUpdated","message":"Kubelet never posted node status.","lastTransitionTime":"2027-01-15T08:00:00Z"},{"type":"PIDPressure","status":"Unknown","reason":"NodeStatusNeverUpdated","message":"Kubelet never posted node status.","lastTransitionTime":"2027-01-15T08:00:00Z"}]}}
            event Normal NodeNotReady Node n1 status is now: NodeNotReady
            patch Pod/status a {"status":{"conditions":[{"type":"Ready","status":"False","lastTransitionTime":"2027-01-15T08:00:00Z"}]}}
            event Warning NodeNotReady Node is not ready
        "#]],
        );
    }

    #[test]
    fn when_no_node_is_well_nobody_is_driven_away() {
        check(
            &["n1 False 1", "n2 True 99"],
            1,
            expect![[r#"
            patch Node n1 {"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"}]}}
            requeue after 40s
        "#]],
        );
    }

    #[test]
    fn what_counts_is_when_a_sign_was_first_seen_not_what_the_node_says_the_time_was() {
        check(
            &["n1 True 500"],
            0,
            expect![[r#"
            requeue after 41s
        "#]],
        );
    }
}
