//! What the agent has done, for those who ask: counts, times and health. It decides what healthy means; it serves nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datapath::FlowCount;
use http::StatusCode;

/// Upper bounds of the histograms, seconds.
pub const BUCKETS: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// What the data plane has done.
#[derive(Default)]
pub struct Progress {
    synced: AtomicBool,
    failing: AtomicBool,
    leaving: AtomicBool,
    /// Service events.
    pub service_changes: Counter,
    /// EndpointSlice events.
    pub endpoint_changes: Counter,
    /// Entries of flows deleted after being idle.
    pub flows_deleted: Counter,
    /// Times that a flow table grew.
    pub flow_table_growths: Counter,
    /// UDP sockets destroyed because their backend was gone.
    pub sockets_destroyed: Counter,
    /// Answers of /healthz by status: 200, 503.
    pub healthz: [Counter; 2],
    /// Answers of /livez by status: 200, 503.
    pub livez: [Counter; 2],
    /// From an event's arrival to its being in the tables.
    pub syncs: Histogram,
    /// From a change of a pod or service to its being in the tables.
    pub programming: Histogram,
    /// From the start of the first lists to their being in the tables.
    pub full_sync: Histogram,
    last: Mutex<Option<jiff::Timestamp>>,
    flows: Mutex<Option<FlowCount>>,
    missing: Mutex<BTreeMap<&'static str, String>>,
    alarms: Mutex<BTreeMap<&'static str, Alarm>>,
}

/// Whether an alarm is on, and how often it was raised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alarm {
    /// It is on now.
    pub on: bool,
    /// How often it was raised.
    pub raised: u64,
}

/// Something counted.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Default)]
pub struct Histogram(Mutex<Counts>);

/// A histogram's numbers. A bucket counts all that took no longer than its bound.
#[derive(Default, Clone, Copy)]
pub struct Counts {
    /// In the order of [`BUCKETS`].
    pub buckets: [u64; BUCKETS.len()],
    /// All.
    pub count: u64,
    /// Their sum, seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// One that took this many seconds.
    pub fn observe(&self, seconds: f64) {
        let mut counts = lock(&self.0);
        for (count, bound) in counts.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        counts.count += 1;
        counts.sum_s += seconds;
    }

    /// The numbers now.
    pub fn counts(&self) -> Counts {
        *lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// The tables agree with the first complete lists.
    pub fn synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Whether the node takes part; an autoscaler about to remove it says no.
    pub fn eligible(&self, eligible: bool) {
        self.leaving.store(!eligible, Ordering::Relaxed);
    }

    /// A difference was written, this long after its event arrived.
    pub fn applied(&self, took: Duration) {
        self.failing.store(false, Ordering::Relaxed);
        self.syncs.observe(took.as_secs_f64());
        *lock(&self.last) = Some(jiff::Timestamp::now());
    }

    /// A change of endpoints that happened at `trigger`, by the clock of whoever saw it first, is in the tables.
    pub fn programmed(&self, trigger: jiff::Timestamp) {
        let took = jiff::Timestamp::now().duration_since(trigger);
        self.programming.observe(took.as_secs_f64().max(0.0));
    }

    /// Whether the tables agree with the API.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// A pass over the flow tables is done.
    pub fn flows(&self, count: FlowCount) {
        self.flows_deleted.add(count.deleted as u64);
        *lock(&self.flows) = Some(count);
    }

    /// What the last pass over the flow tables found.
    pub fn last_flows(&self) -> Option<FlowCount> {
        *lock(&self.flows)
    }

    /// A difference could not be written.
    pub fn failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// This part of the design does not work here, and why.
    pub fn missing(&self, feature: &'static str, why: &str) {
        lock(&self.missing).insert(feature, why.to_owned());
    }

    /// What does not work here.
    pub fn missing_features(&self) -> BTreeMap<&'static str, String> {
        lock(&self.missing).clone()
    }

    /// An alarm goes on or off.
    pub fn alarm(&self, name: &'static str, on: bool) {
        let mut alarms = lock(&self.alarms);
        let alarm = alarms.entry(name).or_default();
        alarm.raised += u64::from(on && !alarm.on);
        alarm.on = on;
    }

    /// The alarms.
    pub fn alarms(&self) -> BTreeMap<&'static str, Alarm> {
        lock(&self.alarms).clone()
    }

    /// When the tables last changed.
    pub fn last_change(&self) -> Option<jiff::Timestamp> {
        *lock(&self.last)
    }

    /// Whether the tables follow the API.
    pub fn is_live(&self) -> bool {
        self.synced.load(Ordering::Relaxed) && !self.failing.load(Ordering::Relaxed)
    }

    /// The answer of /healthz, which counts a node that is leaving as unhealthy, or of /livez, which does not.
    pub fn health(&self, with_node: bool) -> (StatusCode, String) {
        let now = jiff::Timestamp::now();
        let eligible = !self.leaving.load(Ordering::Relaxed);
        let healthy = self.is_live() && (eligible || !with_node);
        let updated = self.last_change().unwrap_or(now);
        let body = serde_json::json!({"lastUpdated": updated.to_string(), "currentTime": now.to_string(), "nodeEligible": eligible});
        let counters = if with_node { &self.healthz } else { &self.livez };
        counters[usize::from(!healthy)].count();
        (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(progress: &Progress, healthz: u16, livez: u16) {
        assert_eq!((progress.health(true).0.as_u16(), progress.health(false).0.as_u16()), (healthz, livez));
    }

    #[test]
    fn health_needs_complete_tables_and_a_node_that_stays() {
        let progress = Progress::default();
        check(&progress, 503, 503);
        progress.synced();
        check(&progress, 200, 200);
        progress.eligible(false);
        check(&progress, 503, 200);
        progress.eligible(true);
        progress.failed();
        check(&progress, 503, 503);
        progress.applied(Duration::from_millis(1));
        check(&progress, 200, 200);
        let counted = |counters: &[Counter; 2]| [counters[0].get(), counters[1].get()];
        assert_eq!((counted(&progress.healthz), counted(&progress.livez)), ([2, 3], [3, 2]));
    }

    #[test]
    fn an_alarm_that_goes_on_is_counted_once_until_it_goes_off() {
        let progress = Progress::default();
        for on in [true, true, false, false, true] {
            progress.alarm("x", on);
        }
        assert_eq!(progress.alarms()["x"], Alarm { on: true, raised: 2 });
    }
}
