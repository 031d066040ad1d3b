//! Services, backends and frontends in the maps: a difference in, stores out, in the order of the publication rule.
//!
//! Order of one difference: backends, then slots and run words, then frontends; removals the other way round. A reader therefore never
//! meets a frontend without a service or a slot without a backend.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use abi::backend::{
    GENERATIONS_PER_LINE, GenerationLine, STATE_FREE, STATE_GONE, STATE_READY, STATE_TERMINATING,
};
use abi::config::{Config, switches};
use abi::frontend::{FrontendKey4, FrontendKey6};
use abi::service::{Run, SLOTS_PER_LINE, Service, SlotLine};
use abi::{Ip4, Ip6};
use aya::maps::MapError;
use service::{
    Backend, Diff, Family, Frontend, FrontendAddress, FrontendKey, Learned, LearnedService, Protocol,
    ServiceRow,
};
use zerocopy::IntoBytes;

use crate::encode::{self, Key};
use crate::lines::Lines;
use crate::maps::Maps;
use crate::status::{BackendStatus, FrontendStatus};
use crate::sys::{self, MappedArray, Wire};

/// Word of [`Service::run_cluster`] in a service row.
const WORD_CLUSTER: usize = 0;
/// Word of [`Service::run_local`].
const WORD_LOCAL: usize = 1;
/// Word of flags and affinity timeout: they change together.
const WORD_FLAGS: usize = 3;
/// Word of statistics row and configuration generation.
const WORD_STATS: usize = 4;

/// Why a difference could not be written. What was written before stays valid.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Frontends could not be inserted.
    #[error("inserting frontends: {0}")]
    Insert(io::Error),
    /// A frontend could not be deleted.
    #[error("frontend {key}: {source}")]
    Frontend {
        /// Which one.
        key: FrontendKey,
        /// aya's error.
        source: MapError,
    },
    /// No stretch of lines is free.
    #[error("service {id}: no room for {slots} slots")]
    NoLines {
        /// Service id.
        id: u32,
        /// Slots needed.
        slots: usize,
    },
    /// An index is beyond the table.
    #[error("{table} index {index} is beyond the table")]
    Index {
        /// Which table.
        table: &'static str,
        /// The index.
        index: u32,
    },
}

/// Lines of a run: first and number.
type Stretch = (u32, u32);

/// What the tables hold, as far as it is needed to change them.
#[derive(Debug)]
pub struct Services {
    lines: Lines,
    runs: HashMap<u32, [Stretch; 2]>,
    frontends: HashMap<FrontendKey, Frontend>,
    /// How many frontends outside the service range have a port.
    ports: HashMap<(Protocol, u16), usize>,
    /// Frontends with an address of their own outside the service range.
    outside: HashSet<FrontendKey>,
    host_backends: HashSet<(Family, u32)>,
    generation: u16,
}

impl Services {
    /// Reads what is in the tables: the bookkeeping for this process and the numbers for `service::Tables`.
    pub fn learn(maps: &Maps, config: &Config) -> (Self, Learned) {
        let mut services = Self {
            lines: Lines::new(maps.slots.len(), abi::limits::QUARANTINE_MS),
            runs: HashMap::new(),
            frontends: HashMap::new(),
            ports: HashMap::new(),
            outside: HashSet::new(),
            host_backends: HashSet::new(),
            generation: 0,
        };
        let v4 =
            maps.fe4.iter().flatten().filter_map(|(key, row)| Some((encode::key_from_v4(&key.0)?, row.0)));
        let v6 =
            maps.fe6.iter().flatten().filter_map(|(key, row)| Some((encode::key_from_v6(&key.0)?, row.0)));
        let mut learned = Learned::default();
        let mut families: HashMap<u32, Family> = HashMap::new();
        for (key, row) in v4.chain(v6) {
            families.insert(row.service, key.address.family());
            learned.frontends.push((key, row.service));
            services.count(key, config, true);
            services.frontends.insert(key, encode::frontend_from(row));
        }
        for id in 1..maps.svc.len() {
            let Some(row) = maps.svc.get(id).filter(|row| *row != Service::default()) else { continue };
            let stretches = [stretch(row.run_cluster), stretch(row.run_local)];
            for (first, count) in stretches {
                services.lines.reserve(first, count);
            }
            services.runs.insert(id, stretches);
            let backends = families.get(&id).map(|family| members(maps, *family, &row)).unwrap_or_default();
            let maglev = [row.maglev_cluster.count(), row.maglev_local.count()];
            learned.services.push(LearnedService { id, backends, maglev });
        }
        services.bury_orphans(maps, &learned);
        (services, learned)
    }

