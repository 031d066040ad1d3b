//! Access to a packet's bytes. All bounds checks live in the implementations; headers are copied out by value.

use abi::zerocopy::{FromBytes, Immutable, IntoBytes};

/// The largest offset that a stage may ask for, plus one. The implementations mask with it, since the verifier
/// wants to see a bound on each variable offset.
pub const MAX_OFFSET: usize = 1024;

/// A packet, from its Ethernet header on.
pub trait Packet {
    /// Whether the packet is at XDP: before the stack, which writes the outer headers of tunnels elsewhere.
    fn is_at_xdp(&self) -> bool;

    /// Bytes of the packet, including those that [`Packet::load`] cannot reach.
    fn len(&self) -> usize;

    /// Whether the packet is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the first `len` bytes reachable if the packet has them. Call it before loading them.
    fn pull(&mut self, len: usize);

    /// The value at byte `at`, or `None` past the end of what is reachable.
    fn load<T: FromBytes + Copy>(&self, at: usize) -> Option<T>;

    /// Overwrites the bytes at `at`; does nothing past the end of what is reachable.
    fn store<T: IntoBytes + Immutable>(&mut self, at: usize, value: T);

    /// Mends the transport checksum at `at` by a difference of addresses (which the pseudo header covers) and one of
    /// other transport fields. Call it after all loads and stores. A stored zero means "none" if `zero_is_none`.
    fn mend(&mut self, at: usize, sums: Mend);

    /// Cuts or extends (with unspecified bytes) the packet. `false` if that is not possible.
    fn resize(&mut self, len: usize) -> bool;

    /// Index of the interface that the packet came in by (or leaves by, on egress).
    fn ifindex(&self) -> u32;

    /// Largest IP packet that the interface of [`Packet::ifindex`] takes, bytes; zero if that is not known.
    fn mtu(&self) -> u16;

    /// Bytes of payload that each packet made of this one will carry, zero if it is one packet already
    /// (generic segmentation offload).
    fn segment(&self) -> u32;

    /// Adds room in front of the packet. `false` if that is not possible.
    fn grow_front(&mut self, bytes: usize) -> bool;

    /// Says in which tunnel the packet goes when it is sent to a tunnel device: network identifier, and the other end's IPv4 address in
    /// wire order. `false` if that is not possible.
    fn set_tunnel(&mut self, vni: u32, remote: u32) -> bool;

    /// [`crate::sctp::times`], by a way that keeps its loop out of the verifier's walk through its callers.
    fn times(a: u32, b: u32) -> u32 {
        crate::sctp::times(a, b)
    }

    /// The next hop that XDP has noted for tcx ([`abi::route::HandOff`]).
    fn note(&self) -> Option<u32>;
}

/// What [`Packet::mend`] applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mend {
    /// Difference of the addresses.
    pub addresses: u16,
    /// Difference of the ports or the ICMP identifier.
    pub ports: u16,
    /// The protocol's checksum covers the pseudo header (not for ICMP on IPv4).
    pub pseudo: bool,
    /// A stored checksum of zero means that there is none (UDP on IPv4), and zero is never written.
    pub zero_is_none: bool,
    /// The packet is IPv6: no header checksum balances the change of addresses.
    pub ipv6: bool,
}

impl Mend {
    /// The checksum that follows from `stored`, for implementations that see the final bytes.
    #[inline(always)]
    pub fn applied(&self, stored: u16) -> u16 {
        if self.zero_is_none && stored == 0 {
            return 0;
        }
        let addresses = if self.pseudo { self.addresses } else { 0 };
        let sum = crate::checksum::mend(stored, crate::checksum::add(addresses, self.ports));
        if self.zero_is_none && sum == 0 { u16::MAX } else { sum }
    }
}
