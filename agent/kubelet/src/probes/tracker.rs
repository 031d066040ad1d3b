//! Counts probe results against thresholds. Pure.

use k8s_openapi::api::core::v1::Probe;

use super::{Outcome, ProbeKind};

/// A probe's verdict changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Often enough in a row it passed.
    Passed,
    /// Often enough in a row it failed.
    Failed,
}

/// Results of one probe of one instance.
#[derive(Debug, Clone)]
pub struct Tracker {
    verdict: Option<bool>,
    run: u32,
    last: Option<bool>,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Tracker {
    /// `known`: the verdict before, for an instance that a restarted agent took over. Otherwise a readiness probe
    /// begins as failed, a liveness probe as passed, a startup probe as unknown.
    pub fn new(kind: ProbeKind, probe: &Probe, known: Option<bool>) -> Self {
        let threshold =
            |value: Option<i32>, default| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(1);
        let initial = match kind {
            ProbeKind::Startup => None,
            ProbeKind::Liveness => Some(true),
            ProbeKind::Readiness => Some(false),
        };
        Self {
            verdict: known.or(initial),
            run: 0,
            last: None,
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
        }
    }

    /// Takes one result; tells whether the verdict changed with it.
    pub fn take(&mut self, outcome: &Outcome) -> Option<Change> {
        let passed = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.verdict == Some(passed) {
            return None;
        }
        self.verdict = Some(passed);
        Some(if passed { Change::Passed } else { Change::Failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `results`: `+` success, `-` failure, `?` unknown. `expected`: `P` passed, `F` failed, `.` no change.
    fn check(kind: ProbeKind, success: i32, failure: i32, results: &str, expected: &str) {
        let probe =
            Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() };
        let mut tracker = Tracker::new(kind, &probe, None);
        let changes: String = results
            .chars()
            .map(|result| {
                let outcome = match result {
                    '+' => Outcome::Success,
                    '-' => Outcome::Failure(String::new()),
                    _ => Outcome::Unknown(String::new()),
                };
                match tracker.take(&outcome) {
                    Some(Change::Passed) => 'P',
                    Some(Change::Failed) => 'F',
                    None => '.',
                }
            })
            .collect();
        assert_eq!(changes, expected, "{kind:?} {success}/{failure} {results}");
    }

    #[test]
    fn verdicts_change_at_the_thresholds() {
        check(ProbeKind::Readiness, 1, 3, "+--+---+", "P.....FP");
        check(ProbeKind::Readiness, 2, 1, "+-++-", "...PF");
        check(ProbeKind::Readiness, 1, 3, "---", "...");
        check(ProbeKind::Liveness, 1, 3, "++---", "....F");
        check(ProbeKind::Liveness, 1, 2, "-?-", "..F");
        check(ProbeKind::Startup, 1, 2, "-+", ".P");
        check(ProbeKind::Startup, 1, 2, "--", ".F");
    }
}
