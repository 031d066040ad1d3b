//! Probes of running containers: `tracker` counts, `check` asks once over the network, this file runs one probe for
//! the life of one instance. What a result means for the pod is decided elsewhere.

pub mod check;
pub mod tracker;

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Probe;

use tracker::{Change, Tracker};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Gates the others.
    Startup,
    /// Failing restarts the container.
    Liveness,
    /// Decides whether the pod gets traffic.
    Readiness,
}

impl ProbeKind {
    /// As in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Outcome of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Success,
    /// It failed: why.
    Failure(String),
    /// It could not be made: counts as nothing.
    Unknown(String),
}

/// Timing of a probe with upstream's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the start of the container to the first probe.
    pub initial_delay: Duration,
    /// Between two probes.
    pub period: Duration,
    /// Longest time one may take.
    pub timeout: Duration,
}

impl Timing {
    /// Of `probe`.
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
        }
    }
}

/// Probes until dropped. `first_after` is the wait before the first probe. `report` is called with each failure and
/// each change; it gives false to end.
pub async fn run(
    kind: ProbeKind,
    probe: Probe,
    known: Option<bool>,
    first_after: Duration,
    ask: impl Fn() -> BoxFuture<'static, Outcome>,
    mut report: impl FnMut(Option<Change>, Outcome) -> bool,
) {
    let timing = Timing::of(&probe);
    let mut tracker = Tracker::new(kind, &probe, known);
    tokio::time::sleep(first_after).await;
    loop {
        let began = tokio::time::Instant::now();
        let outcome = ask().await;
        let change = tracker.take(&outcome);
        if (change.is_some() || outcome != Outcome::Success) && !report(change, outcome) {
            return;
        }
        tokio::time::sleep_until(began + timing.period).await;
    }
}
