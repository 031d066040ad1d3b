//! Prefers nodes whose CPU and memory would be used to about the same degree.

use super::{MAX_SCORE, Score};
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let fraction =
            |used: i64, total: i64| if total <= 0 { 1.0 } else { (used as f64 / total as f64).min(1.0) };
        let cpu = fraction(node.requested.cpu_milli + pod.requests.cpu_milli, node.allocatable.cpu_milli);
        let memory =
            fraction(node.requested.memory_bytes + pod.requests.memory_bytes, node.allocatable.memory_bytes);
        // The standard deviation of two values is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }
}
