//! Two pods cannot have the same host port on one node.

use super::{Filter, Fit};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd, ClusterEvent::PodDelete]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        let mut taken = node.pods.values().flat_map(|it| &it.ports);
        if pod.ports.is_empty() || !taken.any(|it| pod.ports.iter().any(|wanted| wanted.clashes(it))) {
            Fit::Yes
        } else {
            let reason = "node(s) didn't have free ports for the requested pod ports".to_owned();
            Fit::No { reasons: vec![reason], resolvable: true }
        }
    }
}
