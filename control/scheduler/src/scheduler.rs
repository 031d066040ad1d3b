//! The scheduler's whole state and its transitions: what the API says goes in, decisions come out. Pure: who calls it keeps
//! the clock and the connections (`beeline-control`'s `scheduling`).

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cycle::{self, Unschedulable};
use crate::event::{self, ClusterEvent};
use crate::queue::{Next, Queue};
use crate::snapshot::{PodInfo, Snapshot};

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Bind the pod to the node, then report failure with [`Scheduler::bind_failed`]; success shows in the API.
    Bind {
        /// The pod.
        pod: Arc<Pod>,
        /// The node's name.
        node: String,
    },
    /// Tell that no node fits.
    Refuse {
        /// The pod.
        pod: Arc<Pod>,
        /// Why.
        why: Unschedulable,
    },
    /// Nothing until then.
    Sleep(Instant),
    /// Nothing until something changes.
    Idle,
}

/// The scheduler for pods of one `spec.schedulerName`.
#[derive(Debug)]
pub struct Scheduler {
    name: String,
    snapshot: Snapshot,
    queue: Queue,
    turn: usize,
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|it| it.phase.as_deref()), Some("Succeeded" | "Failed"))
}

impl Scheduler {
    /// A scheduler that serves pods which ask for `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), snapshot: Snapshot::default(), queue: Queue::default(), turn: 0 }
    }

    /// Takes in a change of a pod; `new` is none when it is gone.
    pub fn pod_changed(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>, now: Instant) {
        let Some(pod) = new.or(old) else { return };
        let info = PodInfo::new(pod.clone());
        let had_place =
            old.is_some_and(|it| !PodInfo::new(it.clone()).node_name().is_empty() && !is_finished(it));
        if new.is_none() || is_finished(pod) {
            let assumed = self.snapshot.is_assumed(info.uid());
            self.snapshot.remove_pod(info.uid());
            self.queue.remove(info.uid());
            if had_place || assumed {
                self.queue.happened(ClusterEvent::PodDelete, now);
            }
        } else if !info.node_name().is_empty() {
            self.queue.remove(info.uid());
            let node = info.node_name().to_owned();
            self.snapshot.place(info, &node, false);
            if !had_place {
                self.queue.happened(ClusterEvent::PodChange, now);
            }
        } else if self.is_ours(pod) && !self.snapshot.is_assumed(info.uid()) {
            let spec_changed =
                old.is_some_and(|it| it.spec != pod.spec || it.metadata.labels != pod.metadata.labels);
            self.queue.add(info, spec_changed, now);
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(info.uid());
        }
    }

    /// Whether the pod waits for this scheduler: not leaving, not gated, and asking for its name.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        pod.metadata.deletion_timestamp.is_none()
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
            && spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.name
    }

    /// Takes in a change of a node; `new` is none when it is gone.
    pub fn node_changed(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>, now: Instant) {
        match (old, new) {
            (Some(old), None) => self.snapshot.remove_node(old.metadata.name.as_deref().unwrap_or_default()),
            (old, Some(new)) => {
                self.snapshot.set_node(new.clone());
                for event in event::of_node(old.map(|it| &**it), new) {
                    self.queue.happened(event, now);
                }
            }
            (None, None) => {}
        }
    }

    /// Decides about the next waiting pod. A pod that is given a node counts there from now on.
    pub fn step(&mut self, now: Instant) -> Step {
        let info = match self.queue.next(now) {
            Next::Try(info) => info,
            Next::Sleep(at) => return Step::Sleep(at),
            Next::Idle => return Step::Idle,
        };
        let pod = info.pod.clone();
        let uid = info.uid().to_owned();
        self.turn = self.turn.wrapping_add(1);
        match cycle::choose(&info, &self.snapshot, self.turn) {
            Ok(node) => {
                self.snapshot.place(info, &node, true);
                Step::Bind { pod, node }
            }
            Err(why) => {
                self.queue.park(&uid, why.wakes.clone(), now);
                Step::Refuse { pod, why }
            }
        }
    }

    /// The API refused the binding: the pod is tried again after its back-off.
    pub fn bind_failed(&mut self, uid: &str, now: Instant) {
        self.snapshot.forget(uid);
        self.queue.back_off(uid, now);
        self.queue.happened(ClusterEvent::PodDelete, now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use k8s_openapi::api::core::v1::{NodeStatus, PodSchedulingGate, PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn pod(name: &str, node: Option<&str>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(name.into());
        pod.metadata.name = Some(name.into());
        pod.spec = Some(PodSpec { node_name: node.map(Into::into), ..PodSpec::default() });
        Arc::new(pod)
    }

    fn node(pods: &str) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        let allocatable = BTreeMap::from([("pods".to_owned(), Quantity(pods.into()))]);
        node.status = Some(NodeStatus { allocatable: Some(allocatable), ..NodeStatus::default() });
        Arc::new(node)
    }

    fn told(scheduler: &mut Scheduler, now: Instant) -> String {
        match scheduler.step(now) {
            Step::Bind { pod, node } => {
                format!("{} -> {node}", pod.metadata.name.as_deref().unwrap_or_default())
            }
            Step::Refuse { why, .. } => why.message,
            Step::Sleep(at) => format!("sleep {}s", (at - now).as_secs()),
            Step::Idle => "idle".into(),
        }
    }

    #[test]
    fn an_assumed_pod_takes_room_until_the_api_refuses_it() {
        let (mut scheduler, now) = (Scheduler::new("default-scheduler"), Instant::now());
        scheduler.node_changed(None, Some(&node("1")), now);
        scheduler.pod_changed(None, Some(&pod("a", None)), now);
        scheduler.pod_changed(None, Some(&pod("b", None)), now);
        assert_eq!(told(&mut scheduler, now), "a -> n1");
        assert!(told(&mut scheduler, now).starts_with("0/1 nodes are available: 1 Too many pods."));
        scheduler.bind_failed("a", now);
        let later = now + Duration::from_secs(1);
        assert_eq!(told(&mut scheduler, later), "a -> n1");
        scheduler.pod_changed(Some(&pod("a", None)), Some(&pod("a", Some("n1"))), later);
        scheduler.pod_changed(Some(&pod("a", Some("n1"))), None, later);
        assert_eq!(told(&mut scheduler, later + Duration::from_secs(2)), "b -> n1");
        assert_eq!(told(&mut scheduler, later), "idle");
    }

    #[test]
    fn a_pod_waits_for_the_first_node() {
        let (mut scheduler, now) = (Scheduler::new("default-scheduler"), Instant::now());
        scheduler.pod_changed(None, Some(&pod("a", None)), now);
        assert_eq!(told(&mut scheduler, now), "no nodes available to schedule pods");
        scheduler.node_changed(None, Some(&node("9")), now);
        assert_eq!(told(&mut scheduler, now), "sleep 1s");
        assert_eq!(told(&mut scheduler, now + Duration::from_secs(1)), "a -> n1");
    }

    #[test]
    fn pods_of_other_schedulers_and_gated_or_leaving_pods_are_left_alone() {
        let (mut scheduler, now) = (Scheduler::new("mine"), Instant::now());
        let case = |change: fn(&mut Pod)| {
            let mut pod = Pod::clone(&pod("a", None));
            pod.spec.get_or_insert_default().scheduler_name = Some("mine".into());
            change(&mut pod);
            Arc::new(pod)
        };
        let left_alone = [
            case(|it| it.spec.get_or_insert_default().scheduler_name = None),
            case(|it| {
                it.spec.get_or_insert_default().scheduling_gates = Some(vec![PodSchedulingGate::default()]);
            }),
            case(|it| it.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH))),
            case(|it| it.status = Some(PodStatus { phase: Some("Failed".into()), ..PodStatus::default() })),
        ];
        for pod in &left_alone {
            scheduler.pod_changed(None, Some(pod), now);
            assert_eq!(told(&mut scheduler, now), "idle");
        }
        scheduler.pod_changed(None, Some(&case(|_| {})), now);
        assert_eq!(told(&mut scheduler, now), "no nodes available to schedule pods");
    }
}
