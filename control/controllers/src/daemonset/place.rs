//! Which nodes a DaemonSet's pods are for, and how a pod is tied to its node. It knows no other pods: room on a node is the
//! scheduler's question.

use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodTemplateSpec, Toleration,
};
use scheduler::plugins::node_affinity::required_matches;
use scheduler::plugins::taint_toleration::is_tolerated;

use super::history::HASH_LABEL;
use crate::pod;

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitness {
    /// A pod should be started there.
    pub should_start: bool,
    /// A pod that runs there may stay.
    pub may_stay: bool,
}

/// Taints that daemons live with: key and effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The template with the labels and tolerations that every pod of the set gets.
pub fn pod_template(spec: &DaemonSetSpec, hash: &str) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.to_owned());
    let pod = template.spec.get_or_insert_default();
    let on_host = pod.host_network == Some(true);
    let tolerations = pod.tolerations.get_or_insert_default();
    let network = on_host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let known = |it: &Toleration| it.key.as_deref() == Some(key) && it.effect.as_deref() == Some(effect);
        if !tolerations.iter().any(known) {
            tolerations.push(Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                effect: Some(effect.into()),
                ..Toleration::default()
            });
        }
    }
    template
}

/// What `node` is to pods of `template`.
pub fn fitness(template: &PodTemplateSpec, node: &Node) -> Fitness {
    let pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    let named = pod::node_name(&pod);
    if (!named.is_empty() && node.metadata.name.as_deref() != Some(named)) || !required_matches(&pod, node) {
        return Fitness { should_start: false, may_stay: false };
    }
    let tolerations = pod.spec.as_ref().and_then(|it| it.tolerations.as_deref()).unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|it| it.taints.as_deref()).unwrap_or_default();
    let repelled =
        |effect: &str| taints.iter().any(|it| it.effect == effect && !is_tolerated(it, tolerations));
    let may_stay = !repelled("NoExecute");
    Fitness { should_start: may_stay && !repelled("NoSchedule"), may_stay }
}

/// Ties `pod` to `node`, in place of whatever nodes its affinity required: those were checked by [`fitness`].
pub fn aim(pod: &mut Pod, node: &str) {
    let by_name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    let affinity = pod
        .spec
        .get_or_insert_default()
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that `pod` runs on or is tied to; empty if neither.
pub fn node_of(pod: &Pod) -> &str {
    let bound = pod::node_name(pod);
    let aimed = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms =
            &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let field = terms.first()?.match_fields.as_ref()?.iter().find(|it| it.key == "metadata.name")?;
        field.values.as_ref()?.first().map(String::as_str)
    };
    if bound.is_empty() { aimed().unwrap_or_default() } else { bound }
}
