//! A series of times, and the results it makes: a median and, of enough of them, a 99th percentile.

use std::time::Duration;

use serde_json::{Value, json};

use super::clock::Offset;
use super::quantile::quantile;
use crate::latency::Latencies;
use crate::results::{Outcome, Unit};
use crate::statistics::Estimate;

/// What results are called in reports.
const GROUP: &str = "control";
/// Any cluster: a file of results is about one.
const LANE: &str = "cluster";
/// Of fewer a 99th percentile would be the maximum under another name.
const ENOUGH: usize = 100;

/// Nanoseconds each from something that we did to something that the prober saw.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<(u64, u64)>);

impl Times {
    /// One more: when we began, by our clock, and when it was seen, by the prober's.
    pub(super) fn push(&mut self, ours_ns: u64, theirs_ns: u64) {
        self.0.push((ours_ns, theirs_ns));
    }

    /// How many were seen before they were begun, however wrong the clocks are.
    pub(super) fn impossible(&self, offset: Offset) -> usize {
        let wrong = i64::try_from(offset.uncertainty_ns).unwrap_or(i64::MAX);
        self.0.iter().filter(|(ours, theirs)| offset.between(*ours, *theirs) < -wrong).count()
    }

    /// The results under the name `test`, with `services` others in the cluster. What was seen before it was begun (an
    /// answer on its way may be slower than what it tells) took no time.
    pub(super) fn outcomes(
        &self,
        test: &str,
        services: usize,
        unit: Unit,
        offset: Offset,
        more: &Value,
    ) -> Vec<Outcome> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let taken: Vec<_> =
            self.0.iter().map(|(ours, theirs)| offset.between(*ours, *theirs).max(0) as u64).collect();
        let mut latencies = Latencies::new();
        taken.iter().for_each(|ns| latencies.record(Duration::from_nanos(*ns)));
        let scale = if unit == Unit::Seconds { 1e9 } else { 1e3 };
        let mut sorted: Vec<_> = taken.iter().map(|ns| *ns as f64 / scale).collect();
        sorted.sort_by(f64::total_cmp);
        let wrong = offset.uncertainty_ns as f64 / scale;
        let outcome = |name: &str, q: f64, detail: Value| {
            let Estimate { value, interval: [low, high] } = quantile(&sorted, q);
            Outcome {
                group: GROUP.to_owned(),
                test: format!("{test}, {name}"),
                lane: LANE.to_owned(),
                services: Some(services),
                reference: None,
                unit,
                estimate: Estimate { value, interval: [(low - wrong).max(0.0), high + wrong] },
                published: None,
                skipped: None,
                detail,
            }
        };
        let mut detail = json!({"latency": latencies.summary(), "clock": offset});
        if let (Some(detail), Some(more)) = (detail.as_object_mut(), more.as_object()) {
            detail.extend(more.clone());
        }
        let mut outcomes = vec![outcome("p50", 0.5, detail)];
        if sorted.len() >= ENOUGH {
            outcomes.push(outcome("p99", 0.99, Value::Null));
        }
        outcomes
    }

    /// For people: median, 99th percentile, greatest; nothing of nothing.
    pub(super) fn describe(&self, offset: Offset) -> Option<String> {
        let mut sorted: Vec<_> =
            self.0.iter().map(|(ours, theirs)| offset.between(*ours, *theirs) as f64 / 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|q| quantile(&sorted, q).value);
        let greatest = sorted.last()?;
        Some(format!("p50 {p50:.2} ms, p99 {p99:.2} ms, max {greatest:.2} ms of {}", sorted.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: u64) -> Times {
        let mut times = Times::default();
        // 1 to `count` milliseconds by our clock.
        (1..=count).for_each(|number| times.push(5_000_000, 5_000_000 + number * 1_000_000));
        times
    }

    fn same() -> Offset {
        Offset::estimate(&[], true).expect("one boot is one clock")
    }

    #[test]
    fn few_have_a_median_and_many_a_99th_percentile() {
        for (count, expected) in [(20, vec![10_000.0]), (400, vec![200_000.0, 396_000.0])] {
            let outcomes = times(count).outcomes("t", 7, Unit::Microseconds, same(), &json!({"x": 1}));
            let values: Vec<_> = outcomes.iter().map(|outcome| outcome.estimate.value).collect();
            assert_eq!(values, expected);
            let detail = &outcomes[0].detail;
            assert_eq!((&detail["latency"]["count"], &detail["x"]), (&json!(count), &json!(1)));
        }
    }

    #[test]
    fn what_is_not_known_of_the_clock_widens_the_interval() {
        let sample = super::super::clock::Sample { sent_ns: 0, theirs_ns: 1_000_000, came_ns: 2_000_000 };
        let offset = Offset::estimate(&[sample], false).expect("a sample");
        let of = |offset| times(100).outcomes("t", 0, Unit::Microseconds, offset, &Value::Null)[0].estimate;
        let (exact, wide) = (of(same()), of(offset));
        assert_eq!(wide.interval, [exact.interval[0] - 1_000.0, exact.interval[1] + 1_000.0]);
    }

    #[test]
    fn what_was_seen_too_early_took_no_time() {
        let mut times = Times::default();
        times.push(2_000, 1_000);
        assert_eq!(
            times.outcomes("t", 0, Unit::Seconds, same(), &Value::Null)[0].estimate.value.to_bits(),
            0
        );
    }
}
