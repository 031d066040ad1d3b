//! Removes pods that nobody else will: bound to nodes that are gone, leaving before they had a node, and finished ones beyond
//! a number (upstream: pkg/controller/podgc). One key stands for all pods; it looks every 20 seconds and when a node goes.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::plan::{self, Action, Context, Notes, PatchStyle, Plan, Target};
use crate::pod;
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller: the first node starts it, a node that goes hurries it.
pub const WATCHES: &[Watch] = &[Watch::Node(of_node), Watch::Pod(of_pod)];

/// Pause between looks.
const PERIOD: Duration = Duration::from_secs(20);
/// A node is missing for so long before its pods are given up: it may not have been seen yet, or come back.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Finished pods that are kept (upstream's --terminated-pod-gc-threshold).
const FINISHED_KEPT: usize = 12_500;

fn of_node(_: &View, change: &Change<Node>) -> Vec<Key> {
    let concerns = change.old.is_none() || change.new.is_none();
    concerns.then(|| Key::cluster("pods")).into_iter().collect()
}

/// Only so that deletions come back before the next look.
fn of_pod(_: &View, change: &Change<Pod>) -> Vec<Key> {
    let unbound_leaves = |it: &Arc<Pod>| pod::is_terminating(it) && pod::node_name(it).is_empty();
    change.new.as_ref().is_some_and(unbound_leaves).then(|| Key::cluster("pods")).into_iter().collect()
}

/// Decides about all pods.
pub fn plan(view: &View, _: &Key, context: &Context<'_>) -> Plan {
    let pods = view.pods.all();
    let mut missing = Notes::new();
    let mut doomed: Vec<Action> = Vec::new();
    for pod in &pods {
        let node = pod::node_name(pod);
        if node.is_empty() {
            if pod::is_terminating(pod) {
                doomed.push(remove(pod));
            }
        } else if view.nodes.get("", node).is_none() {
            let since = context.noted.get(node).copied().unwrap_or(context.now);
            missing.insert(node.to_owned(), since);
            if context.now.duration_since(since) > QUARANTINE {
                doomed.extend((!pod::is_finished(pod)).then(|| fail(pod, context)));
                doomed.push(remove(pod));
            }
        }
    }
    let mut finished: Vec<&Arc<Pod>> =
        pods.iter().filter(|it| pod::is_finished(it) && !pod::is_terminating(it)).collect();
    finished.sort_by_key(|it| it.metadata.creation_timestamp.clone());
    let surplus = finished.len().saturating_sub(FINISHED_KEPT);
    doomed.extend(finished.into_iter().take(surplus).map(|it| remove(it)));
    let mut plan = Plan { noted: missing, ..Plan::of(doomed) };
    plan.requeue_after(PERIOD);
    plan
}

fn fail(pod: &Pod, context: &Context<'_>) -> Action {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": Time(context.now),
    });
    Action::Patch {
        target: Target::of(pod),
        subresource: Some("status"),
        style: PatchStyle::Strategic,
        patch: json!({"status": {"phase": "Failed", "conditions": [condition]}}),
    }
}

fn remove(pod: &Pod) -> Action {
    match plan::delete(pod, None) {
        Action::Delete { target, propagation, announce, .. } => {
            Action::Delete { target, propagation, grace_seconds: Some(0), announce }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::fake::{NOW, describe, pod_line, settings};

    #[test]
    fn pods_of_long_gone_nodes_and_unbound_leaving_pods_are_removed() {
        let view = View::default();
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        view.nodes.apply(node);
        for line in [
            "stays n1 Ready 9m",
            "orphan gone Ready 9m",
            "fresh new Ready 9s",
            "pending - Pending 1m terminating",
            "waits - Pending 1m",
        ] {
            view.pods.apply(pod_line(line, None));
        }
        let settings = settings();
        let noted = Notes::from([("gone".into(), NOW - SignedDuration::from_secs(41))]);
        let context = Context { noted: &noted, ..Context::at(NOW, &settings) };
        let plan = plan(&view, &Key::cluster("pods"), &context);
        expect![[r#"
            patch Pod/status orphan {"status":{"phase":"Failed","conditions":[{"type":"DisruptionTarget","status":"True","reason":"DeletionByPodGC","message":"PodGC: node no longer exists","lastTransitionTime":"2027-01-15T08:00:00Z"}]}}
            delete Pod orphan
            delete Pod pending
            requeue after 20s
        "#]].assert_eq(&describe(&plan));
        assert_eq!(
            plan.noted.get("new"),
            Some(&NOW),
            "a node that is missed for the first time has its quarantine"
        );
    }
}
