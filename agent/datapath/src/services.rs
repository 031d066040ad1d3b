//! Services, backends and frontends in the maps: a difference in, stores out, in the order of the publication rule.
//!
//! Order of one difference: backends, then slots, run words and Maglev words, then source ranges and frontends; removals the other way
//! round. A reader therefore never meets a frontend without a service or a slot without a backend.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use abi::config::{Config, switches};
use abi::service::{CELLS_PER_LINE, MaglevLine, Run, SLOTS_PER_LINE, Service, SlotLine, flags};
use service::{Backend, Diff, Family, FrontendKey, Learned, LearnedService, ServiceRow};

use crate::backends;
use crate::encode::{BackendBytes, FrontendBytes, FrontendRow, Wire};
use crate::frontends::Frontends;
use crate::lines::Lines;
use crate::maps::{FamilyMaps, Maps};
use crate::status::{BackendStatus, FrontendStatus};

/// Word of [`Service::run_cluster`] in a service row.
const WORD_CLUSTER: usize = 0;
/// Word of [`Service::run_local`].
const WORD_LOCAL: usize = 1;
/// Word of [`Service::maglev_cluster`].
const WORD_MAGLEV_CLUSTER: usize = 2;
/// Word of flags and affinity timeout: they change together.
const WORD_FLAGS: usize = 3;
/// Word of statistics row and configuration generation.
const WORD_STATS: usize = 4;
/// Word of [`Service::maglev_local`].
const WORD_MAGLEV_LOCAL: usize = 5;
/// Words that are ever written.
const WORDS: [usize; 6] =
    [WORD_MAGLEV_CLUSTER, WORD_MAGLEV_LOCAL, WORD_CLUSTER, WORD_LOCAL, WORD_FLAGS, WORD_STATS];

/// Why a difference could not be written. What was written before stays valid.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Frontends could not be read, inserted or deleted.
    #[error("frontends: {0}")]
    Frontends(#[from] io::Error),
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

/// Lines of a run or of a Maglev table: first and number.
type Stretch = (u32, u32);

/// Lines that a service uses: of slots and of cells, for the cluster's and the local set.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    slots: [Stretch; 2],
    cells: [Stretch; 2],
}

/// What the tables hold, as far as it is needed to change them.
#[derive(Debug)]
pub struct Services {
    lines: Lines,
    cells: Lines,
    used: HashMap<u32, Used>,
    frontends: Frontends,
    host_backends: HashSet<(Family, u32)>,
    /// Services with direct server return: other nodes hand packets over.
    direct: HashSet<u32>,
    generation: u16,
}

impl Services {
    /// Reads what is in the tables: the bookkeeping for this process and the numbers for `service::Tables`.
    pub fn learn(maps: &Maps, config: &Config) -> Result<(Self, Learned), ServicesError> {
        let mut learned = Learned::default();
        let mut services = Self {
            lines: Lines::new(maps.slots.len(), abi::limits::QUARANTINE_MS),
            cells: Lines::new(maps.maglev.len(), abi::limits::QUARANTINE_MS),
            used: HashMap::new(),
            frontends: Frontends::learn(maps, config, &mut learned)?,
            host_backends: HashSet::new(),
            direct: HashSet::new(),
            generation: 0,
        };
        let families: HashMap<u32, Family> =
            learned.frontends.iter().map(|(key, id)| (*id, key.address.family())).collect();
        for id in 1..maps.svc.len() {
            let Some(row) = maps.svc.get(id).filter(|row| *row != Service::default()) else { continue };
            let used = used_by(&row);
            used.slots.iter().for_each(|(first, count)| services.lines.reserve(*first, *count));
            used.cells.iter().for_each(|(first, count)| services.cells.reserve(*first, *count));
            services.used.insert(id, used);
            services.note_flags(id, row.flags);
            let backends = families.get(&id).map(|family| members(maps, *family, &row)).unwrap_or_default();
            let maglev = [row.maglev_cluster.count(), row.maglev_local.count()];
            learned.services.push(LearnedService { id, backends, maglev });
        }
        let of_services = learned.services.iter().flat_map(|service| &service.backends);
        let named: HashSet<(Family, u32)> =
            of_services.map(|(family, index, _, _)| (*family, *index)).collect();
        backends::bury_orphans(&maps.v4, |index| named.contains(&(Family::V4, index)));
        backends::bury_orphans(&maps.v6, |index| named.contains(&(Family::V6, index)));
        Ok((services, learned))
    }

