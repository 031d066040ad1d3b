//! Ratios and their intervals. Everything here is a pure function of numbers.

use serde::{Deserialize, Serialize};

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    /// The middle.
    pub(crate) value: f64,
    /// Lower and upper bound.
    pub(crate) interval: [f64; 2],
}

/// Two-sided 97.5 % quantile of Student's t by degrees of freedom; above the table it is the normal one.
const T: &[(usize, f64)] = &[
    (1, 12.71),
    (2, 4.30),
    (3, 3.18),
    (4, 2.78),
    (5, 2.57),
    (6, 2.45),
    (7, 2.36),
    (8, 2.31),
    (9, 2.26),
    (10, 2.23),
    (15, 2.13),
    (20, 2.09),
    (30, 2.04),
    (60, 2.00),
    (120, 1.98),
];

fn t_quantile(degrees: usize) -> f64 {
    T.iter().rev().find(|(least, _)| degrees >= *least).map_or(f64::INFINITY, |(least, t)| {
        // Between two rows the smaller number of degrees errs to the wide side.
        if *least == 120 && degrees > 1000 { 1.96 } else { *t }
    })
}

/// The mean and its interval.
pub(crate) fn mean(values: &[f64]) -> Estimate {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = t_quantile(values.len().saturating_sub(1)) * (variance / count).sqrt();
    Estimate { value: mean, interval: [mean - half, mean + half] }
}

/// The geometric mean of ratios and its interval.
pub(crate) fn geometric_mean(ratios: &[f64]) -> Estimate {
    let logarithms: Vec<_> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let Estimate { value, interval } = mean(&logarithms);
    Estimate { value: value.exp(), interval: interval.map(f64::exp) }
}

/// The median, by sorting.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_mean_and_shrinks_with_agreement() {
        let estimate = geometric_mean(&[0.5, 2.0]);
        assert!((estimate.value - 1.0).abs() < 1e-9);
        assert!(estimate.interval[0] < 1.0 && estimate.interval[1] > 1.0);
        let estimate = geometric_mean(&[0.9; 10]);
        assert!((estimate.value - 0.9).abs() < 1e-9 && (estimate.interval[1] - 0.9).abs() < 1e-9);
    }

    #[test]
    fn few_values_give_a_wider_interval_than_many() {
        let width = |count: usize| {
            let values: Vec<_> = (0..count).map(|i| (i % 2) as f64).collect();
            let [low, high] = mean(&values).interval;
            high - low
        };
        assert!(width(4) > width(40) && width(40) > width(400));
        assert!(t_quantile(0).is_infinite());
        assert!((t_quantile(59) - 2.04).abs() < 1e-9 && (t_quantile(5000) - 1.96).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
