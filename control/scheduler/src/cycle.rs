//! One decision: the best node for a pod, or why there is none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::ClusterEvent;
use crate::plugins::{FILTERS, Fit, SCORES};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

/// Why no node fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// Upstream's message, e.g. `0/2 nodes are available: 2 Insufficient cpu. preemption: ..`.
    pub message: String,
    /// Events that may change that.
    pub wakes: BTreeSet<ClusterEvent>,
}

/// Chooses a node for `pod`. `turn` breaks ties: the same turn gives the same node.
///
/// # Errors
/// [`Unschedulable`] when no node fits.
pub fn choose(pod: &PodInfo, snapshot: &Snapshot, turn: usize) -> Result<String, Unschedulable> {
    let mut fitting: Vec<&NodeInfo> = Vec::new();
    let mut refusals = Refusals::default();
    for node in snapshot.nodes() {
        match refuse(pod, node) {
            None => fitting.push(node),
            Some((fit, wakes)) => refusals.add(fit, wakes),
        }
    }
    if fitting.is_empty() { Err(refusals.verdict()) } else { Ok(best(pod, &fitting, turn).name().to_owned()) }
}

fn refuse(pod: &PodInfo, node: &NodeInfo) -> Option<(Fit, &'static [ClusterEvent])> {
    FILTERS.iter().find_map(|plugin| match plugin.filter(pod, node) {
        Fit::Yes => None,
        no => Some((no, plugin.wakes())),
    })
}

fn best<'a>(pod: &PodInfo, nodes: &[&'a NodeInfo], turn: usize) -> &'a NodeInfo {
    let mut totals = vec![0; nodes.len()];
    for plugin in SCORES {
        let mut scores: Vec<i64> = nodes.iter().map(|it| plugin.score(pod, it)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += plugin.weight() * score;
        }
    }
    let highest = totals.iter().max();
    let tied: Vec<&NodeInfo> =
        nodes.iter().zip(&totals).filter(|(_, it)| Some(*it) == highest).map(|(node, _)| *node).collect();
    tied[turn % tied.len()]
}

#[derive(Default)]
struct Refusals {
    nodes: usize,
    unresolvable: usize,
    reasons: BTreeMap<String, usize>,
    wakes: BTreeSet<ClusterEvent>,
}

impl Refusals {
    fn add(&mut self, fit: Fit, wakes: &[ClusterEvent]) {
        self.nodes += 1;
        self.wakes.extend(wakes);
        if let Fit::No { reasons, resolvable } = fit {
            self.unresolvable += usize::from(!resolvable);
            for reason in reasons {
                *self.reasons.entry(reason).or_default() += 1;
            }
        }
    }

    fn verdict(mut self) -> Unschedulable {
        // A node that does not exist yet can fit any pod.
        self.wakes.insert(ClusterEvent::NodeAdd);
        if self.nodes == 0 {
            return Unschedulable {
                message: "no nodes available to schedule pods".into(),
                wakes: self.wakes,
            };
        }
        let all = self.nodes;
        let mut parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        let resolvable = all - self.unresolvable;
        let preemption = [
            (resolvable, "No preemption victims found for incoming pod"),
            (self.unresolvable, "Preemption is not helpful for scheduling"),
        ];
        let mut victims: Vec<String> =
            preemption.iter().filter(|it| it.0 > 0).map(|(count, text)| format!("{count} {text}")).collect();
        victims.sort();
        let message = format!(
            "0/{all} nodes are available: {}. preemption: 0/{all} nodes are available: {}.",
            parts.join(", "),
            victims.join(", ")
        );
        Unschedulable { message, wakes: self.wakes }
    }
}

#[cfg(test)]
mod tests;
