//! A pod that names its node runs there or nowhere.

use super::{Filter, Fit};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        let wanted = pod.node_name();
        if wanted.is_empty() || wanted == node.name() {
            Fit::Yes
        } else {
            Fit::never("node(s) didn't match the requested node name")
        }
    }
}
