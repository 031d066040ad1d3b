//! One service port in one family, as published: its id, its rows, and the step from one state to the next.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use abi::service::flags;

use crate::ids::Ids;
use crate::maglev;
use crate::source_ranges::Range;
use crate::{Backend, Diff, Family, Frontend, FrontendKey, Protocol, ServiceRow};

/// What keeps a service port's id: its Service and this. A port that is renamed hands its id to the one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the port.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Family of clients and endpoints.
    pub family: Family,
}

/// A backend that should be there, and the sets that it is in (at least one).
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its row.
    pub backend: Backend,
    /// In the cluster set.
    pub cluster: bool,
    /// In the local set.
    pub local: bool,
}

/// What a service port should look like.
#[derive(Debug)]
pub struct Desired {
    /// Which port it is.
    pub identity: Identity,
    /// Its number.
    pub number: u16,
    /// Frontends, sorted by key, without the service id.
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Bits of `abi::service::flags`.
    pub flags: u32,
    /// ClientIP affinity timeout.
    pub affinity_s: u32,
    /// Cells of Maglev tables that are asked for.
    pub maglev_size: Option<u16>,
    /// Allowed clients of frontends with source ranges, sorted.
    pub ranges: Vec<Range>,
    /// Backends by address and port, each once.
    pub members: Vec<Wanted>,
    /// Whether the last backends stay when there should be none, those of an earlier process too.
    pub keeps_last: bool,
}

impl Desired {
    /// Whether there is no endpoint at all.
    pub fn is_empty(&self) -> bool {
        !self.members.iter().any(|wanted| wanted.cluster)
    }
}

/// A backend in the tables.
#[derive(Debug, Clone, Copy)]
struct Member {
    index: u32,
    backend: Backend,
    cluster: bool,
    local: bool,
}

/// What a service port looks like in the tables.
#[derive(Debug)]
pub struct Published {
    /// Which port it is.
    pub identity: Identity,
    /// Its number.
    pub number: u16,
    /// Service id.
    pub id: u32,
    /// Frontends that it claims, sorted by key. Some may be held by another service that claimed them first.
    pub frontends: Box<[(FrontendKey, Frontend)]>,
    /// Allowed clients.
    pub ranges: Box<[Range]>,
    members: Box<[Member]>,
    flags: u32,
    affinity_s: u32,
    /// Cells of the Maglev tables over both sets, as last written.
    maglev: [u16; 2],
    maglev_size: Option<u16>,
    /// Whether this process has written the service row.
    written: bool,
}

/// What could not be done in a step.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Endpoints left out because the table is full.
    pub left_out: usize,
    /// The last backends were kept ([`Desired::keeps_last`]).
    pub kept_last: bool,
}

impl Published {
    /// A service port with nothing behind it. `maglev`: cells of the tables that an earlier process wrote.
    pub fn new(id: u32, identity: Identity, number: u16, maglev: [u16; 2]) -> Self {
        Self {
            identity,
            number,
            id,
            frontends: Box::default(),
            ranges: Box::default(),
            members: Box::default(),
            flags: 0,
            affinity_s: 0,
            maglev,
            maglev_size: None,
            written: false,
        }
    }

    /// Number of backends.
    pub fn backends(&self) -> usize {
        self.members.len()
    }

    /// Makes service and backend rows equal to `desired` and adds the difference to `diff`. Frontends and ranges are the caller's.
    /// `inherited` are the indexes that an earlier process gave to endpoints of this service; those used are taken out.
    pub fn step(
        &mut self,
        desired: &Desired,
        ids: &mut Ids,
        inherited: &mut HashMap<(IpAddr, u16), u32>,
        now_ms: u64,
        diff: &mut Diff,
    ) -> Shortfall {
        let mut shortfall = Shortfall::default();
        let had = self.members.iter().any(|member| member.cluster);
        let mut changed = !self.written
            || (self.flags, self.affinity_s, self.maglev_size)
                != (desired.flags, desired.affinity_s, desired.maglev_size);
        if desired.keeps_last && had && desired.is_empty() {
            shortfall.kept_last = true;
        } else {
            changed |= self.exchange(desired, ids, inherited, now_ms, diff, &mut shortfall);
        }
        if changed {
            (self.flags, self.affinity_s) = (desired.flags, desired.affinity_s);
            (self.maglev_size, self.written) = (desired.maglev_size, true);
            let row = self.row();
            diff.services.push((self.id, Some(row)));
        }
        shortfall
    }

