//! Comparison by fast alternation: short slices of both sides in ABBA order, in one process, so that whatever else
//! the machine does falls on both alike. The result is the ratio of rates with its 95 % interval.
//!
//! It says nothing about absolute rates on another machine, nor about tails below a millisecond on a shared one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::latency::{Latencies, Summary};
use crate::namespace::Namespace;
use crate::processor::{self, Shares, Ticks};
use crate::statistics::{self, Estimate};
use crate::traffic::Traffic;

/// So many failures in a row end the measurement: nobody answers.
const IN_A_ROW: usize = 3;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Pairs of slices: each is reference, target, target, reference.
    pub(crate) pairs: usize,
    /// One slice.
    pub(crate) slice: Duration,
    /// Each side is driven so long before the first slice, unmeasured.
    pub(crate) warm_up: Duration,
    /// No pair begins once a side has done so many operations: ports are finite.
    pub(crate) most_operations: usize,
}

impl Plan {
    /// No pair begins later than this: where operations take far longer than a slice, there are fewer pairs.
    fn longest(&self) -> Duration {
        3 * (4 * self.slice * u32::try_from(self.pairs).unwrap_or(u32::MAX))
    }
}

/// One side: what is done, and where. Without a namespace it is done where the thread is.
pub(crate) struct Side<'a> {
    pub(crate) namespace: Option<&'a Namespace>,
    pub(crate) traffic: Box<dyn Traffic + 'a>,
}

/// What was seen of one side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Operations that succeeded.
    pub(crate) operations: usize,
    /// Operations that failed. Pairs that hold one do not count for the ratio.
    pub(crate) failures: usize,
    /// Operations a second.
    pub(crate) rate: f64,
    /// CPU time of this process for one operation, microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) latency: Summary,
}

/// A comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Rate of the target divided by rate of the reference: the geometric mean over pairs.
    pub(crate) ratio: Estimate,
    /// Pairs that count.
    pub(crate) pairs: usize,
    pub(crate) reference: Seen,
    pub(crate) target: Seen,
    /// The whole machine meanwhile.
    pub(crate) machine: Shares,
}

/// Drives both sides in turn.
pub(crate) fn compare(plan: &Plan, reference: Side<'_>, target: Side<'_>) -> Result<Comparison> {
    ensure!(plan.pairs >= 2, "an interval needs at least two pairs");
    let (mut reference, mut target) = (Driver::new(reference), Driver::new(target));
    reference.slice(plan.warm_up).context("the reference")?;
    target.slice(plan.warm_up).context("the target")?;
    reference.forget();
    target.forget();
    let before = Ticks::now()?;
    let deadline = Instant::now() + plan.longest();
    let mut ratios = Vec::with_capacity(plan.pairs);
    for _ in 0..plan.pairs {
        let failures = reference.failures + target.failures;
        let first = reference.slice(plan.slice).context("the reference")?;
        let middle = [
            target.slice(plan.slice).context("the target")?,
            target.slice(plan.slice).context("the target")?,
        ];
        let last = reference.slice(plan.slice).context("the reference")?;
        if reference.failures + target.failures == failures {
            ratios.push((middle[0] + middle[1]) / (first + last));
        }
        let enough = reference.operations.max(target.operations) >= plan.most_operations;
        if enough || (Instant::now() > deadline && ratios.len() >= 2) {
            break;
        }
    }
    ensure!(ratios.len() >= 2, "fewer than two pairs without a failure: no interval");
    Ok(Comparison {
        ratio: statistics::geometric_mean(&ratios),
        pairs: ratios.len(),
        reference: reference.seen(),
        target: target.seen(),
        machine: Ticks::now()?.since(&before),
    })
}

struct Driver<'a> {
    side: Side<'a>,
    operations: usize,
    failures: usize,
    failed_in_a_row: usize,
    time: Duration,
    cpu: Duration,
    latencies: Latencies,
}

impl<'a> Driver<'a> {
    fn new(side: Side<'a>) -> Self {
        Self {
            side,
            operations: 0,
            failures: 0,
            failed_in_a_row: 0,
            time: Duration::ZERO,
            cpu: Duration::ZERO,
            latencies: Latencies::new(),
        }
    }

