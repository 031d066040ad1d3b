//! Socket load balancing: what a socket's real peers stand for.
//!
//! Written when `connect` or `sendmsg` replaces a service address, read when the application asks who its peer is
//! (`getpeername`) or receives a datagram (`recvmsg`).
//!
//! Most sockets talk to one peer, and there are many: a socket's first pair goes to a [`SocketSlot`], which costs a fraction of the socket
//! storage ([`SocketReverse`]). That is for further pairs, of sockets that send to many, and for sockets whose slot is another's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip6, Port, sizes};

/// One backend that a socket talks to and the service address it stands for. IPv4 addresses are v4-mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReversePair {
    /// The backend's address.
    pub backend: Ip6,
    /// The service address that the application used.
    pub frontend: Ip6,
    /// The backend's port; zero: the pair is unused.
    pub backend_port: Port,
    /// The service port that the application used.
    pub frontend_port: Port,
    /// The backend's index.
    pub index: u32,
    /// The backend's generation when it was chosen.
    pub generation: u16,
    /// Bits of [`pair_flags`].
    pub flags: u16,
    /// Zero.
    pub _pad: [u16; 2],
}

/// Bits of [`ReversePair::flags`].
pub mod pair_flags {
    /// The connection was counted in [`crate::backend::Load::sockets`].
    pub const COUNTED: u16 = 1 << 0;
    /// The backend's index is one of IPv6.
    pub const IPV6: u16 = 1 << 1;
}

/// Pairs remembered for one socket.
pub const PAIRS: usize = 4;

/// Value of [`crate::maps::SKREV`], the socket's own storage: its last [`PAIRS`] pairs. Freed with the socket by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketReverse {
    /// The pairs, in no order.
    pub pairs: [ReversePair; PAIRS],
    /// Pair to overwrite next.
    pub next: u32,
    /// Zero.
    pub _pad: u32,
}

/// Value of [`crate::maps::SKSLOT`], at index `cookie % number of slots`: the peer of one socket. Claimed by compare-and-swap
/// of the cookie, which no later socket ever has again, and freed when the socket is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketSlot {
    /// Cookie (`SO_COOKIE`) of the socket; zero: the slot is free, and the pair means nothing.
    pub cookie: u64,
    /// What it is connected to.
    pub pair: ReversePair,
    /// Zero.
    pub _pad: u64,
}

sizes! { ReversePair = 48, SocketReverse = 200, SocketSlot = 64 }
