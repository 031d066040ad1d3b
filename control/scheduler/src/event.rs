//! What can happen in a cluster that may make room for a pod. Plugins say which of these can undo their refusal.

use k8s_openapi::api::core::v1::Node;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterEvent {
    /// A node was added.
    NodeAdd,
    /// A node's allocatable resources changed.
    NodeAllocatable,
    /// A node's labels changed.
    NodeLabel,
    /// A node's taints or unschedulable mark changed.
    NodeTaint,
    /// A pod that had a node is gone, has ended, or asks for less.
    PodDelete,
    /// A pod was given a node, or its labels changed.
    PodChange,
}

/// What happened to a node between two versions.
pub fn of_node(old: Option<&Node>, new: &Node) -> Vec<ClusterEvent> {
    let Some(old) = old else { return vec![ClusterEvent::NodeAdd] };
    let allocatable = |it: &Node| it.status.as_ref().and_then(|it| it.allocatable.clone());
    let spec = |it: &Node| it.spec.as_ref().map(|it| (it.taints.clone(), it.unschedulable));
    let changed = [
        (allocatable(old) != allocatable(new), ClusterEvent::NodeAllocatable),
        (old.metadata.labels != new.metadata.labels, ClusterEvent::NodeLabel),
        (spec(old) != spec(new), ClusterEvent::NodeTaint),
    ];
    changed.into_iter().filter(|(it, _)| *it).map(|(_, event)| event).collect()
}
