//! Backends: where a service's connections end.
//!
//! Indexes are shared by both families' arrays only in their range, not in their meaning: index 7 of
//! [`crate::maps::BE4`] and of [`crate::maps::BE6`] are two backends. Index 0 is never given to a backend.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, Port, sizes};

/// [`Backend4::state`]: a free index.
pub const STATE_FREE: u8 = 0;
/// [`Backend4::state`]: takes new connections.
pub const STATE_READY: u8 = 1;
/// [`Backend4::state`]: serving and terminating: in a run only when no ready endpoint exists.
pub const STATE_TERMINATING: u8 = 2;
/// [`Backend4::state`]: gone from every run; the index is quarantined. Established TCP flows go on.
pub const STATE_GONE: u8 = 3;

/// Bits of [`Backend4::flags`].
pub mod flags {
    /// The endpoint is on this node.
    pub const LOCAL: u8 = 1 << 0;
    /// The endpoint's address is a node's address (hostNetwork, or a process outside Kubernetes on the node).
    pub const HOST: u8 = 1 << 1;
}

/// Value of [`crate::maps::BE4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend4 {
    /// Address of the endpoint.
    pub addr: Ip4,
    /// Target port.
    pub port: Port,
    /// One of the `STATE_` constants.
    pub state: u8,
    /// Relative weight, 1 unless asked for otherwise. Not read on the packet path (weights are repeated slots).
    pub weight: u8,
    /// Raised when the index is given to another endpoint or the endpoint is removed; same as in [`GenerationLine`].
    pub generation: u16,
    /// Index of the endpoint's node, zero if unknown.
    pub node: u16,
    /// Zone number, zero if unknown.
    pub zone: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Zero: the next hop is found by address.
    pub _pad: u16,
}

/// Value of [`crate::maps::BE6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend6 {
    /// Address of the endpoint.
    pub addr: Ip6,
    /// Target port.
    pub port: Port,
    /// One of the `STATE_` constants.
    pub state: u8,
    /// Relative weight, 1 unless asked for otherwise. Not read on the packet path (weights are repeated slots).
    pub weight: u8,
    /// Raised when the index is given to another endpoint or the endpoint is removed; same as in [`GenerationLine`].
    pub generation: u16,
    /// Index of the endpoint's node, zero if unknown.
    pub node: u16,
    /// Zone number, zero if unknown.
    pub zone: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Zero: the next hop is found by address.
    pub _pad: [u16; 3],
}

/// Value of [`crate::maps::LOAD4`] and [`crate::maps::LOAD6`]: connections that a backend of a service with
/// [`crate::service::flags::LEAST_CONNECTIONS`] has. Kept by atomic additions, and only for such services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Load {
    /// Translated connections: raised at their opening, and set by the agent to what it has counted at each collection.
    pub flows: u32,
    /// Sockets: raised at `connect`, lowered when the socket is closed.
    pub sockets: u32,
}

/// Generations in one line.
pub const GENERATIONS_PER_LINE: u32 = 32;

/// Value of [`crate::maps::BEGEN4`] and [`crate::maps::BEGEN6`]: the generations of 32 neighbouring backends, dense because every packet
/// of a connectionless flow compares one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GenerationLine {
    /// Generation of backend `32 * line + i`.
    pub generations: [u16; 32],
}

sizes! { Backend4 = 16, Backend6 = 32, Load = 8, GenerationLine = 64 }
