//! Addresses, ports and protocols as they stand in a packet: wire order, no arithmetic.
//!
//! Does not parse or print text: the agent converts from and to `core::net` types.

use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sizes;

/// An IPv4 address; the integer's bytes in memory are the address's bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ip4(pub u32);

/// An IPv6 address as four words; their bytes in memory are the address's bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ip6(pub [u32; 4]);

/// A TCP, UDP or SCTP port (or an ICMP identifier) in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Port(pub u16);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Mac(pub [u16; 3]);

/// An IP protocol number (RFC 5237).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Proto(pub u8);

sizes! { Ip4 = 4, Ip6 = 16, Port = 2, Mac = 6, Proto = 1 }

impl Ip4 {
    /// The address as a number, most significant byte first on the wire.
    #[inline(always)]
    pub const fn host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The address with this number.
    #[inline(always)]
    pub const fn from_host(number: u32) -> Self {
        Self(number.to_be())
    }

    /// 32 bits that depend on all of the address, for hashes.
    #[inline(always)]
    pub const fn mix(self) -> u32 {
        self.0
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(addr: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(addr: Ip4) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

impl Ip6 {
    /// The v4-mapped form `::ffff:a.b.c.d`, under which dual-stack sockets see IPv4 peers (RFC 4291, 2.5.5.2).
    #[inline(always)]
    pub const fn mapped(addr: Ip4) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), addr.0])
    }

    /// The IPv4 address inside a v4-mapped one.
    #[inline(always)]
    pub const fn as_mapped(self) -> Option<Ip4> {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be() {
            Some(Ip4(self.0[3]))
        } else {
            None
        }
    }

    /// 32 bits that depend on all of the address, for hashes.
    #[inline(always)]
    pub const fn mix(self) -> u32 {
        let [a, b, c, d] = self.0;
        a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d.rotate_left(19)
    }

    /// The routing half: the first 64 bits as a number.
    #[inline(always)]
    pub const fn high(self) -> u64 {
        (u32::from_be(self.0[0]) as u64) << 32 | u32::from_be(self.0[1]) as u64
    }

    /// The last 32 bits as a number: the index of a pod inside its node's range.
    #[inline(always)]
    pub const fn low32(self) -> u32 {
        u32::from_be(self.0[3])
    }

    /// Whether the address is in fe80::/10 (RFC 4291, 2.4).
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        u32::from_be(self.0[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// Whether the address is in ff00::/8 (RFC 4291, 2.4).
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        u32::from_be(self.0[0]) & 0xff00_0000 == 0xff00_0000
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(addr: Ipv6Addr) -> Self {
        let b = addr.octets();
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ip6> for Ipv6Addr {
    fn from(addr: Ip6) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

impl Port {
    /// The port as a number.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The port with this number.
    #[inline(always)]
    pub const fn from_host(number: u16) -> Self {
        Self(number.to_be())
    }
}

impl Mac {
    /// The address with these bytes, in the order of the wire.
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([b[0], b[1]]),
            u16::from_ne_bytes([b[2], b[3]]),
            u16::from_ne_bytes([b[4], b[5]]),
        ])
    }

    /// The bytes in the order of the wire.
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// Whether no address is set.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }
}

impl Proto {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol for IPv6.
    pub const ICMP6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);

    /// Row of this protocol in [`crate::maps::PORTS`]: TCP 0, UDP 1, SCTP 2; out of range for all others.
    #[inline(always)]
    pub const fn port_row(self) -> u32 {
        match self {
            Self::TCP => 0,
            Self::UDP => 1,
            Self::SCTP => 2,
            _ => crate::limits::PORT_BITMAPS as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_wire_order_in_memory() {
        let four = Ip4::from(Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!(four.as_bytes(), [10, 96, 0, 1]);
        assert_eq!(four.host(), 0x0a60_0001);
        assert_eq!(Ip4::from_host(0x0a60_0001), four);
        let six: Ipv6Addr = "fd00:10:244:3::17".parse().expect("literal");
        assert_eq!(Ipv6Addr::from(Ip6::from(six)), six);
        assert_eq!(Ip6::from(six).high(), 0xfd00_0010_0244_0003);
        assert_eq!(Ip6::from(six).low32(), 0x17);
        assert_eq!(Port::from_host(443).as_bytes(), [1, 187]);
        assert_eq!(Mac::from_bytes([2, 4, 6, 8, 10, 12]).as_bytes(), [2, 4, 6, 8, 10, 12]);
        assert_eq!(Mac::from_bytes([2, 4, 6, 8, 10, 12]).bytes(), [2, 4, 6, 8, 10, 12]);
    }

    #[test]
    fn mapped_addresses_round_trip_and_others_are_refused() {
        let four = Ip4::from(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(Ip6::mapped(four).as_mapped(), Some(four));
        assert_eq!(Ip6::from(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped()), Ip6::mapped(four));
        assert_eq!(Ip6::from(Ipv6Addr::LOCALHOST).as_mapped(), None);
    }
}
