//! Counters. All are per CPU: the packet path adds to its own CPU's copy, readers add the copies up.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sizes;

/// Value of [`crate::maps::SVCSTAT`], by service id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceCounters {
    /// New flows balanced on packets.
    pub flows: u64,
    /// Connects, and datagrams with a new destination, balanced at the socket.
    pub connects: u64,
    /// Refused or rejected because no endpoint was there.
    pub rejected: u64,
    /// Turn of [`crate::service::flags::ROUND_ROBIN`]: free-running, read modulo the run's length.
    pub turn: u64,
}

/// Value of [`crate::maps::DROPS`], by [`crate::Reason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropCounter {
    /// Packets (or socket calls) ended for this reason.
    pub packets: u64,
}

/// Value of [`crate::maps::ROTOR`]: the next source port to try for a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rotor {
    /// Offset inside the range of source ports, free-running.
    pub next: u32,
}

sizes! { ServiceCounters = 32, DropCounter = 8, Rotor = 4 }
