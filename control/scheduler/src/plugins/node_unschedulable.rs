//! A cordoned node takes no pods but those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::is_tolerated;
use super::{Filter, Fit};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodeUnschedulable;

/// The taint that a cordoned node stands for.
pub const TAINT: &str = "node.kubernetes.io/unschedulable";

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd, ClusterEvent::NodeTaint]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        let cordoned =
            node.node.as_ref().and_then(|it| it.spec.as_ref()).and_then(|it| it.unschedulable) == Some(true);
        let taint = Taint { key: TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        let tolerations = pod.pod.spec.as_ref().and_then(|it| it.tolerations.as_deref()).unwrap_or_default();
        if !cordoned || is_tolerated(&taint, tolerations) {
            Fit::Yes
        } else {
            Fit::never("node(s) were unschedulable")
        }
    }
}
