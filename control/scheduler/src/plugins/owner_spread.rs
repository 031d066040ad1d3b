//! Prefers nodes with fewer pods of the same controller, so that replicas spread over nodes. It stands for the default
//! constraints of upstream's PodTopologySpread (by host name, ScheduleAnyway); explicit constraints are not served yet.

use super::{MAX_SCORE, Score};
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct OwnerSpread;

impl Score for OwnerSpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// How many siblings are on the node: less is better.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(owner) = &pod.controller else { return 0 };
        let leaving = |it: &PodInfo| it.pod.metadata.deletion_timestamp.is_some();
        let siblings = node.pods.values().filter(|it| it.controller.as_ref() == Some(owner) && !leaving(it));
        i64::try_from(siblings.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        let highest = scores.iter().copied().max().unwrap_or(0);
        let lowest = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = if highest == 0 { MAX_SCORE } else { MAX_SCORE * (highest + lowest - *score) / highest };
        }
    }
}