    /// Marks backends gone that no run names: an earlier process ended between two stores.
    fn bury_orphans(&self, maps: &Maps, learned: &Learned) {
        let named: HashSet<(Family, u32)> = learned
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .map(|(family, index, _, _)| (*family, *index))
            .collect();
        let alive = |state: u8| state == STATE_READY || state == STATE_TERMINATING;
        for index in 1..maps.be4.len() {
            if !named.contains(&(Family::V4, index))
                && maps.be4.get(index).is_some_and(|row| alive(row.state))
            {
                bury(maps, Family::V4, index);
            }
        }
        for index in 1..maps.be6.len() {
            if !named.contains(&(Family::V6, index))
                && maps.be6.get(index).is_some_and(|row| alive(row.state))
            {
                bury(maps, Family::V6, index);
            }
        }
    }

    /// Writes a difference.
    pub fn apply(
        &mut self,
        maps: &mut Maps,
        config: &Config,
        diff: &Diff,
        now_ms: u64,
    ) -> Result<(), ServicesError> {
        for (family, index, row) in &diff.backends {
            if let Some(row) = row {
                write_backend(maps, *index, row)?;
                self.note_backend(*family, *index, Some(row));
            }
        }
        for (id, row) in &diff.services {
            if let Some(row) = row {
                self.publish(maps, *id, row, now_ms)?;
            }
        }
        let (written, removed): (Vec<_>, Vec<_>) = diff.frontends.iter().partition(|(_, row)| row.is_some());
        self.insert(maps, config, written.into_iter().filter_map(|(key, row)| Some((key, row?))))?;
        for (key, _) in removed {
            self.remove(maps, config, key)?;
        }
        for (id, row) in &diff.services {
            if row.is_none() {
                self.clear(maps, *id, now_ms);
            }
        }
        for (family, index, row) in &diff.backends {
            if row.is_none() {
                bury(maps, *family, *index);
                self.note_backend(*family, *index, None);
            }
        }
        self.write_switches(maps);
        Ok(())
    }

    /// Number of frontends.
    pub fn frontends(&self) -> usize {
        self.frontends.len()
    }

    fn publish(&mut self, maps: &Maps, id: u32, row: &ServiceRow, now_ms: u64) -> Result<(), ServicesError> {
        let current = maps.svc.get(id).ok_or(ServicesError::Index { table: "service", index: id })?;
        self.generation = self.generation.wrapping_add(1);
        let cluster = self.write_run(maps, id, &row.cluster, now_ms)?;
        let local = self.write_run(maps, id, &row.local, now_ms)?;
        let flags = u64::from(row.flags) | u64::from(row.affinity_s) << 32;
        let stats = u64::from(id) | u64::from(current.config_generation.wrapping_add(1)) << 32;
        maps.svc.publish(id, WORD_STATS, stats);
        maps.svc.publish(id, WORD_CLUSTER, cluster.0);
        // A Local flag must not be seen before the run that it asks for, nor that run vanish before the flag.
        if row.local.is_empty() {
            maps.svc.publish(id, WORD_FLAGS, flags);
            maps.svc.publish(id, WORD_LOCAL, local.0);
        } else {
            maps.svc.publish(id, WORD_LOCAL, local.0);
            maps.svc.publish(id, WORD_FLAGS, flags);
        }
        let old = self.runs.insert(id, [stretch(cluster), stretch(local)]).unwrap_or_default();
        for (first, count) in old {
            self.lines.give_back(first, count, now_ms);
        }
        Ok(())
    }

    fn write_run(
        &mut self,
        maps: &Maps,
        id: u32,
        backends: &[u32],
        now_ms: u64,
    ) -> Result<Run, ServicesError> {
        if backends.is_empty() {
            return Ok(Run::EMPTY);
        }
        let lines = backends.chunks(SLOTS_PER_LINE as usize);
        let first = self
            .lines
            .take(lines.len() as u32, now_ms)
            .ok_or(ServicesError::NoLines { id, slots: backends.len() })?;
        for (line, members) in (first..).zip(lines) {
            let mut slots = SlotLine::default();
            slots.backends[..members.len()].copy_from_slice(members);
            maps.slots.set(line, &slots);
        }
        Ok(Run::new(first, backends.len() as u16, self.generation))
    }

    fn clear(&mut self, maps: &Maps, id: u32, now_ms: u64) {
        for word in [WORD_CLUSTER, WORD_LOCAL, WORD_FLAGS, WORD_STATS] {
            maps.svc.publish(id, word, 0);
        }
        for (first, count) in self.runs.remove(&id).unwrap_or_default() {
            self.lines.give_back(first, count, now_ms);
        }
    }

