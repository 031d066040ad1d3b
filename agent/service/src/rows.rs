//! The rows of all service ports: numbers, frontends, and the step of one owner's ports from what they are to what they should be.
//! An owner is a Service, or a pod with host ports.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::claims::Claims;
use crate::ids::Ids;
use crate::learned::{Inheritance, Learned, LearnedService};
use crate::places::Places;
use crate::published::{Desired, Published};
use crate::source_ranges::Range;
use crate::{Diff, Family, FrontendKey, ObjectKey, Problem, desired};

/// A frontend that somebody wants and another service has.
#[derive(Debug)]
pub struct Conflict {
    /// Who wants it.
    pub object: ObjectKey,
    /// What both want.
    pub frontend: FrontendKey,
    /// Id of the service that has it.
    pub holder: u32,
}

/// The rows that service ports share.
#[derive(Debug)]
pub struct Rows {
    claims: Claims,
    service_ids: Ids,
    backend_ids: [Ids; 2],
    inheritance: Inheritance,
    /// Since the caller looked last.
    pub conflicts: Vec<Conflict>,
}

impl Rows {
    /// No rows.
    pub fn new() -> Self {
        let backend_ids = || Ids::new(abi::limits::BACKENDS, abi::limits::QUARANTINE_MS);
        Self {
            claims: Claims::default(),
            service_ids: Ids::new(abi::limits::SERVICES, abi::limits::QUARANTINE_MS),
            backend_ids: [backend_ids(), backend_ids()],
            inheritance: Inheritance::default(),
            conflicts: Vec::new(),
        }
    }

    /// Takes over the numbers of an earlier process.
    pub fn adopt(&mut self, learned: Learned) {
        self.inheritance = Inheritance::new(learned, &mut self.service_ids, &mut self.backend_ids);
    }

    /// Removes what an earlier process left and nobody has taken over.
    pub fn drop_inheritance(&mut self, now_ms: u64, diff: &mut Diff) {
        let claims = &self.claims;
        std::mem::take(&mut self.inheritance).drop_all(
            |key| claims.is_held(key),
            &mut self.service_ids,
            &mut self.backend_ids,
            now_ms,
            diff,
        );
    }

    /// Makes the ports of one owner what they should be. What is given up is given up before anything is claimed, so that ports can
    /// exchange their frontends.
    pub fn settle(
        &mut self,
        owner: &ObjectKey,
        ports: &mut Vec<Published>,
        desired: Vec<Desired>,
        places: &Places,
        now_ms: u64,
        diff: &mut Diff,
    ) {
        let matched = pair(std::mem::take(ports), &desired, |left| self.retire(left, now_ms, diff));
        for (published, desired) in matched.iter().zip(&desired) {
            let Some(published) = published else { continue };
            for (key, _) in &published.frontends {
                if desired.frontends.binary_search_by_key(key, |(key, _)| *key).is_err() {
                    self.claims.release(*key, published.id, diff);
                }
            }
        }
        ports.reserve_exact(desired.len());
        for (published, desired) in matched.into_iter().zip(desired) {
            ports.extend(self.publish(owner, published, desired, places, now_ms, diff));
        }
    }

    /// Publishes one port; `None` if there is no room for it.
    fn publish(
        &mut self,
        owner: &ObjectKey,
        published: Option<Published>,
        mut desired: Desired,
        places: &Places,
        now_ms: u64,
        diff: &mut Diff,
    ) -> Option<Published> {
        let problem = |field: &str, message: String| Problem {
            object: owner.clone(),
            field: field.to_owned(),
            message,
        };
        let mut inherited = HashMap::new();
        let mut published = match published {
            Some(published) => published,
            None => {
                let learned = self.inheritance.take(&desired.frontends).or_else(|| {
                    let id = self.service_ids.take(now_ms)?;
                    Some(LearnedService { id, ..LearnedService::default() })
                });
                let Some(learned) = learned else {
                    diff.problems.push(problem("spec.ports", "the service table is full".to_owned()));
                    return None;
                };
                inherited = self.indexes(learned.backends, now_ms, diff);
                Published::new(learned.id, desired.identity.clone(), desired.number, learned.maglev)
            }
        };
        let remember = desired.keeps_last && desired.is_empty() && !inherited.is_empty();
        if remember {
            desired.members = desired::remembered(inherited.keys().copied(), places);
        }
        let ids = &mut self.backend_ids[desired.identity.family as usize];
        let shortfall = published.step(&desired, ids, &mut inherited, now_ms, diff);
        for ((address, _), index) in inherited {
            self.bury(address.into(), index, now_ms, diff);
        }
        if shortfall.kept_last || remember {
            let message = "none left; the last known ones are kept for the API server's own service";
            diff.problems.push(problem("endpoints", message.to_owned()));
        }
        if shortfall.left_out > 0 {
            let message = format!("the backend table is full: {} left out", shortfall.left_out);
            diff.problems.push(problem("endpoints", message));
        }
        self.exchange_ranges(&mut published, &desired.ranges, diff);
        self.claim(owner, &mut published, &desired, diff);
        (published.identity, published.number) = (desired.identity, desired.number);
        Some(published)
    }

