//! Prefers nodes with more free CPU and memory, in proportion to what they have.

use super::{MAX_SCORE, Score};
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin (a part of upstream's NodeResourcesFit).
pub struct LeastAllocated;

impl Score for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let free = |used: i64, total: i64| {
            if total <= 0 || used > total { 0 } else { (total - used) * MAX_SCORE / total }
        };
        let cpu = free(node.scored.cpu_milli + pod.scored.cpu_milli, node.allocatable.cpu_milli);
        let memory = free(node.scored.memory_bytes + pod.scored.memory_bytes, node.allocatable.memory_bytes);
        (cpu + memory) / 2
    }
}