    /// Writes a difference. A row that does not fit is left out, and the rest is written: the first such error is returned.
    pub fn apply(
        &mut self,
        maps: &Maps,
        config: &Config,
        diff: &Diff,
        now_ms: u64,
    ) -> Result<(), ServicesError> {
        let mut result = Ok(());
        let mut note = |one: Result<(), ServicesError>| {
            if result.is_ok() {
                result = one;
            }
        };
        for (family, index, row) in &diff.backends {
            let Some(row) = row else { continue };
            let written = backends::write(maps, *index, row);
            note(if written {
                Ok(())
            } else {
                Err(ServicesError::Index { table: "backend", index: *index })
            });
            self.note_backend(*family, *index, Some(row));
        }
        for (id, row) in &diff.services {
            if let Some(row) = row {
                note(self.publish(maps, *id, row, now_ms));
            }
        }
        // Before the frontends that need them, and after those that no longer do.
        self.write_switches(maps);
        note(self.frontends.write(maps, config, diff).map_err(ServicesError::from));
        note(self.frontends.remove(maps, config, diff).map_err(ServicesError::from));
        for (id, row) in &diff.services {
            if row.is_none() {
                self.clear(maps, *id, now_ms);
            }
        }
        for (family, index, row) in &diff.backends {
            if row.is_none() {
                backends::bury(maps, *family, *index);
                self.note_backend(*family, *index, None);
            }
        }
        self.write_switches(maps);
        result
    }

    /// Number of frontends.
    pub fn frontends(&self) -> usize {
        self.frontends.len()
    }

    fn publish(&mut self, maps: &Maps, id: u32, row: &ServiceRow, now_ms: u64) -> Result<(), ServicesError> {
        let current = maps.svc.get(id).ok_or(ServicesError::Index { table: "service", index: id })?;
        self.next_generation(&current);
        let mut given = Used::default();
        let mut runs = [Run::EMPTY; 4];
        let sets = [(&row.cluster, &row.maglev_cluster), (&row.local, &row.maglev_local)];
        for (set, (backends, cells)) in sets.into_iter().enumerate() {
            let written = self.write_run(maps, id, backends, now_ms).and_then(|run| {
                given.slots[set] = stretch(run, SLOTS_PER_LINE);
                Ok((run, self.write_cells(maps, id, cells, now_ms)?))
            });
            match written {
                Ok((run, cells)) => {
                    given.cells[set] = stretch(cells, CELLS_PER_LINE);
                    (runs[set], runs[set + 2]) = (run, cells);
                }
                Err(error) => {
                    self.give_back(given, now_ms);
                    return Err(error);
                }
            }
        }
        let flags = u64::from(row.flags) | u64::from(row.affinity_s) << 32;
        let stats = u64::from(id) | u64::from(current.config_generation.wrapping_add(1)) << 32;
        maps.svc.publish(id, WORD_STATS, stats);
        maps.svc.publish(id, WORD_CLUSTER, runs[0].0);
        // A Local flag must not be seen before the run that it asks for, nor that run vanish before the flag.
        let local_first = !row.local.is_empty();
        if local_first {
            maps.svc.publish(id, WORD_LOCAL, runs[1].0);
        }
        // Tables count only with the run of their generation, so they may come after it and before whoever asks for them.
        maps.svc.publish(id, WORD_MAGLEV_CLUSTER, runs[2].0);
        maps.svc.publish(id, WORD_MAGLEV_LOCAL, runs[3].0);
        maps.svc.publish(id, WORD_FLAGS, flags);
        if !local_first {
            maps.svc.publish(id, WORD_LOCAL, runs[1].0);
        }
        let old = self.used.insert(id, given).unwrap_or_default();
        self.give_back(old, now_ms);
        self.note_flags(id, row.flags);
        Ok(())
    }

