//! Numbers that stand for rows: given out once, taken back, and not given again before readers have forgotten them.

use std::collections::{BTreeSet, VecDeque};

/// Allocator of the numbers 1 to `limit - 1`. Zero is never given out: in the tables it means "none".
#[derive(Debug)]
pub struct Ids {
    limit: u32,
    /// The smallest number that was never given out, apart from those reserved.
    next: u32,
    /// Numbers above `next` that are in use because an earlier process gave them out.
    reserved: BTreeSet<u32>,
    /// Returned numbers with the time of their return, oldest first.
    returned: VecDeque<(u64, u32)>,
    quarantine_ms: u64,
}

impl Ids {
    /// Numbers below `limit`; a returned number rests for `quarantine_ms`.
    pub fn new(limit: usize, quarantine_ms: u64) -> Self {
        Self {
            limit: limit as u32,
            next: 1,
            reserved: BTreeSet::new(),
            returned: VecDeque::new(),
            quarantine_ms,
        }
    }

    /// Marks a number as in use.
    pub fn reserve(&mut self, id: u32) {
        self.reserved.insert(id);
    }

    /// A number that nothing refers to, or `None` if all are in use or rest. Numbers rested longest come first, so tables stay dense.
    pub fn take(&mut self, now_ms: u64) -> Option<u32> {
        if let Some((since, id)) = self.returned.front().copied()
            && now_ms.saturating_sub(since) >= self.quarantine_ms
        {
            self.returned.pop_front();
            return Some(id);
        }
        while self.reserved.remove(&self.next) {
            self.next += 1;
        }
        if self.next >= self.limit {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// Gives a number back. A reserved one stays marked until `next` has passed it, so it is not given out by both ways.
    pub fn give_back(&mut self, id: u32, now_ms: u64) {
        self.returned.push_back((now_ms, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one_and_rest_before_they_are_given_again() {
        let mut ids = Ids::new(4, 1000);
        assert_eq!((ids.take(0), ids.take(0)), (Some(1), Some(2)));
        ids.give_back(1, 500);
        assert_eq!(ids.take(600), Some(3), "1 rests");
        assert_eq!(ids.take(700), None, "1 rests and all others are in use");
        assert_eq!(ids.take(1500), Some(1));
    }

    #[test]
    fn reserved_numbers_are_stepped_over_and_come_back_like_others() {
        let mut ids = Ids::new(10, 0);
        ids.reserve(1);
        ids.reserve(3);
        assert_eq!((ids.take(0), ids.take(0)), (Some(2), Some(4)));
        ids.give_back(3, 0);
        assert_eq!((ids.take(0), ids.take(0)), (Some(3), Some(5)));
        ids.reserve(8);
        ids.give_back(8, 0);
        assert_eq!(
            (ids.take(0), ids.take(0), ids.take(0), ids.take(0)),
            (Some(8), Some(6), Some(7), Some(9))
        );
        assert_eq!(ids.take(0), None);
    }
}