    /// Runs one slice and returns its rate in operations a second.
    fn slice(&mut self, length: Duration) -> Result<f64> {
        if let Some(namespace) = self.side.namespace {
            namespace.enter()?;
        }
        let cpu = processor::own();
        let started = Instant::now();
        let mut last = started;
        let mut operations = 0;
        while last.duration_since(started) < length {
            let result = self.side.traffic.once();
            let now = Instant::now();
            match result {
                Ok(()) => {
                    operations += 1;
                    self.failed_in_a_row = 0;
                    self.latencies.record(now.duration_since(last));
                }
                Err(error) => {
                    self.failures += 1;
                    self.failed_in_a_row += 1;
                    if self.failed_in_a_row >= IN_A_ROW {
                        return Err(error);
                    }
                }
            }
            last = now;
        }
        self.cpu += processor::own().saturating_sub(cpu);
        self.time += last.duration_since(started);
        self.operations += operations;
        Ok(operations as f64 / last.duration_since(started).as_secs_f64())
    }

    /// The warm-up does not count, its failures neither.
    fn forget(&mut self) {
        (self.operations, self.failures, self.time, self.cpu) = (0, 0, Duration::ZERO, Duration::ZERO);
        self.latencies = Latencies::new();
    }

    fn seen(&self) -> Seen {
        Seen {
            operations: self.operations,
            failures: self.failures,
            rate: (self.operations as f64 / self.time.as_secs_f64()).round(),
            cpu_us: (self.cpu.as_secs_f64() * 1e8 / self.operations.max(1) as f64).round() / 100.0,
            latency: self.latencies.summary(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Sleeps; every so many times it fails.
    struct Sleep {
        time: Duration,
        fails_every: usize,
        done: usize,
    }

    impl Traffic for Sleep {
        fn once(&mut self) -> Result<()> {
            self.done += 1;
            std::thread::sleep(self.time);
            ensure!(!self.done.is_multiple_of(self.fails_every), "refused");
            Ok(())
        }
    }

    const PLAN: Plan = Plan {
        pairs: 4,
        slice: Duration::from_millis(4),
        warm_up: Duration::ZERO,
        most_operations: usize::MAX,
    };

    fn check(plan: &Plan, fails_every: usize) -> Result<Comparison> {
        let side = |us, fails_every| Side {
            namespace: None,
            traffic: Box::new(Sleep { time: Duration::from_micros(us), fails_every, done: 0 }),
        };
        compare(plan, side(100, usize::MAX), side(400, fails_every))
    }

    #[test]
    fn both_sides_are_driven_and_the_slower_one_is_seen() {
        let result = check(&PLAN, usize::MAX).unwrap();
        assert!(result.ratio.value < 1.0, "{result:?}");
        assert!(result.reference.operations > result.target.operations, "{result:?}");
        assert_eq!((result.pairs, result.target.failures), (4, 0));
        assert!(result.target.latency.p50_us >= 400.0);
    }

    #[test]
    fn an_operation_that_always_fails_ends_the_measurement() {
        let error = check(&PLAN, 1).unwrap_err();
        assert_eq!(format!("{error:#}"), "the target: refused");
    }

    #[test]
    fn pairs_with_a_failure_do_not_count() {
        let result = check(&PLAN, 40);
        // The fourth pair or an earlier one holds the 40th operation.
        assert!(result.is_ok_and(|result| result.target.failures == 0 || result.pairs < 4));
    }

    #[test]
    fn operations_that_are_far_longer_than_a_slice_make_fewer_pairs() {
        let plan = Plan { pairs: 50, slice: Duration::from_millis(1), ..PLAN };
        let side = |ms| Side {
            namespace: None,
            traffic: Box::new(Sleep { time: Duration::from_millis(ms), fails_every: usize::MAX, done: 0 }),
        };
        // Four slices of 40 ms a pair, instead of four of one: 600 ms are over after four pairs.
        let seen = compare(&plan, side(40), side(40)).unwrap();
        assert!((2..10).contains(&seen.pairs), "{}", seen.pairs);
    }

    #[test]
    fn no_pair_begins_after_the_most_operations() {
        let result = check(&Plan { pairs: 1000, most_operations: 100, ..PLAN }, usize::MAX).unwrap();
        assert!(result.pairs < 20, "{}", result.pairs);
    }
}
