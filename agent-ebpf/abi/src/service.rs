//! Service ports: their policies and the runs of backends that serve them.
//!
//! # Publication rule
//! A run is a stretch of slots in [`crate::maps::SLOTS`], named by one aligned 8-byte word ([`Run`]). The writer
//! 1. writes all backends that the run names,
//! 2. writes the slots into *free* lines (never into lines that a published run covers),
//! 3. stores the word with release ordering (one 8-byte store into the mapped array).
//!
//! A reader loads the word once; base, count and generation therefore always belong together. Lines and backends that
//! are no longer named stay untouched (quarantine) for at least [`crate::limits::QUARANTINE_MS`]. A frontend is inserted after
//! its service is complete and deleted before the service is cleared.
//!
//! A node port, a cluster IP and an external address of one service port may share one service id.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sizes;

/// Backends of one choice set: `count` slots from line `base` of [`crate::maps::SLOTS`] on; slot `i` is element
/// `i % 16` of line `base + i / 16`. Zero is the empty run.
///
/// Bits: base 0..32, count 32..48, generation 48..64. The writer raises the generation with each publication of a service's
/// runs: a Maglev table serves only together with the run of the same generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Run(pub u64);

impl Run {
    /// No backends.
    pub const EMPTY: Self = Self(0);

    /// The run of `count` slots from line `base` on.
    #[inline(always)]
    pub const fn new(base: u32, count: u16, generation: u16) -> Self {
        Self(base as u64 | (count as u64) << 32 | (generation as u64) << 48)
    }

    /// First line in [`crate::maps::SLOTS`].
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32
    }

    /// Number of slots.
    #[inline(always)]
    pub const fn count(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Publication counter of the writer.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// internalTrafficPolicy=Local: clients on this node get [`super::Service::run_local`] at internal frontends.
    pub const INTERNAL_LOCAL: u32 = 1 << 0;
    /// externalTrafficPolicy=Local: clients outside get [`super::Service::run_local`] at external frontends, and keep their address.
    pub const EXTERNAL_LOCAL: u32 = 1 << 1;
    /// sessionAffinity=ClientIP with [`super::Service::affinity_s`]: see [`crate::affinity`].
    pub const AFFINITY: u32 = 1 << 2;
    /// Packets: choose by [`super::Service::maglev_cluster`] or [`super::Service::maglev_local`], which nodes agree on. Sockets, which
    /// know no source port yet, choose at random.
    pub const MAGLEV: u32 = 1 << 3;
    /// Choose in turns, each CPU on its own.
    pub const ROUND_ROBIN: u32 = 1 << 4;
    /// Direct server return: clients outside reach backends on other nodes with their own address, and the backend's node answers
    /// them, instead of source translation here.
    pub const DSR: u32 = 1 << 5;
    /// Of two backends at random, choose the one with fewer connections ([`crate::backend::Load`]).
    pub const LEAST_CONNECTIONS: u32 = 1 << 6;
}

/// Value of [`crate::maps::SVC`]: one cache line a service port. An entry of all zeros is a free id.
///
/// Which run serves a packet: a client outside at an external frontend gets `run_local` with
/// [`flags::EXTERNAL_LOCAL`], anyone at an internal frontend gets `run_local` with [`flags::INTERNAL_LOCAL`], all
/// others `run_cluster`. Always publish `run_cluster`, also with both policies Local: if the chosen run is empty, the
/// packet is rejected when `run_cluster` is empty too and dropped ([`crate::Reason::NoLocalEndpoint`]) when it is not.
/// Readiness, termination, topology and hints are already settled in the runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// All eligible endpoints.
    pub run_cluster: Run,
    /// The eligible endpoints of this node.
    pub run_local: Run,
    /// Maglev table over `run_cluster`: `base` is its first line in [`crate::maps::MAGLEV`], `count` its number of cells. Counts only
    /// while both have the same generation.
    pub maglev_cluster: Run,
    /// Bits of [`flags`].
    pub flags: u32,
    /// ClientIP affinity timeout, seconds.
    pub affinity_s: u32,
    /// Row of [`crate::maps::SVCSTAT`] to count into; usually the service's own id.
    pub stats: u32,
    /// Changed by the writer whenever anything but the runs changes; for people who read dumps.
    pub config_generation: u32,
    /// Maglev table over `run_local`.
    pub maglev_local: Run,
    /// Zero.
    pub _spare: [u32; 4],
}

/// Slots in one line.
pub const SLOTS_PER_LINE: u32 = 16;

/// Value of [`crate::maps::SLOTS`]: one cache line of backend indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotLine {
    /// Indexes into [`crate::maps::BE4`] or [`crate::maps::BE6`], by the frontend's family.
    pub backends: [u32; 16],
}

/// Cells in one line.
pub const CELLS_PER_LINE: u32 = 32;

/// Value of [`crate::maps::MAGLEV`]: one cache line of a Maglev table. A table's first line is `base`; cell `i` is element
/// `i % 32` of line `base + i / 32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MaglevLine {
    /// Positions inside the run that the table belongs to.
    pub cells: [u16; 32],
}

sizes! { Run = 8, Service = 64, SlotLine = 64, MaglevLine = 64 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_word_gives_back_its_parts() {
        for (base, count, generation) in
            [(0, 0, 0), (1, 1, 1), (u32::MAX, u16::MAX, u16::MAX), (65_535, 50, 9)]
        {
            let run = Run::new(base, count, generation);
            assert_eq!((run.base(), run.count(), run.generation()), (base, count, generation));
        }
        assert_eq!(Run::new(0, 0, 0), Run::EMPTY);
    }
}
