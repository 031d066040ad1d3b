//! Who has which frontend: several services may want one, the first to ask has it, the next in line gets it when it is given up.

use std::collections::HashMap;

use crate::{Diff, Frontend, FrontendKey};

/// Frontends with the rows that want them. A row's service id tells who asks.
#[derive(Debug, Default)]
pub struct Claims {
    held: HashMap<FrontendKey, Frontend>,
    /// In order of claim; only where somebody waits.
    waiting: HashMap<FrontendKey, Vec<Frontend>>,
}

impl Claims {
    /// Asks for a frontend, or changes the row of one asked for before. Returns the id of the service that has it if another one does.
    pub fn claim(&mut self, key: FrontendKey, row: Frontend, diff: &mut Diff) -> Option<u32> {
        match self.held.get_mut(&key) {
            Some(holder) if holder.service != row.service => {
                let holder = holder.service;
                let line = self.waiting.entry(key).or_default();
                match line.iter_mut().find(|other| other.service == row.service) {
                    Some(own) => *own = row,
                    None => line.push(row),
                }
                return Some(holder);
            }
            Some(own) => *own = row,
            None => drop(self.held.insert(key, row)),
        }
        diff.frontends.push((key, Some(row)));
        None
    }

    /// Gives a frontend up, held or only asked for.
    pub fn release(&mut self, key: FrontendKey, service: u32, diff: &mut Diff) {
        let holds = self.held.get(&key).is_some_and(|holder| holder.service == service);
        let Some(line) = self.waiting.get_mut(&key) else {
            if holds {
                self.held.remove(&key);
                diff.frontends.push((key, None));
            }
            return;
        };
        if holds {
            let next = line.remove(0);
            self.held.insert(key, next);
            diff.frontends.push((key, Some(next)));
        } else {
            line.retain(|other| other.service != service);
        }
        if line.is_empty() {
            self.waiting.remove(&key);
        }
    }

    /// Whether somebody has this frontend.
    pub fn is_held(&self, key: &FrontendKey) -> bool {
        self.held.contains_key(key)
    }

    /// Whether nobody asks for anything.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, FrontendAddress, Protocol};

    const KEY: FrontendKey =
        FrontendKey { address: FrontendAddress::NodePort(Family::V4), port: 80, protocol: Protocol::Tcp };

    fn row(service: u32) -> Frontend {
        Frontend { service, external: false, source_ranges: false, node_port: true }
    }

    /// Claims (positive) and releases (negative) by service; the holder after each, 0 for none.
    #[track_caller]
    fn check(steps: &[i32], holders: &[u32]) {
        let (mut claims, mut holder) = (Claims::default(), 0);
        for (step, expected) in steps.iter().zip(holders) {
            let (mut diff, service) = (Diff::default(), step.unsigned_abs());
            if *step > 0 {
                let other = claims.claim(KEY, row(service), &mut diff);
                assert_eq!(other.is_some(), *expected != service);
            } else {
                claims.release(KEY, service, &mut diff);
            }
            assert!(diff.frontends.len() <= 1);
            if let Some((_, row)) = diff.frontends.first() {
                holder = row.map_or(0, |row| row.service);
            }
            assert_eq!(holder, *expected, "after {step}");
        }
        assert_eq!(claims.is_empty(), holder == 0);
    }

    #[test]
    fn the_first_to_ask_has_it_and_the_line_moves_up() {
        check(&[1, 2, 3, -1, -2, -3], &[1, 1, 1, 2, 3, 0]);
        check(&[1, 2, 3, -2, -1, -3], &[1, 1, 1, 1, 3, 0]);
        check(&[1, 2, 1, 2, -1, 1, -2, -1], &[1, 1, 1, 1, 2, 2, 1, 0]);
        check(&[-5, 1, -5, -1], &[0, 1, 1, 0]);
    }
}
