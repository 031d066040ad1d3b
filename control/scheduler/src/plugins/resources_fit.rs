//! A node must have room for what a pod asks for, and for one more pod.

use super::{Filter, Fit};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodeResourcesFit;

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd, ClusterEvent::NodeAllocatable, ClusterEvent::PodDelete]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        let mut reasons = Vec::new();
        let mut resolvable = true;
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.max_pods {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, wanted: i64, used: i64, total: i64| {
            if wanted > 0 && wanted > total - used {
                reasons.push(format!("Insufficient {name}"));
                resolvable &= wanted <= total;
            }
        };
        check("cpu", pod.requests.cpu_milli, node.requested.cpu_milli, node.allocatable.cpu_milli);
        check(
            "memory",
            pod.requests.memory_bytes,
            node.requested.memory_bytes,
            node.allocatable.memory_bytes,
        );
        for (name, wanted) in &pod.requests.others {
            let amount = |of: &crate::resources::Resources| of.others.get(name).copied().unwrap_or(0);
            check(name, *wanted, amount(&node.requested), amount(&node.allocatable));
        }
        if reasons.is_empty() { Fit::Yes } else { Fit::No { reasons, resolvable } }
    }
}
