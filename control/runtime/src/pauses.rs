//! How long a follower of the API waits before it tries again. It decides the pause, it does not wait.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// First pause before a broken watch is taken up again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: a restarted API server is followed again within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses that double, with a quarter of chance so that many followers do not come back at once.
#[derive(Clone, Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        Some(pause.mul_f64(rand::random_range(0.75..1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew() {
        let mut pauses = Pauses::default();
        let all: Vec<Duration> = pauses.by_ref().take(8).collect();
        for (pause, millis) in all.iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            let full = Duration::from_millis(millis);
            assert!((full.mul_f64(0.75)..=full).contains(pause), "{pause:?} is of {full:?}");
        }
        pauses.reset();
        assert!(pauses.next().is_some_and(|it| it <= FIRST_PAUSE));
    }
}