    /// Inserts frontends, one batch a family. Switches and port bits come before the frontends that need them.
    fn insert(
        &mut self,
        maps: &Maps,
        config: &Config,
        rows: impl Iterator<Item = (FrontendKey, Frontend)>,
    ) -> Result<(), ServicesError> {
        let mut batches = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        for (key, row) in rows {
            if self.frontends.insert(key, row).is_none() {
                self.count(key, config, true);
                self.write_port(maps, key);
            }
            let (keys, values) = &mut batches[key.address.family() as usize];
            match encode::key(&key) {
                Key::V4(key) => keys.extend_from_slice(key.as_bytes()),
                Key::V6(key) => keys.extend_from_slice(key.as_bytes()),
            }
            values.extend_from_slice(encode::frontend(row).as_bytes());
        }
        self.write_switches(maps);
        let sizes = [size_of::<FrontendKey4>(), size_of::<FrontendKey6>()];
        for (((keys, values), map), key_size) in batches.iter().zip(&maps.fe_batch).zip(sizes) {
            let written =
                sys::update_batch(map.as_fd(), key_size, keys, size_of::<abi::frontend::Frontend>(), values);
            written.map_err(ServicesError::Insert)?;
        }
        Ok(())
    }

    fn remove(&mut self, maps: &mut Maps, config: &Config, key: FrontendKey) -> Result<(), ServicesError> {
        let removed = match encode::key(&key) {
            Key::V4(key) => maps.fe4.remove(&Wire(key)),
            Key::V6(key) => maps.fe6.remove(&Wire(key)),
        };
        match removed {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(ServicesError::Frontend { key, source }),
        }
        if self.frontends.remove(&key).is_some() {
            self.count(key, config, false);
            self.write_port(maps, key);
        }
        Ok(())
    }

    /// Counts a frontend in or out, if its packets cannot be recognised by the service range.
    fn count(&mut self, key: FrontendKey, config: &Config, add: bool) {
        let in_range = match key.address {
            FrontendAddress::Exact(IpAddr::V4(address)) => config.services4.contains(Ip4::from(address)),
            FrontendAddress::Exact(IpAddr::V6(address)) => config.services6.contains(Ip6::from(address)),
            FrontendAddress::NodePort(_) => false,
        };
        if in_range {
            return;
        }
        let users = self.ports.entry((key.protocol, key.port)).or_default();
        *users = if add { *users + 1 } else { users.saturating_sub(1) };
        if matches!(key.address, FrontendAddress::Exact(_)) {
            if add {
                self.outside.insert(key);
            } else {
                self.outside.remove(&key);
            }
        }
    }

    /// Sets the port's bit to whether a frontend outside the service range has it.
    fn write_port(&self, maps: &Maps, key: FrontendKey) {
        let row = key.protocol.number().port_row();
        let Some(bitmap) = maps.ports.get(row) else { return };
        let (word, bit) = (usize::from(key.port) / 64, u64::from(key.port) % 64);
        let used = self.ports.get(&(key.protocol, key.port)).is_some_and(|users| *users > 0);
        let value = if used { bitmap[word] | 1 << bit } else { bitmap[word] & !(1 << bit) };
        if value != bitmap[word] {
            maps.ports.publish(row, word, value);
        }
    }

    fn write_switches(&self, maps: &Maps) {
        let mut control = maps.control();
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let value = bit(!self.outside.is_empty(), switches::EXTERNAL_FRONTENDS)
            | bit(!self.host_backends.is_empty(), switches::HOST_BACKENDS);
        if control.switches != value {
            control.switches = value;
            maps.cfg.set(0, &control);
        }
    }

    fn note_backend(&mut self, family: Family, index: u32, row: Option<&Backend>) {
        if row.is_some_and(|row| row.host && row.local) {
            self.host_backends.insert((family, index));
        } else {
            self.host_backends.remove(&(family, index));
        }
    }
}

fn stretch(run: Run) -> Stretch {
    (run.base(), u32::from(run.count()).div_ceil(SLOTS_PER_LINE))
}

/// Backend indexes of a run, in slot order.
fn slots(maps: &Maps, run: Run) -> Vec<u32> {
    let slot = |slot: u32| {
        Some(maps.slots.get(run.base() + slot / SLOTS_PER_LINE)?.backends[(slot % SLOTS_PER_LINE) as usize])
    };
    (0..u32::from(run.count())).filter_map(slot).collect()
}

