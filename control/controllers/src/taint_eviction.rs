//! Drives pods off nodes whose NoExecute taints they do not bear, or bear no longer (upstream: pkg/controller/tainteviction).
//! Woken by pods, and by nodes whose taints change. It does not set taints.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use scheduler::plugins::taint_toleration::tolerates;
use serde_json::json;

use crate::ownership;
use crate::plan::{self, Action, Context, EventKind, PatchStyle, Plan, Target};
use crate::pod;
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[Watch::Pod(of_pod), Watch::Node(of_node)];

fn of_pod(view: &View, change: &Change<Pod>) -> Vec<Key> {
    let tainted =
        |it: &Arc<Pod>| view.nodes.get("", pod::node_name(it)).is_some_and(|it| !no_execute(&it).is_empty());
    if change.new.as_ref().is_some_and(tainted) { ownership::itself(view, change) } else { Vec::new() }
}

fn of_node(view: &View, change: &Change<Node>) -> Vec<Key> {
    let taints = |it: &Option<Arc<Node>>| it.as_ref().map(|it| no_execute(it)).unwrap_or_default();
    let Some(node) = change.new.as_ref().filter(|_| taints(&change.old) != taints(&change.new)) else {
        return Vec::new();
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    view.pods.indexed(name).iter().map(|it| Key::of(&it.metadata)).collect()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|it| it.taints.as_ref());
    taints.into_iter().flatten().filter(|it| it.effect == "NoExecute").cloned().collect()
}

/// How long a pod bears the taints of its node.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    Unlimited,
    /// Until the first of its tolerations ends.
    For(SignedDuration),
    None,
}

/// Decides about the pod under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let Some(pod) = view.pods.at(key).filter(|it| !pod::is_terminating(it)) else {
        return Plan::await_change();
    };
    let Some(node) = view.nodes.get("", pod::node_name(&pod)) else { return Plan::await_change() };
    let taints = no_execute(&node);
    let patience = patience(&pod, &taints);
    let left = match patience {
        _ if taints.is_empty() => return Plan::await_change(),
        Patience::Unlimited => return Plan::await_change(),
        Patience::None => SignedDuration::ZERO,
        Patience::For(span) => {
            let begun = taints
                .iter()
                .filter_map(|it| it.time_added.as_ref())
                .map(|it| it.0)
                .max()
                .unwrap_or(context.now);
            span - context.now.duration_since(begun)
        }
    };
    if left > SignedDuration::ZERO {
        let mut plan = Plan::await_change();
        plan.requeue_after(Duration::from_secs(u64::try_from(left.as_secs()).unwrap_or(0) + 1));
        return plan;
    }
    Plan::of(evict(&pod, context))
}

fn patience(pod: &Pod, taints: &[Taint]) -> Patience {
    let tolerations = pod.spec.as_ref().and_then(|it| it.tolerations.as_deref()).unwrap_or_default();
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let mut bearing = tolerations.iter().filter(|it| tolerates(it, taint)).peekable();
        if bearing.peek().is_none() {
            return Patience::None;
        }
        for seconds in bearing.filter_map(|it| it.toleration_seconds) {
            shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)).max(0));
        }
    }
    shortest.map_or(Patience::Unlimited, |it| Patience::For(SignedDuration::from_secs(it)))
}

fn evict(pod: &Pod, context: &Context<'_>) -> Vec<Action> {
    let (namespace, name) = (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
    );
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(context.now),
    });
    vec![
        plan::event(
            pod,
            EventKind::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {namespace}/{name}"),
        ),
        Action::Patch {
            target: Target::of(pod),
            subresource: Some("status"),
            style: PatchStyle::Strategic,
            patch: json!({"status": {"conditions": [condition]}}),
        },
        plan::delete(pod, None),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::{NodeSpec, Toleration};

    use super::*;
    use crate::fake::{NOW, describe, pod_line, settings};

    /// The node has been unreachable for `seconds`; the pod tolerates that for so long, without end, or not at all.
    fn check(seconds: i64, tolerated: Option<Option<i64>>, want: Expect) {
        let view = View::default();
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        let added = Time(NOW - SignedDuration::from_secs(seconds));
        let taint =
            Taint { key: "down".into(), effect: "NoExecute".into(), value: None, time_added: Some(added) };
        node.spec = Some(NodeSpec { taints: Some(vec![taint]), ..NodeSpec::default() });
        view.nodes.apply(node);
        let mut pod = pod_line("a n1 Ready 9m", None);
        pod.spec.as_mut().unwrap().tolerations = tolerated.map(|toleration_seconds| {
            vec![Toleration {
                key: Some("down".into()),
                operator: Some("Exists".into()),
                toleration_seconds,
                ..Toleration::default()
            }]
        });
        view.pods.apply(pod);
        let settings = settings();
        let since = NOW - SignedDuration::from_secs(1000);
        let context = Context { since, ..Context::at(NOW, &settings) };
        want.assert_eq(&describe(&plan(&view, &Key::new("default", "a"), &context)));
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        check(100, Some(None), expect![""]);
        check(
            100,
            Some(Some(300)),
            expect![[r#"
            requeue after 201s
        "#]],
        );
    }

    #[test]
    fn a_pod_goes_when_its_time_is_up_or_it_bears_nothing() {
        let gone = || {
            expect![[r#"
            event Normal TaintManagerEviction Marking for deletion Pod default/a
            patch Pod/status a {"status":{"conditions":[{"type":"DisruptionTarget","status":"True","reason":"DeletionByTaintManager","message":"Taint manager: deleting due to NoExecute taint","lastTransitionTime":"2027-01-15T08:00:00Z"}]}}
            delete Pod a
        "#]]
        };
        check(300, Some(Some(300)), gone());
        check(0, None, gone());
    }
}