    /// A generation that no word of the row has, so that no table of before fits a run of now.
    fn next_generation(&mut self, row: &Service) {
        let words = [row.run_cluster, row.run_local, row.maglev_cluster, row.maglev_local];
        self.generation = self.generation.wrapping_add(1);
        while words.iter().any(|word| word.generation() == self.generation) {
            self.generation = self.generation.wrapping_add(1);
        }
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

    /// Writes a Maglev table. Without room for it the service goes on without: programs then choose at random.
    fn write_cells(
        &mut self,
        maps: &Maps,
        id: u32,
        cells: &[u16],
        now_ms: u64,
    ) -> Result<Run, ServicesError> {
        if cells.is_empty() {
            return Ok(Run::EMPTY);
        }
        let lines = cells.chunks(CELLS_PER_LINE as usize);
        let Some(first) = self.cells.take(lines.len() as u32, now_ms) else {
            tracing::warn!(service = id, cells = cells.len(), "no room for a Maglev table");
            return Ok(Run::EMPTY);
        };
        for (line, part) in (first..).zip(lines) {
            let mut row = MaglevLine::default();
            row.cells[..part.len()].copy_from_slice(part);
            maps.maglev.set(line, &row);
        }
        Ok(Run::new(first, cells.len() as u16, self.generation))
    }

    fn clear(&mut self, maps: &Maps, id: u32, now_ms: u64) {
        for word in WORDS {
            maps.svc.publish(id, word, 0);
        }
        let used = self.used.remove(&id).unwrap_or_default();
        self.give_back(used, now_ms);
        self.note_flags(id, 0);
    }

    fn give_back(&mut self, used: Used, now_ms: u64) {
        used.slots.iter().for_each(|(first, count)| self.lines.give_back(*first, *count, now_ms));
        used.cells.iter().for_each(|(first, count)| self.cells.give_back(*first, *count, now_ms));
    }

    fn write_switches(&self, maps: &Maps) {
        let mut control = maps.control();
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let value = bit(!self.host_backends.is_empty(), switches::HOST_BACKENDS)
            | bit(!self.direct.is_empty(), switches::HAND_OVER);
        if control.switches != value {
            control.switches = value;
            maps.cfg.set(0, &control);
        }
    }

    fn note_flags(&mut self, id: u32, bits: u32) {
        if bits & flags::DSR != 0 {
            self.direct.insert(id);
        } else {
            self.direct.remove(&id);
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

fn used_by(row: &Service) -> Used {
    Used {
        slots: [stretch(row.run_cluster, SLOTS_PER_LINE), stretch(row.run_local, SLOTS_PER_LINE)],
        cells: [stretch(row.maglev_cluster, CELLS_PER_LINE), stretch(row.maglev_local, CELLS_PER_LINE)],
    }
}

fn stretch(run: Run, per_line: u32) -> Stretch {
    (run.base(), u32::from(run.count()).div_ceil(per_line))
}

/// Lines that runs or Maglev tables take.
pub fn lines_of(words: [Run; 2], per_line: u32) -> usize {
    words.into_iter().map(|word| stretch(word, per_line).1 as usize).sum()
}

/// Backend indexes of a run, in slot order.
fn slots(maps: &Maps, run: Run) -> Vec<u32> {
    let (first, lines) = stretch(run, SLOTS_PER_LINE);
    let lines = (first..first.saturating_add(lines)).filter_map(|line| maps.slots.get(line));
    lines.flat_map(|line| line.backends).take(usize::from(run.count())).collect()
}

fn endpoint(maps: &Maps, family: Family, index: u32) -> Option<(IpAddr, u16)> {
    match family {
        Family::V4 => maps.v4.be.get(index).map(|row| row.endpoint()),
        Family::V6 => maps.v6.be.get(index).map(|row| row.endpoint()),
    }
}

/// The backends that a service names, each once.
fn members(maps: &Maps, family: Family, row: &Service) -> Vec<(Family, u32, IpAddr, u16)> {
    let mut indexes = slots(maps, row.run_cluster);
    indexes.extend(slots(maps, row.run_local));
    indexes.sort_unstable();
    indexes.dedup();
    let read = |index| endpoint(maps, family, index).map(|(address, port)| (family, index, address, port));
    indexes.into_iter().filter_map(read).collect()
}

/// How a service's backends are chosen, in the words of its annotations.
fn algorithm(service: &Service) -> String {
    let name = match service.flags {
        bits if bits & flags::MAGLEV != 0 => "maglev",
        bits if bits & flags::ROUND_ROBIN != 0 => "round-robin",
        bits if bits & flags::LEAST_CONNECTIONS != 0 => "least-connections",
        _ => "random",
    };
    let direct = if service.flags & flags::DSR != 0 { ", direct-server-return" } else { "" };
    format!("{name}{direct}")
}

/// The service tables as the programs read them.
pub fn dump(maps: &Maps) -> Vec<FrontendStatus> {
    let mut rows = frontends_of(&maps.v4);
    rows.extend(frontends_of(&maps.v6));
    rows.sort_by_key(|(key, _)| *key);
    let one = |(key, id): (FrontendKey, u32)| {
        let family = key.address.family();
        let service = maps.svc.get(id).unwrap_or_default();
        let backends = |run| {
            // Weights are repeated slots.
            let mut seen = HashSet::new();
            let indexes =
                slots(maps, run).into_iter().filter(|index| seen.insert(*index)).collect::<Vec<_>>();
            let found = indexes.into_iter().filter_map(|index| endpoint(maps, family, index));
            found.map(|(address, port)| BackendStatus { address, port }).collect()
        };
        let (cluster, local) = (backends(service.run_cluster), backends(service.run_local));
        FrontendStatus::new(&key, id, algorithm(&service), cluster, local)
    };
    rows.into_iter().map(one).collect()
}

fn frontends_of<F: Wire>(maps: &FamilyMaps<F>) -> Vec<(FrontendKey, u32)> {
    let mut rows = Vec::new();
    let read = maps.fe.each(|key, row| {
        if let Some(FrontendRow::Frontend(key)) = key.read() {
            rows.push((key, row.service));
        }
    });
    if let Err(error) = read {
        tracing::warn!(%error, "frontends");
    }
    rows
}
