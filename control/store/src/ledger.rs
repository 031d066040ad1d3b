//! What the event logs hold in sum, oldest first: decides which events to forget.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Item {
    revision: i64,
    collection: usize,
    weight: usize,
    at: Instant,
}

/// The events of all collections in the order of their revisions.
#[derive(Default)]
pub(crate) struct Ledger {
    items: VecDeque<Item>,
    weight: usize,
}

impl Ledger {
    pub(crate) fn add(&mut self, revision: i64, collection: usize, weight: usize, at: Instant) {
        self.weight += weight;
        self.items.push_back(Item { revision, collection, weight, at });
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes out what is older than `age` or exceeds `bytes`: for each collection concerned, the last revision to forget.
    pub(crate) fn trim(&mut self, now: Instant, age: Duration, bytes: usize) -> Vec<(usize, i64)> {
        let mut forget: Vec<(usize, i64)> = Vec::new();
        while let Some(item) = self.items.front() {
            if self.weight <= bytes && now.duration_since(item.at) <= age {
                break;
            }
            self.weight -= item.weight;
            match forget.iter_mut().find(|(it, _)| *it == item.collection) {
                Some((_, revision)) => *revision = item.revision,
                None => forget.push((item.collection, item.revision)),
            }
            self.items.pop_front();
        }
        forget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_by_age_and_by_bytes() {
        let start = Instant::now();
        let mut ledger = Ledger::default();
        for n in 0..10_u32 {
            ledger.add(i64::from(n), (n % 2) as usize, 100, start + Duration::from_secs(u64::from(n)));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(ledger.trim(now, Duration::from_secs(100), 10_000), []);
        assert_eq!(ledger.trim(now, Duration::from_secs(8), 10_000), [(0, 0), (1, 1)]);
        assert_eq!(ledger.trim(now, Duration::from_secs(100), 500), [(0, 4), (1, 3)]);
    }
}
