//! Pods that wait for a node: ready ones by priority and age, failed ones in back-off, and those that no node fits until an event
//! could help (upstream: pkg/scheduler/backend/queue). Time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::event::ClusterEvent;
use crate::snapshot::PodInfo;

/// Back-off after the first failed attempt; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest back-off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that no event helped is tried again after this time all the same.
const FLUSH_AFTER: Duration = Duration::from_secs(300);

/// Where a waiting pod stands.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// To be tried now.
    Active,
    /// To be tried at this time.
    Backoff(Instant),
    /// To be tried when one of these events happens, or at this time.
    Unschedulable { wakes: BTreeSet<ClusterEvent>, flush: Instant },
}

impl Place {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Active => None,
            Self::Backoff(at) => Some(*at),
            Self::Unschedulable { flush, .. } => Some(*flush),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    info: PodInfo,
    attempts: u32,
    /// When the last attempt failed.
    failed: Option<Instant>,
    order: Order,
    place: Place,
}

/// Higher priority first, then first come first served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    priority: std::cmp::Reverse<i32>,
    arrival: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<Order, String>,
    /// When pods in back-off, and unschedulable ones, are to be tried again.
    due: BTreeSet<(Instant, String)>,
    arrivals: u64,
}

/// What the queue offers.
#[derive(Debug)]
pub enum Next {
    /// A pod to try; it stays known until [`Queue::remove`], [`Queue::back_off`] or [`Queue::park`].
    Try(PodInfo),
    /// Nothing until then.
    Sleep(Instant),
    /// Nothing until something is added or happens.
    Idle,
}

fn priority(info: &PodInfo) -> i32 {
    info.pod.spec.as_ref().and_then(|it| it.priority).unwrap_or(0)
}

impl Queue {
    /// Takes in a pod that needs a node, or a new version of one that waits. A changed pod is tried again.
    pub fn add(&mut self, info: PodInfo, changed: bool, now: Instant) {
        let uid = info.uid().to_owned();
        if let Some(waiting) = self.pods.get_mut(&uid) {
            waiting.info = info;
            if changed && matches!(waiting.place, Place::Unschedulable { .. }) {
                self.wake(&uid, now);
            }
            return;
        }
        self.arrivals += 1;
        let order = Order { priority: std::cmp::Reverse(priority(&info)), arrival: self.arrivals };
        self.active.insert(order.clone(), uid.clone());
        self.pods.insert(uid, Waiting { info, attempts: 0, failed: None, order, place: Place::Active });
    }

    /// Forgets a pod that has a node, is gone or is leaving.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.active.remove(&waiting.order);
            if let Some(at) = waiting.place.due() {
                self.due.remove(&(at, uid.to_owned()));
            }
        }
    }

    /// Takes out the next pod to try.
    pub fn next(&mut self, now: Instant) -> Next {
        while let Some((at, uid)) = self.due.first().cloned()
            && at <= now
        {
            self.activate(&uid);
        }
        if let Some((_, uid)) = self.active.pop_first()
            && let Some(waiting) = self.pods.get(&uid)
        {
            return Next::Try(waiting.info.clone());
        }
        self.due.first().map_or(Next::Idle, |(at, _)| Next::Sleep(*at))
    }

    /// An attempt failed for a reason that time may heal.
    pub fn back_off(&mut self, uid: &str, now: Instant) {
        self.failed(uid, now, |waiting| Place::Backoff(backoff_end(waiting, now)));
    }

    /// No node fits: the pod waits for one of the events in `wakes`.
    pub fn park(&mut self, uid: &str, wakes: BTreeSet<ClusterEvent>, now: Instant) {
        self.failed(uid, now, |_| Place::Unschedulable { wakes, flush: now + FLUSH_AFTER });
    }

    fn failed(&mut self, uid: &str, now: Instant, place: impl FnOnce(&Waiting) -> Place) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.attempts += 1;
            waiting.failed = Some(now);
            let place = place(waiting);
            self.set_place(uid, place);
        }
    }

    /// Something happened: pods that it may help are tried again, after what is left of their back-off.
    pub fn happened(&mut self, event: ClusterEvent, now: Instant) {
        let helped =
            |it: &Waiting| matches!(&it.place, Place::Unschedulable { wakes, .. } if wakes.contains(&event));
        let woken: Vec<String> =
            self.pods.iter().filter(|(_, it)| helped(it)).map(|(uid, _)| uid.clone()).collect();
        for uid in woken {
            self.wake(&uid, now);
        }
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn wake(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let end = backoff_end(waiting, now);
        if end > now {
            self.set_place(uid, Place::Backoff(end));
        } else {
            self.activate(uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        self.set_place(uid, Place::Active);
        if let Some(waiting) = self.pods.get(uid) {
            self.active.insert(waiting.order.clone(), uid.to_owned());
        }
    }

    fn set_place(&mut self, uid: &str, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let old = std::mem::replace(&mut waiting.place, place);
        let new = waiting.place.due();
        if let Some(at) = old.due() {
            self.due.remove(&(at, uid.to_owned()));
        }
        if let Some(at) = new {
            self.due.insert((at, uid.to_owned()));
        }
    }
}

fn backoff_end(waiting: &Waiting, now: Instant) -> Instant {
    let doublings = waiting.attempts.saturating_sub(1).min(8);
    let delay = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
    waiting.failed.map_or(now, |at| at + delay)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;

    fn pod(name: &str, priority: i32) -> PodInfo {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(name.into());
        pod.spec = Some(PodSpec { priority: Some(priority), ..PodSpec::default() });
        PodInfo::new(Arc::new(pod))
    }

    fn taken(queue: &mut Queue, now: Instant) -> String {
        match queue.next(now) {
            Next::Try(info) => info.uid().to_owned(),
            Next::Sleep(at) => format!("sleep {}s", (at - now).as_secs()),
            Next::Idle => "idle".into(),
        }
    }

    #[test]
    fn priority_goes_before_age() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("old", 0), ("young", 0), ("urgent", 10)] {
            queue.add(pod(name, priority), true, now);
        }
        assert_eq!(
            [taken(&mut queue, now), taken(&mut queue, now), taken(&mut queue, now)],
            ["urgent", "old", "young"]
        );
        assert_eq!(taken(&mut queue, now), "idle");
    }

    #[test]
    fn back_off_doubles_from_one_to_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), true, now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(taken(&mut queue, now), "a");
            queue.back_off("a", now);
            let Next::Sleep(at) = queue.next(now) else { panic!("a pod in back-off waits") };
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn only_a_helpful_event_or_time_frees_an_unschedulable_pod() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), true, now);
        assert_eq!(taken(&mut queue, now), "a");
        queue.park("a", BTreeSet::from([ClusterEvent::NodeTaint]), now);
        queue.happened(ClusterEvent::PodDelete, now);
        assert_eq!(taken(&mut queue, now), "sleep 300s");
        queue.happened(ClusterEvent::NodeTaint, now);
        assert_eq!(taken(&mut queue, now), "sleep 1s", "the back-off still counts");
        assert_eq!(taken(&mut queue, now + Duration::from_secs(1)), "a");
        queue.park("a", BTreeSet::new(), now);
        assert_eq!(taken(&mut queue, now + Duration::from_secs(300)), "a");
    }
}
