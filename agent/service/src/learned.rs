//! What an earlier process left in the tables: numbers that are kept for those who still stand for the same, rows that go if nobody does.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::ids::Ids;
use crate::source_ranges::Range;
use crate::{Diff, Family, Frontend, FrontendKey};

/// The tables as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Frontends with their service ids.
    pub frontends: Vec<(FrontendKey, u32)>,
    /// Services.
    pub services: Vec<LearnedService>,
    /// Service addresses ([`Diff::vips`]).
    pub vips: Vec<IpAddr>,
    /// Allowed clients: service id, base address, prefix length.
    pub source_ranges: Vec<(u32, IpAddr, u8)>,
}

/// A service row as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LearnedService {
    /// Id.
    pub id: u32,
    /// Its backends: family, index, address, port.
    pub backends: Vec<(Family, u32, IpAddr, u16)>,
    /// Cells of its two Maglev tables (cluster, local), 0 without.
    pub maglev: [u16; 2],
}

/// What is left of it to be taken over.
#[derive(Debug, Default)]
pub struct Inheritance {
    frontends: HashMap<FrontendKey, u32>,
    services: HashMap<u32, LearnedService>,
    ranges: HashSet<(u32, IpAddr, u8)>,
}

impl Inheritance {
    /// Marks the numbers as used. Service addresses are not kept here.
    pub fn new(learned: Learned, service_ids: &mut Ids, backend_ids: &mut [Ids; 2]) -> Self {
        for service in &learned.services {
            service_ids.reserve(service.id);
            for (family, index, _, _) in &service.backends {
                backend_ids[*family as usize].reserve(*index);
            }
        }
        Self {
            frontends: learned.frontends.into_iter().collect(),
            services: learned.services.into_iter().map(|service| (service.id, service)).collect(),
            ranges: learned.source_ranges.into_iter().collect(),
        }
    }

    /// The service that had one of these frontends. A service is taken over by one port: whoever comes first.
    pub fn take(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Option<LearnedService> {
        if self.services.is_empty() {
            return None;
        }
        let services = &mut self.services;
        frontends.iter().find_map(|(key, _)| services.remove(self.frontends.get(key)?))
    }

    /// A range that is wanted.
    pub fn keep_range(&mut self, service: u32, (base, prefix): Range) {
        self.ranges.remove(&(service, base, prefix));
    }

    /// Removes all rows that are left.
    pub fn drop_all(
        self,
        is_held: impl Fn(&FrontendKey) -> bool,
        service_ids: &mut Ids,
        backend_ids: &mut [Ids; 2],
        now_ms: u64,
        diff: &mut Diff,
    ) {
        let frontends = self.frontends.into_keys().filter(|key| !is_held(key));
        diff.frontends.extend(frontends.map(|key| (key, None)));
        for (id, service) in self.services {
            diff.services.push((id, None));
            service_ids.give_back(id, now_ms);
            for (family, index, _, _) in service.backends {
                diff.backends.push((family, index, None));
                backend_ids[family as usize].give_back(index, now_ms);
            }
        }
        diff.source_ranges
            .extend(self.ranges.into_iter().map(|(id, base, prefix)| (id, base, prefix, false)));
    }
}
