//! Quantiles with intervals that assume nothing of the distribution: by ranks, of which the binomial distribution says how
//! probably a quantile lies between them.

use crate::statistics::Estimate;

/// The probability on each side outside of a 95 % interval.
const TAIL: f64 = 0.025;

/// The quantile `q` (0 to 1) of values in ascending order, with its 95 % interval. With too few values for an end of it
/// (below 368 for the 99th percentile), that end is the least or greatest value seen, and the interval is narrower than
/// it should be.
pub(super) fn quantile(sorted: &[f64], q: f64) -> Estimate {
    let Some(last) = sorted.len().checked_sub(1) else {
        return Estimate { value: f64::NAN, interval: [f64::NAN; 2] };
    };
    let at = |rank: usize| sorted[rank.min(last)];
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let (low, high) = ranks(sorted.len(), q);
    Estimate { value: at(rank.saturating_sub(1)), interval: [at(low), at(high)] }
}

/// Ranks (from 0) between which the quantile lies: that fewer values than these are below it is improbable enough.
fn ranks(count: usize, q: f64) -> (usize, usize) {
    let (mut low, mut high) = (0, count - 1);
    // The logarithm of the probability that `below` values are below the quantile, and the sum of all up to it.
    let (mut log, mut sum) = (count as f64 * (1.0 - q).ln(), 0.0);
    for below in 0..count {
        let before = sum;
        sum += log.exp();
        if sum <= TAIL {
            low = below;
        }
        if before < 1.0 - TAIL && sum >= 1.0 - TAIL {
            high = below;
        }
        log += ((count - below) as f64 / (below + 1) as f64).ln() + (q / (1.0 - q)).ln();
    }
    (low, high.min(count - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: usize, q: f64, value: f64, interval: [f64; 2]) {
        let sorted: Vec<_> = (1..=count).map(|number| number as f64).collect();
        assert_eq!(quantile(&sorted, q), Estimate { value, interval }, "{count} values, {q}");
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Of 100 values 39 or fewer lie below the median with a probability of 0.018, 40 or fewer of 0.028.
        check(100, 0.5, 50.0, [40.0, 61.0]);
        check(1_000, 0.5, 500.0, [469.0, 532.0]);
    }

    #[test]
    fn a_rare_quantile_of_few_values_ends_at_the_greatest() {
        check(20, 0.99, 20.0, [19.0, 20.0]);
        check(1, 0.5, 1.0, [1.0, 1.0]);
        assert!(quantile(&[], 0.5).value.is_nan());
    }

    #[test]
    fn from_368_values_on_the_99th_percentile_has_an_upper_end() {
        let outside = |count: usize| 0.99_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
        assert!(outside(367) > TAIL && outside(368) < TAIL);
        let (low, high) = ranks(400, 0.99);
        assert!(low > 385 && high == 399, "{low} {high}");
    }
}
