//! Latencies in an HDR histogram: nanoseconds from 1 to a minute, three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What is longer than this is counted as this.
const LONGEST: Duration = Duration::from_secs(60);

/// The quantiles a summary holds: enough to draw the distribution on a logarithmic axis of rarity.
const QUANTILES: &[f64] =
    &[0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 0.99999, 1.0];

/// A recording.
pub(crate) struct Latencies(Histogram<u64>);

/// A recording's quantiles, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Pairs of quantile (0 to 1) and microseconds.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Latencies {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        Self(
            Histogram::new_with_bounds(1, longest, 3)
                .expect("1 to 60e9 with 3 digits is in the crate's range"),
        )
    }

    /// Adds one latency.
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds all of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The quantiles.
    pub(crate) fn summary(&self) -> Summary {
        let at = |quantile: f64| round(self.0.value_at_quantile(quantile) as f64 / 1e3);
        // Rarer than one in the number recorded says nothing more than the maximum.
        let told = |quantile: &f64| *quantile >= 1.0 || (1.0 - quantile) * self.0.len() as f64 >= 1.0;
        Summary {
            count: self.0.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: round(self.0.max() as f64 / 1e3),
            curve: QUANTILES.iter().copied().filter(told).map(|quantile| (quantile, at(quantile))).collect(),
        }
    }
}

/// To a tenth of a microsecond: more digits are not in the histogram.
fn round(us: f64) -> f64 {
    (us * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new();
        (1..=1000).map(Duration::from_micros).for_each(|time| latencies.record(time));
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        for (seen, wanted) in [(summary.p50_us, 500.0), (summary.p99_us, 990.0), (summary.max_us, 1000.0)] {
            assert!((seen - wanted).abs() <= wanted * 0.002, "{seen} for {wanted}");
        }
        assert!(summary.curve.iter().all(|(quantile, _)| *quantile <= 0.999 || *quantile >= 1.0));
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(3600));
        let mut all = Latencies::new();
        all.add(&latencies);
        assert_eq!(all.summary().count, 1);
        assert!(all.summary().max_us >= 59e6);
    }
}
