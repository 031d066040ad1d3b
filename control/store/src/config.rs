//! What a store is told when it is opened.

use std::sync::Arc;
use std::time::Duration;

/// Called after every etcd request: operation (`get`, `create`, ..), duration, success.
pub type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// How to reach etcd and how much history to keep.
#[derive(Clone)]
pub struct Config {
    /// etcd client URLs, `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Key prefixes with their closing `/`, one a collection: `/registry/pods/`. Other keys are followed but not kept.
    pub prefixes: Vec<String>,
    /// Longest time that an event stays in the log; also what etcd keeps when `compaction_interval` is set.
    pub log_age: Duration,
    /// Bytes of superseded objects that the log may keep alive before it drops its oldest events.
    pub log_bytes: usize,
    /// How often etcd is told to forget revisions older than one interval; `None` leaves compaction to others.
    pub compaction_interval: Option<Duration>,
    /// Limit for one etcd request.
    pub request_timeout: Duration,
    /// Told of every etcd request.
    pub observer: Observer,
}

impl Config {
    /// Upstream's intervals (compaction every 5 minutes) and a log of 64 MiB.
    #[must_use]
    pub fn new(endpoints: Vec<String>, prefixes: Vec<String>) -> Self {
        Self {
            endpoints,
            prefixes,
            log_age: Duration::from_secs(300),
            log_bytes: 64 << 20,
            compaction_interval: Some(Duration::from_secs(300)),
            request_timeout: Duration::from_secs(5),
            observer: Arc::new(|_, _, _| {}),
        }
    }
}
