//! Exponential back-off as the kubelet's: the first retry is immediate, then the delay doubles from a base to a
//! cap; a quiet time of twice the cap starts over. Pure: the caller gives the time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First delay between two restarts of a container, and between two pulls of an image.
pub const BASE: Duration = Duration::from_secs(10);

/// One back-off counter. The delay counts from the event that it follows (an exit, a failed pull).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    delay: Duration,
    last: Option<Timestamp>,
}

impl Backoff {
    /// The delay now in force; zero before the first [`Self::advance`].
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The counter after `tries` advances, the last at `last`: for an agent that has just started.
    pub fn restored(tries: u32, last: Timestamp) -> Self {
        Self { delay: BASE * 2u32.pow(tries.saturating_sub(1).min(5)), last: Some(last) }
    }

    /// When the next try may happen after an event at `since`.
    pub fn ready_at(&self, since: Timestamp, cap: Duration) -> Timestamp {
        if self.expired(since, cap) { since } else { later(since, self.delay.min(cap)) }
    }

    /// A retry happens at `now` because of an event at `since`: the next one will wait longer.
    pub fn advance(&mut self, since: Timestamp, now: Timestamp, cap: Duration) {
        self.delay = match (self.expired(since, cap), self.delay) {
            (true, _) | (_, Duration::ZERO) => BASE.min(cap),
            (false, delay) => (delay * 2).min(cap),
        };
        self.last = Some(now);
    }

    fn expired(&self, event: Timestamp, cap: Duration) -> bool {
        self.last.is_none_or(|last| event.duration_since(last) > signed(cap * 2))
    }
}

/// `time` plus `wait`; a sum beyond the calendar stays at its end.
pub fn later(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(signed(wait)).unwrap_or(Timestamp::MAX)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(300);

    #[test]
    fn restarts_wait_0_10_20_40_80_160_300_300_seconds() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let exit = later(now, Duration::from_secs(1));
            now = backoff.ready_at(exit, CAP);
            waits.push(now.duration_since(exit).as_secs());
            backoff.advance(exit, now, CAP);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_start_over() {
        let mut backoff = Backoff::default();
        let start = Timestamp::UNIX_EPOCH;
        for _ in 0..4 {
            backoff.advance(start, start, CAP);
        }
        assert_eq!(backoff.delay(), Duration::from_secs(80));
        let exit = later(start, Duration::from_secs(601));
        assert_eq!(backoff.ready_at(exit, CAP), exit, "immediately");
        backoff.advance(exit, exit, CAP);
        assert_eq!(backoff.delay(), BASE);
    }
}