    fn claim(&mut self, owner: &ObjectKey, published: &mut Published, desired: &Desired, diff: &mut Diff) {
        let mut frontends = desired.frontends.clone();
        for (key, row) in &mut frontends {
            row.service = published.id;
            let current = published.frontends.binary_search_by_key(key, |(key, _)| *key);
            if current.is_ok_and(|index| published.frontends[index].1 == *row) {
                continue;
            }
            if let Some(holder) = self.claims.claim(*key, *row, diff) {
                self.conflicts.push(Conflict { object: owner.clone(), frontend: *key, holder });
            }
        }
        published.frontends = frontends.into();
    }

    fn exchange_ranges(&mut self, published: &mut Published, ranges: &[Range], diff: &mut Diff) {
        for range in ranges.iter().filter(|range| published.ranges.binary_search(range).is_err()) {
            self.inheritance.keep_range(published.id, *range);
            diff.source_ranges.push((published.id, range.0, range.1, true));
        }
        for range in published.ranges.iter().filter(|range| ranges.binary_search(range).is_err()) {
            diff.source_ranges.push((published.id, range.0, range.1, false));
        }
        published.ranges = ranges.into();
    }

    fn retire(&mut self, published: Published, now_ms: u64, diff: &mut Diff) {
        let (id, family) = (published.id, published.identity.family);
        for (key, _) in &published.frontends {
            self.claims.release(*key, id, diff);
        }
        diff.source_ranges.extend(published.ranges.iter().map(|(base, prefix)| (id, *base, *prefix, false)));
        self.service_ids.give_back(id, now_ms);
        published.retire(&mut self.backend_ids[family as usize], now_ms, diff);
    }

    /// The indexes that an earlier process gave to endpoints; an endpoint's second index, if it has one, goes.
    fn indexes(
        &mut self,
        backends: Vec<(Family, u32, IpAddr, u16)>,
        now_ms: u64,
        diff: &mut Diff,
    ) -> HashMap<(IpAddr, u16), u32> {
        let mut indexes = HashMap::with_capacity(backends.len());
        for (family, index, address, port) in backends {
            if let Some(other) = indexes.insert((address, port), index) {
                self.bury(family, other, now_ms, diff);
            }
        }
        indexes
    }

    fn bury(&mut self, family: Family, index: u32, now_ms: u64, diff: &mut Diff) {
        diff.backends.push((family, index, None));
        self.backend_ids[family as usize].give_back(index, now_ms);
    }

    /// Whether no frontend is asked for.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}

/// Finds for each desired port the published one that it continues: the one of its name, or else the one of its number. The rest is left.
fn pair(
    ports: Vec<Published>,
    desired: &[Desired],
    mut left: impl FnMut(Published),
) -> Vec<Option<Published>> {
    let mut ports: Vec<Option<Published>> = ports.into_iter().map(Some).collect();
    let mut matched: Vec<Option<Published>> = desired.iter().map(|_| None).collect();
    let rules: [fn(&Published, &Desired) -> bool; 2] = [
        |published, desired| published.identity == desired.identity,
        |published, desired| {
            (published.number, published.identity.protocol, published.identity.family)
                == (desired.number, desired.identity.protocol, desired.identity.family)
        },
    ];
    for rule in rules {
        for (place, desired) in matched.iter_mut().zip(desired).filter(|(place, _)| place.is_none()) {
            let found = ports.iter_mut().find(|port| port.as_ref().is_some_and(|port| rule(port, desired)));
            *place = found.and_then(Option::take);
        }
    }
    ports.into_iter().flatten().for_each(&mut left);
    matched
}
