//! Fragments: the ports of a datagram's first fragment, for the fragments that carry none.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, Port, Proto, sizes};

/// Key of [`crate::maps::FRAG4`] (RFC 791: source, destination, protocol, identification).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey4 {
    /// Source address.
    pub src: Ip4,
    /// Destination address.
    pub dst: Ip4,
    /// Identification, in wire order.
    pub id: u32,
    /// Protocol.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}

/// Key of [`crate::maps::FRAG6`] (RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey6 {
    /// Source address.
    pub src: Ip6,
    /// Destination address.
    pub dst: Ip6,
    /// Identification, in wire order.
    pub id: u32,
    /// Protocol.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}

/// Value of [`crate::maps::FRAG4`] and [`crate::maps::FRAG6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fragment {
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
}

sizes! { FragmentKey4 = 16, FragmentKey6 = 40, Fragment = 4 }
