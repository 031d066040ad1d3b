//! Filters say which nodes a pod can run on, scores which of them it should. One file a plugin, one row a plugin in the
//! tables below; their order is upstream's default profile. Plugins see one pod and one node and remember nothing.

pub mod balanced_allocation;
pub mod least_allocated;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_unschedulable;
pub mod owner_spread;
pub mod resources_fit;
pub mod taint_toleration;

use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// Whether a pod can run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It can.
    Yes,
    /// It cannot.
    No {
        /// Why, in upstream's words.
        reasons: Vec<String>,
        /// Whether taking other pods away could help.
        resolvable: bool,
    },
}

impl Fit {
    /// A refusal that no other pod is to blame for.
    pub fn never(reason: &str) -> Self {
        Self::No { reasons: vec![reason.to_owned()], resolvable: false }
    }
}

/// A plugin that rules nodes out.
pub trait Filter: Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Events after which a refusal may be undone.
    fn wakes(&self) -> &'static [ClusterEvent];
    /// Whether `pod` can run on `node`.
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit;
}

/// The highest score.
pub const MAX_SCORE: i64 = 100;

/// A plugin that prefers nodes.
pub trait Score: Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// How much it counts.
    fn weight(&self) -> i64;
    /// How well `pod` would do on `node`, in any scale of the plugin's own.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64;
    /// Brings the scores of all nodes to 0 ..= [`MAX_SCORE`], more is better. By default they are there already.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales so that the highest becomes [`MAX_SCORE`]; `reverse` makes less better.
pub fn scale(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 { 0 } else { MAX_SCORE * *score / highest };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// The filters, in the order in which they are asked; the first refusal counts.
pub const FILTERS: &[&dyn Filter] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &resources_fit::NodeResourcesFit,
];

/// The scores.
pub const SCORES: &[&dyn Score] = &[
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &owner_spread::OwnerSpread,
    &least_allocated::LeastAllocated,
    &balanced_allocation::BalancedAllocation,
];
