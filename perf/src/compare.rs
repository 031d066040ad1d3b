//! Comparison by fast alternation: short slices of both sides in ABBA order, so that whatever else the machine does
//! falls on both alike. The result is the ratio of rates with its 95 % interval.
//!
//! It says nothing about absolute rates on another machine, nor about tails below a millisecond on a shared one.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

/// How long to measure.
pub(crate) struct Plan {
    /// Pairs of slices: each is reference, target, target, reference.
    pub(crate) pairs: usize,
    /// One slice.
    pub(crate) slice: Duration,
    /// Each side is driven so long before the first slice, unmeasured.
    pub(crate) warm_up: Duration,
}

/// What was seen of one side.
#[derive(Serialize)]
pub(crate) struct Side {
    /// Operations.
    pub(crate) operations: usize,
    /// Operations a second.
    pub(crate) rate: f64,
    /// Median time of one operation, microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile, microseconds.
    pub(crate) p99_us: f64,
}

/// A comparison.
#[derive(Serialize)]
pub(crate) struct Comparison {
    /// The side measured against.
    pub(crate) reference: Side,
    /// The side in question.
    pub(crate) target: Side,
    /// Rate of the target divided by rate of the reference: the geometric mean over pairs.
    pub(crate) ratio: f64,
    /// Its 95 % interval.
    pub(crate) interval: [f64; 2],
}

/// Drives both sides in turn. The first operation that fails ends the measurement with its error.
pub(crate) fn run(
    plan: &Plan,
    mut reference: impl FnMut() -> Result<()>,
    mut target: impl FnMut() -> Result<()>,
) -> Result<Comparison> {
    ensure!(plan.pairs >= 2, "an interval needs at least two pairs");
    let (mut reference_times, mut target_times) = (Vec::new(), Vec::new());
    slice(plan.warm_up, &mut reference, &mut Vec::new())?;
    slice(plan.warm_up, &mut target, &mut Vec::new())?;
    let mut ratios = Vec::with_capacity(plan.pairs);
    for _ in 0..plan.pairs {
        let first = slice(plan.slice, &mut reference, &mut reference_times)?;
        let middle = slice(plan.slice, &mut target, &mut target_times)?
            + slice(plan.slice, &mut target, &mut target_times)?;
        let last = slice(plan.slice, &mut reference, &mut reference_times)?;
        ratios.push((middle / (first + last)).ln());
    }
    let (ratio, interval) = geometric_mean(&ratios);
    Ok(Comparison { reference: side(&mut reference_times), target: side(&mut target_times), ratio, interval })
}

/// Runs one slice and returns its rate in operations a second; the time of each operation is added to `times`.
fn slice(
    length: Duration,
    operation: &mut impl FnMut() -> Result<()>,
    times: &mut Vec<Duration>,
) -> Result<f64> {
    let started = Instant::now();
    let mut last = started;
    let mut operations = 0;
    while last.duration_since(started) < length {
        operation()?;
        let now = Instant::now();
        times.push(now.duration_since(last));
        last = now;
        operations += 1;
    }
    Ok(f64::from(operations) / last.duration_since(started).as_secs_f64())
}

fn side(times: &mut [Duration]) -> Side {
    times.sort_unstable();
    let total: Duration = times.iter().sum();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e6;
    Side {
        operations: times.len(),
        rate: times.len() as f64 / total.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
}

/// The mean of logarithms and its 95 % interval (normal approximation), as factors.
fn geometric_mean(logarithms: &[f64]) -> (f64, [f64; 2]) {
    let count = logarithms.len() as f64;
    let mean = logarithms.iter().sum::<f64>() / count;
    let variance = logarithms.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = 1.96 * (variance / count).sqrt();
    (mean.exp(), [(mean - half).exp(), (mean + half).exp()])
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, side) in [("reference", &self.reference), ("target", &self.target)] {
            let Side { operations, rate, p50_us, p99_us } = side;
            writeln!(
                f,
                "{name:<10} {rate:>8.0}/s  p50 {p50_us:>7.1} us  p99 {p99_us:>7.1} us  ({operations} operations)"
            )?;
        }
        write!(
            f,
            "target / reference: {:.3} (95 %: {:.3} to {:.3})",
            self.ratio, self.interval[0], self.interval[1]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_mean_and_shrinks_with_agreement() {
        let (ratio, [low, high]) = geometric_mean(&[0.5_f64.ln(), 2.0_f64.ln()]);
        assert!((ratio - 1.0).abs() < 1e-9 && low < 1.0 && high > 1.0);
        let (ratio, [low, high]) = geometric_mean(&[0.9_f64.ln(); 10]);
        assert!((ratio - 0.9).abs() < 1e-9 && (high - low).abs() < 1e-9);
    }

    #[test]
    fn a_side_is_summed_up_by_rate_and_percentiles() {
        let mut times: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        let side = side(&mut times);
        assert_eq!(side.operations, 100);
        assert!((side.p50_us - 51.0).abs() < 1e-6 && (side.p99_us - 99.0).abs() < 1e-6);
    }

    #[test]
    fn an_operation_that_fails_ends_the_measurement() {
        let plan = Plan { pairs: 2, slice: Duration::from_micros(1), warm_up: Duration::ZERO };
        let failing = run(&plan, || Ok(()), || anyhow::bail!("refused"));
        assert!(failing.is_err_and(|error| error.to_string() == "refused"));
    }
}
