//! Conditions of the data plane that people must hear of: they begin and end as an Event on the Node, a line in the log and a metric.
//!
//! A condition is on while its drop counter grows, and over when the counter has stood still for a while. What the data plane tells by itself
//! (growth of its tables) is passed on once.

use std::sync::Arc;
use std::time::Duration;

use datapath::{Dataplane, Event};
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::{EventKind, Recorder};
use tokio::time::MissedTickBehavior;

use crate::progress::Progress;

/// How often the counters are read.
const INTERVAL: Duration = Duration::from_secs(5);
/// How many readings without growth end a condition.
const QUIET: u32 = 6;

/// A condition: the drop reason that counts it, and what is said of it.
struct Condition {
    /// Drop reason, and name of the alarm.
    reason: &'static str,
    /// Reason of the Event when it begins.
    begins: &'static str,
    /// Reason of the Event when it ends.
    ends: &'static str,
    /// What it means.
    meaning: &'static str,
}

/// All of them.
const CONDITIONS: &[Condition] = &[
    Condition {
        reason: "ports-exhausted",
        begins: "SourcePortsExhausted",
        ends: "SourcePortsAvailable",
        meaning: "all source ports of this node towards some destination are in use; new connections to it are dropped",
    },
    Condition {
        reason: "flow-table-full",
        begins: "FlowTableFull",
        ends: "FlowTableHasRoom",
        meaning: "the table of unanswered flows does not take all new flows; new translated connections are dropped",
    },
];

/// What a reading of a counter does to its condition.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Begins,
    Ends,
}

/// A condition's state. Pure.
#[derive(Debug, Default)]
struct Watched {
    last: Option<u64>,
    /// Readings without growth since the condition began; `None` while it is off.
    quiet: Option<u32>,
}

impl Watched {
    /// The first reading only tells where the counter stands: it may be an earlier agent's.
    fn read(&mut self, count: u64) -> Step {
        let grew = self.last.replace(count).is_some_and(|last| count > last);
        match (grew, self.quiet) {
            (true, None) => {
                self.quiet = Some(0);
                Step::Begins
            }
            (true, Some(_)) => {
                self.quiet = Some(0);
                Step::Nothing
            }
            (false, Some(quiet)) if quiet + 1 >= QUIET => {
                self.quiet = None;
                Step::Ends
            }
            (false, Some(quiet)) => {
                self.quiet = Some(quiet + 1);
                Step::Nothing
            }
            (false, None) => Step::Nothing,
        }
    }
}

/// To the Events of a Node.
#[derive(Clone)]
pub struct Herald {
    recorder: Recorder,
    node: ObjectReference,
}

impl Herald {
    /// Of the node with this name. Events name the node by its name in place of a uid, as those of a kubelet do.
    pub fn new(recorder: Recorder, node_name: &str) -> Self {
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node_name.to_owned()),
            uid: Some(node_name.to_owned()),
            ..ObjectReference::default()
        };
        Self { recorder, node }
    }

    fn tell(&self, kind: EventKind, reason: &str, message: &str) {
        self.recorder.event(&self.node, kind, reason, message);
    }

    /// Passes on what the data plane tells.
    pub fn pass_on(&self, events: Vec<Event>, progress: &Progress) {
        for event in events {
            match event {
                // A condition of its own, which also ends.
                Event::PortsExhausted { .. } => {}
                Event::FlowsGrown { entries } => {
                    progress.flow_table_growths.count();
                    let message =
                        format!("the tables of established flows have room for {entries} entries now");
                    self.tell(EventKind::Normal, "FlowTableGrown", &message);
                }
                Event::FlowsFull { percent } => {
                    let message = format!(
                        "{percent} % of the table of established flows is in use and it may not grow"
                    );
                    tracing::warn!(percent, "FlowTableNearlyFull");
                    self.tell(EventKind::Warning, "FlowTableNearlyFull", &message);
                }
            }
        }
    }
}

/// Watches the conditions until the process ends.
pub async fn watch(herald: Herald, dataplane: Arc<Dataplane>, progress: Arc<Progress>) {
    let mut watched: Vec<(&Condition, Watched)> =
        CONDITIONS.iter().map(|condition| (condition, Watched::default())).collect();
    for condition in CONDITIONS {
        progress.alarm(condition.reason, false);
    }
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let drops = dataplane.drops();
        for (condition, state) in &mut watched {
            let count = drops.iter().find(|(reason, _)| reason.as_str() == condition.reason);
            let count = count.map_or(0, |(_, packets)| *packets);
            match state.read(count) {
                Step::Nothing => {}
                Step::Begins => {
                    tracing::warn!(drops = count, "{}: {}", condition.begins, condition.meaning);
                    progress.alarm(condition.reason, true);
                    herald.tell(EventKind::Warning, condition.begins, condition.meaning);
                }
                Step::Ends => {
                    tracing::info!(drops = count, "{}", condition.ends);
                    progress.alarm(condition.reason, false);
                    let message = format!("no longer: {}", condition.meaning);
                    herald.tell(EventKind::Normal, condition.ends, &message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_begins_with_growth_and_ends_when_the_counter_stands_still() {
        let mut watched = Watched::default();
        assert_eq!(watched.read(100), Step::Nothing, "an earlier agent's drops");
        assert_eq!(watched.read(100), Step::Nothing);
        assert_eq!(watched.read(101), Step::Begins);
        assert_eq!(watched.read(150), Step::Nothing, "it goes on");
        for _ in 1..QUIET {
            assert_eq!(watched.read(150), Step::Nothing);
        }
        assert_eq!(watched.read(150), Step::Ends);
        assert_eq!(watched.read(150), Step::Nothing);
        assert_eq!(watched.read(151), Step::Begins, "and again");
    }

    #[test]
    fn growth_in_between_prolongs_it() {
        let mut watched = Watched::default();
        watched.read(0);
        assert_eq!(watched.read(1), Step::Begins);
        for count in 1..u64::from(QUIET) * 3 {
            assert_eq!(watched.read(1 + count / 2), Step::Nothing, "{count}");
        }
    }
}
