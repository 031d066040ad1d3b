//! Allocator of stretches of slot lines. Pure; a line given back rests until no reader can still hold a run that covers it.

use std::collections::{BTreeMap, VecDeque};

/// Free stretches of a table of lines.
#[derive(Debug)]
pub struct Lines {
    /// First line to length, never adjacent.
    free: BTreeMap<u32, u32>,
    /// Time of return, first line, length; oldest first.
    resting: VecDeque<(u64, u32, u32)>,
    quarantine_ms: u64,
}

impl Lines {
    /// All lines below `limit` but line 0, so that the word zero names no line.
    pub fn new(limit: u32, quarantine_ms: u64) -> Self {
        let free = if limit > 1 { BTreeMap::from([(1, limit - 1)]) } else { BTreeMap::new() };
        Self { free, resting: VecDeque::new(), quarantine_ms }
    }

    /// Marks a stretch as in use, as found in the tables. Lines that are in use already stay so.
    pub fn reserve(&mut self, first: u32, count: u32) {
        let end = first.saturating_add(count);
        let touched: Vec<(u32, u32)> = self
            .free
            .range(..end)
            .filter(|(start, length)| **start + **length > first)
            .map(|(start, length)| (*start, *length))
            .collect();
        for (start, length) in touched {
            self.free.remove(&start);
            if start < first {
                self.free.insert(start, first - start);
            }
            if start + length > end {
                self.free.insert(end, start + length - end);
            }
        }
    }

    /// The first stretch of `count` lines that is free and rested.
    pub fn take(&mut self, count: u32, now_ms: u64) -> Option<u32> {
        while let Some((since, first, length)) = self.resting.front().copied() {
            if now_ms.saturating_sub(since) < self.quarantine_ms {
                break;
            }
            self.resting.pop_front();
            self.merge(first, length);
        }
        let (start, length) = self
            .free
            .iter()
            .find(|(_, length)| **length >= count)
            .map(|(start, length)| (*start, *length))?;
        self.free.remove(&start);
        if length > count {
            self.free.insert(start + count, length - count);
        }
        Some(start)
    }

    /// Gives a stretch back.
    pub fn give_back(&mut self, first: u32, count: u32, now_ms: u64) {
        if count > 0 {
            self.resting.push_back((now_ms, first, count));
        }
    }

    fn merge(&mut self, mut first: u32, mut length: u32) {
        if let Some((start, before)) =
            self.free.range(..first).next_back().map(|(start, length)| (*start, *length))
            && start + before == first
        {
            self.free.remove(&start);
            (first, length) = (start, length + before);
        }
        if let Some(after) = self.free.remove(&(first + length)) {
            length += after;
        }
        self.free.insert(first, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_from_the_front_and_rest_before_reuse() {
        let mut lines = Lines::new(8, 1000);
        assert_eq!((lines.take(2, 0), lines.take(3, 0)), (Some(1), Some(3)));
        lines.give_back(1, 2, 100);
        assert_eq!(lines.take(2, 500), Some(6));
        assert_eq!(lines.take(1, 500), None, "the rest is in use or rests");
        assert_eq!(lines.take(2, 1100), Some(1));
    }

    #[test]
    fn neighbours_that_come_back_in_any_order_are_one_stretch_again() {
        let mut lines = Lines::new(10, 0);
        let parts: Vec<u32> = (0..3).filter_map(|_| lines.take(3, 0)).collect();
        assert_eq!(parts, [1, 4, 7]);
        for first in [4, 1, 7] {
            lines.give_back(first, 3, 0);
        }
        assert_eq!(lines.take(9, 0), Some(1));
    }

    #[test]
    fn reserved_lines_are_not_given() {
        let mut lines = Lines::new(10, 0);
        lines.reserve(3, 2);
        lines.reserve(4, 2);
        assert_eq!(lines.take(3, 0), Some(6));
        assert_eq!(lines.take(2, 0), Some(1));
        assert_eq!(lines.take(1, 0), Some(9));
        assert_eq!(lines.take(1, 0), None);
    }
}