    /// Replaces the members. Both lists are sorted, so one walk over both tells what came, changed and went. Returns whether the runs
    /// are others now.
    fn exchange(
        &mut self,
        desired: &Desired,
        ids: &mut Ids,
        inherited: &mut HashMap<(IpAddr, u16), u32>,
        now_ms: u64,
        diff: &mut Diff,
        shortfall: &mut Shortfall,
    ) -> bool {
        let before = std::mem::take(&mut self.members);
        let mut old = before.iter().peekable();
        let mut members = Vec::with_capacity(desired.members.len());
        let mut gone = Vec::new();
        let mut changed = false;
        for Wanted { backend, cluster, local } in desired.members.iter().copied() {
            while let Some(member) = old.next_if(|member| order(&member.backend, &backend).is_lt()) {
                gone.push(*member);
            }
            let known = old.next_if(|member| order(&member.backend, &backend).is_eq());
            let fresh = || inherited.remove(&(backend.address, backend.port)).or_else(|| ids.take(now_ms));
            let Some(index) = known.map(|member| member.index).or_else(fresh) else {
                shortfall.left_out += 1;
                continue;
            };
            if known.is_none_or(|known| known.backend != backend) {
                diff.backends.push((self.identity.family, index, Some(backend)));
            }
            changed |= known.is_none_or(|known| {
                (known.cluster, known.local, known.backend.weight) != (cluster, local, backend.weight)
            });
            members.push(Member { index, backend, cluster, local });
        }
        gone.extend(old);
        changed |= !gone.is_empty();
        for member in gone {
            self.bury(&member, ids, now_ms, diff);
        }
        self.members = members.into();
        changed
    }

    /// Removes the rows of a service port that is no more.
    pub fn retire(self, ids: &mut Ids, now_ms: u64, diff: &mut Diff) {
        diff.services.push((self.id, None));
        for member in &self.members {
            self.bury(member, ids, now_ms, diff);
        }
    }

    fn bury(&self, member: &Member, ids: &mut Ids, now_ms: u64, diff: &mut Diff) {
        diff.backends.push((self.identity.family, member.index, None));
        if self.identity.protocol == Protocol::Udp {
            let remote = SocketAddr::new(member.backend.address, member.backend.port);
            diff.gone_udp.push((self.identity.family, member.index, remote));
        }
        ids.give_back(member.index, now_ms);
    }

    fn row(&mut self) -> ServiceRow {
        let mut row = ServiceRow {
            flags: self.flags,
            affinity_s: self.affinity_s,
            cluster: run(&self.members, |member| member.cluster),
            local: run(&self.members, |member| member.local),
            ..ServiceRow::default()
        };
        if self.flags & flags::MAGLEV == 0 {
            self.maglev = [0; 2];
        } else {
            row.maglev_cluster = self.table(0, |member| member.cluster);
            row.maglev_local = self.table(1, |member| member.local);
        }
        row
    }

    fn table(&mut self, which: usize, set: fn(&Member) -> bool) -> Vec<u16> {
        let member = |member: &Member| {
            let Backend { address, port, weight, .. } = member.backend;
            maglev::Member { address, port, weight }
        };
        // Cells and the count of a run have 16 bits (abi::service).
        let members: Vec<maglev::Member> = self
            .members
            .iter()
            .filter(|member| set(member))
            .map(member)
            .take(usize::from(u16::MAX))
            .collect();
        self.maglev[which] = maglev::size(members.len(), self.maglev[which], self.maglev_size);
        maglev::table(&members, self.maglev[which])
    }
}

/// The slots of a set. Weights are repeated slots, in turns: first every member once, in order, so that a member's place in the set is
/// its position in the run; then again those that have turns left.
fn run(members: &[Member], set: fn(&Member) -> bool) -> Vec<u32> {
    let members = || members.iter().filter(|member| set(member));
    let unit = members().fold(0, |unit, member| common_divisor(unit, member.backend.weight)).max(1);
    let turns = members().map(|member| member.backend.weight / unit).max().unwrap_or(0);
    let mut run = Vec::with_capacity(members().count());
    for turn in 0..turns {
        let left = members().filter(|member| member.backend.weight / unit > turn);
        run.extend(left.map(|member| member.index));
    }
    // A run's count has 16 bits (abi::service::Run).
    run.truncate(usize::from(u16::MAX));
    run
}

fn common_divisor(one: u8, other: u8) -> u8 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

fn order(one: &Backend, other: &Backend) -> Ordering {
    (one.address, one.port).cmp(&(other.address, other.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackendState;

    fn members(weights: &[u8]) -> Vec<Member> {
        let backend = |weight| Backend {
            address: [10, 0, 0, 1].into(),
            port: 80,
            state: BackendState::Ready,
            node: 0,
            local: false,
            host: false,
            weight,
        };
        let member =
            |(index, weight)| Member { index, backend: backend(weight), cluster: true, local: false };
        (1..).zip(weights.iter().copied()).map(member).collect()
    }

    #[test]
    fn weights_are_slots_in_turns_as_few_as_will_do() {
        for (weights, expected) in [
            (&[][..], &[][..]),
            (&[1, 1], &[1, 2]),
            (&[16, 16, 16], &[1, 2, 3]),
            (&[1, 3, 2], &[1, 2, 3, 2, 3, 2]),
            (&[2, 4], &[1, 2, 2]),
            (&[3], &[1]),
        ] {
            assert_eq!(run(&members(weights), |member| member.cluster), expected);
        }
        assert!(run(&members(&[2]), |member| member.local).is_empty());
    }

    #[test]
    fn a_member_is_small() {
        assert!(size_of::<Member>() <= 32, "{}", size_of::<Member>());
    }
}
