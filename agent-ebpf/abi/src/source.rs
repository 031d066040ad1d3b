//! Source ranges: which clients may use a load balancer's address (`loadBalancerSourceRanges`).
//!
//! Read only for new connections to a frontend with [`crate::frontend::flags::SOURCE_RANGES`]. Such a frontend's clients are refused unless
//! a range of its service holds them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, sizes};

/// Bits before the address in a key: the service id, which must match whole.
pub const SERVICE_BITS: u32 = 32;

/// A client of a service, or a range of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceClient4 {
    /// Service id.
    pub service: u32,
    /// The range's or the client's address.
    pub addr: Ip4,
}

/// Key of [`crate::maps::SRCR4`]: a range of one service, as `BPF_MAP_TYPE_LPM_TRIE` wants it (bits count from the first byte behind
/// `prefix_len` on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceKey4 {
    /// [`SERVICE_BITS`] and the range's prefix length; for a look-up [`SERVICE_BITS`] and 32.
    pub prefix_len: u32,
    /// The bits.
    pub client: SourceClient4,
}

/// A client of a service, or a range of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceClient6 {
    /// Service id.
    pub service: u32,
    /// The range's or the client's address.
    pub addr: Ip6,
}

/// Key of [`crate::maps::SRCR6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceKey6 {
    /// [`SERVICE_BITS`] and the range's prefix length; for a look-up [`SERVICE_BITS`] and 128.
    pub prefix_len: u32,
    /// The bits.
    pub client: SourceClient6,
}

/// Value of [`crate::maps::SRCR4`] and [`crate::maps::SRCR6`]: the range is allowed. Never zero.
pub const ALLOWED: u32 = 1;

sizes! { SourceKey4 = 12, SourceKey6 = 24 }
