//! One service port in one family, as published: its id, its rows, and the step from one state to the next.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ids::Ids;
use crate::{Backend, Diff, Family, FrontendKey, ObjectKey, Protocol, ServiceRow};

/// Identity of a service port: what keeps its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The Service.
    pub service: ObjectKey,
    /// Name of the port.
    pub port: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Family of clients and endpoints.
    pub family: Family,
}

/// What a service port should look like.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Frontends, and whether each is external.
    pub frontends: BTreeMap<FrontendKey, bool>,
    /// `abi::service::flags`.
    pub flags: u32,
    /// ClientIP affinity timeout.
    pub affinity_s: u32,
    /// Backends by address and port; a member of either set.
    pub backends: BTreeMap<(IpAddr, u16), Backend>,
    /// Members of the cluster set.
    pub cluster: Vec<(IpAddr, u16)>,
    /// Members of the local set.
    pub local: Vec<(IpAddr, u16)>,
}

/// What a service port looks like in the tables.
#[derive(Debug, Clone)]
pub struct Published {
    /// Service id.
    pub id: u32,
    /// Frontends, and whether each is external. Some may be held by another service that claimed them first.
    pub frontends: BTreeMap<FrontendKey, bool>,
    /// The service row; `None` until it is written for the first time by this process.
    pub row: Option<ServiceRow>,
    /// Backend rows with their indexes.
    pub backends: BTreeMap<(IpAddr, u16), (u32, Backend)>,
}

impl Published {
    /// A service port with nothing behind it.
    pub fn new(id: u32) -> Self {
        Self { id, frontends: BTreeMap::new(), row: None, backends: BTreeMap::new() }
    }

    /// Makes service and backend rows equal to `desired` and adds the difference to `diff`. Frontends are the caller's, since
    /// services compete for them. `inherited` gives the index that an earlier process gave to an endpoint of this service.
    /// Returns how many endpoints had to be left out because the table is full.
    pub fn step(
        &mut self,
        desired: &Desired,
        ids: &mut Ids,
        mut inherited: impl FnMut(IpAddr, u16) -> Option<u32>,
        now_ms: u64,
        diff: &mut Diff,
    ) -> usize {
        let mut left_out = 0;
        for (endpoint, backend) in &desired.backends {
            let index = match self.backends.get(endpoint) {
                Some((_, current)) if current == backend => continue,
                Some((index, _)) => *index,
                None => match inherited(endpoint.0, endpoint.1).or_else(|| ids.take(now_ms)) {
                    Some(index) => index,
                    None => {
                        left_out += 1;
                        continue;
                    }
                },
            };
            self.backends.insert(*endpoint, (index, *backend));
            diff.backends.push((Family::from(endpoint.0), index, Some(*backend)));
        }
        let row = ServiceRow {
            flags: desired.flags,
            affinity_s: desired.affinity_s,
            cluster: self.indexes(&desired.cluster),
            local: self.indexes(&desired.local),
            ..ServiceRow::default()
        };
        if self.row.as_ref() != Some(&row) {
            self.row = Some(row.clone());
            diff.services.push((self.id, Some(row)));
        }
        let gone: Vec<_> = self
            .backends
            .keys()
            .filter(|endpoint| !desired.backends.contains_key(endpoint))
            .copied()
            .collect();
        for endpoint in gone {
            self.remove_backend(endpoint, ids, now_ms, diff);
        }
        left_out
    }

    /// Removes the rows of a service port that is no more.
    pub fn retire(mut self, ids: &mut Ids, now_ms: u64, diff: &mut Diff) {
        diff.services.push((self.id, None));
        let all: Vec<_> = self.backends.keys().copied().collect();
        for endpoint in all {
            self.remove_backend(endpoint, ids, now_ms, diff);
        }
    }

    fn remove_backend(&mut self, endpoint: (IpAddr, u16), ids: &mut Ids, now_ms: u64, diff: &mut Diff) {
        if let Some((index, _)) = self.backends.remove(&endpoint) {
            diff.backends.push((Family::from(endpoint.0), index, None));
            ids.give_back(index, now_ms);
        }
    }

    fn indexes(&self, members: &[(IpAddr, u16)]) -> Vec<u32> {
        // A run's count has 16 bits (abi::service::Run).
        members
            .iter()
            .filter_map(|endpoint| self.backends.get(endpoint))
            .map(|(index, _)| *index)
            .take(usize::from(u16::MAX))
            .collect()
    }
}