fn endpoint(maps: &Maps, family: Family, index: u32) -> Option<(IpAddr, u16)> {
    match family {
        Family::V4 => {
            maps.be4.get(index).map(|row| (std::net::Ipv4Addr::from(row.addr).into(), row.port.host()))
        }
        Family::V6 => {
            maps.be6.get(index).map(|row| (std::net::Ipv6Addr::from(row.addr).into(), row.port.host()))
        }
    }
}

/// The backends that a service names, each once.
fn members(maps: &Maps, family: Family, row: &Service) -> Vec<(Family, u32, IpAddr, u16)> {
    let indexes: HashSet<u32> =
        [row.run_cluster, row.run_local].into_iter().flat_map(|run| slots(maps, run)).collect();
    let read = |index| endpoint(maps, family, index).map(|(address, port)| (family, index, address, port));
    indexes.into_iter().filter_map(read).collect()
}

/// The service tables as the programs read them.
pub fn dump(maps: &Maps) -> Vec<FrontendStatus> {
    let v4 = maps.fe4.iter().flatten().filter_map(|(key, row)| Some((encode::key_from_v4(&key.0)?, row.0)));
    let v6 = maps.fe6.iter().flatten().filter_map(|(key, row)| Some((encode::key_from_v6(&key.0)?, row.0)));
    let mut rows: Vec<_> = v4.chain(v6).collect();
    rows.sort_by_key(|(key, _)| *key);
    let one = |(key, row): (FrontendKey, abi::frontend::Frontend)| {
        let family = key.address.family();
        let service = maps.svc.get(row.service).unwrap_or_default();
        let backends = |run| {
            let found = slots(maps, run).into_iter().filter_map(|index| endpoint(maps, family, index));
            found.map(|(address, port)| BackendStatus { address, port }).collect()
        };
        FrontendStatus {
            address: match key.address {
                FrontendAddress::Exact(address) => address.to_string(),
                FrontendAddress::NodePort(_) => "nodePort".to_owned(),
            },
            port: key.port,
            protocol: key.protocol.to_string(),
            family: if family == Family::V4 { 4 } else { 6 },
            service: row.service,
            backends: backends(service.run_cluster),
            local: backends(service.run_local),
        }
    };
    rows.into_iter().map(one).collect()
}

fn write_backend(maps: &Maps, index: u32, row: &Backend) -> Result<(), ServicesError> {
    let missing = ServicesError::Index { table: "backend", index };
    match row.address {
        IpAddr::V4(address) => {
            let current = maps.be4.get(index).ok_or(missing)?;
            let same = current.addr == address.into() && current.port.host() == row.port;
            let generation = next_generation(current.state, same, current.generation);
            write_generation(&maps.begen4, index, generation);
            maps.be4.set(index, &encode::backend4(row, address, generation));
        }
        IpAddr::V6(address) => {
            let current = maps.be6.get(index).ok_or(missing)?;
            let same = current.addr == address.into() && current.port.host() == row.port;
            let generation = next_generation(current.state, same, current.generation);
            write_generation(&maps.begen6, index, generation);
            maps.be6.set(index, &encode::backend6(row, address, generation));
        }
    }
    Ok(())
}

/// The generation stays while the index stands for the same living endpoint.
fn next_generation(state: u8, same: bool, current: u16) -> u16 {
    let living = state != STATE_FREE && state != STATE_GONE;
    if living && same { current } else { current.wrapping_add(1) }
}

/// Takes a backend out: established TCP flows go on, connectionless ones see the generation and choose anew.
fn bury(maps: &Maps, family: Family, index: u32) {
    match family {
        Family::V4 => {
            let Some(mut row) = maps.be4.get(index) else { return };
            (row.state, row.generation) = (STATE_GONE, row.generation.wrapping_add(1));
            maps.be4.set(index, &row);
            write_generation(&maps.begen4, index, row.generation);
        }
        Family::V6 => {
            let Some(mut row) = maps.be6.get(index) else { return };
            (row.state, row.generation) = (STATE_GONE, row.generation.wrapping_add(1));
            maps.be6.set(index, &row);
            write_generation(&maps.begen6, index, row.generation);
        }
    }
}

fn write_generation(lines: &MappedArray<GenerationLine>, index: u32, generation: u16) {
    let Some(mut line) = lines.get(index / GENERATIONS_PER_LINE) else { return };
    line.generations[(index % GENERATIONS_PER_LINE) as usize] = generation;
    lines.set(index / GENERATIONS_PER_LINE, &line);
}
