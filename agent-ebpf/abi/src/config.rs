//! What a node's programs are told: once, at load ([`Config`]), and while they run ([`Control`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Ip4, Ip6, sizes};

/// Name of the `.rodata` global that holds [`Config`]: override it at load with the struct's bytes. Being constant,
/// it lets the verifier remove code for features that are off.
pub const CONFIG_GLOBAL: &str = "BL_CONFIG";

/// A range of IPv4 addresses. An address is inside if `address & mask == net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cidr4 {
    /// First address.
    pub net: Ip4,
    /// Mask.
    pub mask: Ip4,
}

/// A range of IPv6 addresses. An address is inside if `address & mask == net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cidr6 {
    /// First address.
    pub net: Ip6,
    /// Mask.
    pub mask: Ip6,
}

impl Cidr4 {
    /// The range that holds no address.
    pub const NONE: Self = Self { net: Ip4(u32::MAX), mask: Ip4(0) };

    /// The range of `prefix_len` leading bits of `addr`. A length above 32 counts as 32.
    pub const fn new(addr: Ip4, prefix_len: u8) -> Self {
        let mask = match prefix_len {
            0 => 0,
            len => u32::MAX << (32 - if len > 32 { 32 } else { len }),
        };
        Self { net: Ip4::from_host(addr.host() & mask), mask: Ip4::from_host(mask) }
    }

    /// Whether the address is in the range.
    #[inline(always)]
    pub const fn contains(&self, addr: Ip4) -> bool {
        addr.0 & self.mask.0 == self.net.0
    }
}

impl Cidr6 {
    /// The range that holds no address.
    pub const NONE: Self = Self { net: Ip6([u32::MAX; 4]), mask: Ip6([0; 4]) };

    /// The range of `prefix_len` leading bits of `addr`. A length above 128 counts as 128.
    pub const fn new(addr: Ip6, prefix_len: u8) -> Self {
        let mut net = [0; 4];
        let mut mask = [0; 4];
        let mut i = 0;
        while i < 4 {
            let bits = (prefix_len as u32).saturating_sub(32 * i as u32);
            let word = match bits {
                0 => 0,
                1..32 => u32::MAX << (32 - bits),
                _ => u32::MAX,
            };
            mask[i] = word.to_be();
            net[i] = addr.0[i] & mask[i];
            i += 1;
        }
        Self { net: Ip6(net), mask: Ip6(mask) }
    }

    /// Whether the address is in the range.
    #[inline(always)]
    pub const fn contains(&self, addr: Ip6) -> bool {
        let (a, m, n) = (&addr.0, &self.mask.0, &self.net.0);
        a[0] & m[0] == n[0] && a[1] & m[1] == n[1] && a[2] & m[2] == n[2] && a[3] & m[3] == n[3]
    }
}

/// Bits of [`Config::features`].
pub mod features {
    /// IPv6 is used.
    pub const IPV6: u32 = 1 << 0;
    /// A pod's packets with a source address that is not its own are dropped.
    pub const SPOOF_CHECK: u32 = 1 << 1;
    /// `getpeername` gives the service address (costs a write at each connect to a service).
    pub const PEER_NAME: u32 = 1 << 2;
    /// XDP is attached to the uplinks: the uplink's tcx program leaves node ports to it.
    pub const XDP: u32 = 1 << 3;
    /// Pods' connections to addresses outside the cluster get this node's address ([`super::Config::uplink`] must be set).
    pub const MASQUERADE: u32 = 1 << 4;
    /// Flows are looked up in the next tables, too ([`crate::maps::FLOW4_NEXT`]): the tables are growing.
    pub const FLOWS_BOTH: u32 = 1 << 5;
    /// New flows go to the next tables.
    pub const FLOWS_NEXT: u32 = 1 << 6;
    /// XDP may leave a note for tcx before the packet ([`crate::route::HandOff`]).
    pub const METADATA: u32 = 1 << 7;
    /// Some nodes are reached by VXLAN.
    pub const TUNNEL: u32 = 1 << 8;
}

/// Constants of one node, in `.rodata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// [`crate::LAYOUT`] of the programs' build. The loader compares it with [`Control::layout`] before pinned maps are reused.
    pub layout: u64,
    /// Bits of [`features`].
    pub features: u32,
    /// Seed of flow signatures and hashes; random per node, kept across restarts (a changed seed orphans flows).
    pub hash_seed: u32,
    /// This node's pod range; an address in it has index `addr - net` in [`crate::maps::EP4`].
    pub pods4: Cidr4,
    /// The cluster's pod range; an address has index `(addr - net) >> cluster4_shift` in [`crate::maps::PODROUTE4`].
    pub cluster4: Cidr4,
    /// The service range.
    pub services4: Cidr4,
    /// 32 - mask length of a node's range: 8 for /24.
    pub cluster4_shift: u32,
    /// Source address for translated clients.
    pub snat4: Ip4,
    /// Source address of a pod's connection to itself through a service: any address that the pod routes to its gateway.
    pub hairpin4: Ip4,
    /// 64 - mask length of a node's range (at most 64): 0 for /64.
    pub cluster6_shift: u32,
    /// This node's pod range; an address in it has its last 32 bits, less those of `net`, as index in [`crate::maps::EP6`].
    pub pods6: Cidr6,
    /// The cluster's pod range; an address has index `(high64(addr) - high64(net)) >> cluster6_shift` in [`crate::maps::PODROUTE6`].
    pub cluster6: Cidr6,
    /// The service range.
    pub services6: Cidr6,
    /// Source address for translated clients.
    pub snat6: Ip6,
    /// Source address of a pod's connection to itself through a service.
    pub hairpin6: Ip6,
    /// First source port for translated clients, as a number.
    pub snat_port_first: u16,
    /// Last source port for translated clients, as a number.
    pub snat_port_last: u16,
    /// First source port of the second range, as a number.
    pub snat_high_first: u16,
    /// Last source port of the second range; less than the first: there is no second range.
    pub snat_high_last: u16,
    /// Zero.
    pub _pad: u32,
    /// Index of the interface by which masqueraded connections leave.
    pub uplink: u32,
    /// Index of the VXLAN device, zero without one.
    pub vxlan: u32,
    /// Seed of Maglev's hash, the same on all nodes of a cluster.
    pub maglev_seed: u32,
    /// Cookie (`SO_NETNS_COOKIE`) of the node's own network namespace: sockets in it reach node ports on loopback too.
    pub netns_cookie: u64,
}

impl Config {
    /// A node that knows no range: everything passes to the stack.
    pub const EMPTY: Self = Self {
        layout: crate::LAYOUT,
        features: 0,
        hash_seed: 0,
        pods4: Cidr4::NONE,
        cluster4: Cidr4::NONE,
        services4: Cidr4::NONE,
        cluster4_shift: 8,
        snat4: Ip4(0),
        hairpin4: Ip4(0),
        cluster6_shift: 0,
        pods6: Cidr6::NONE,
        cluster6: Cidr6::NONE,
        services6: Cidr6::NONE,
        snat6: Ip6([0; 4]),
        hairpin6: Ip6([0; 4]),
        snat_port_first: *crate::limits::SNAT_PORTS.start(),
        snat_port_last: *crate::limits::SNAT_PORTS.end(),
        snat_high_first: *crate::limits::SNAT_PORTS_HIGH.start(),
        snat_high_last: *crate::limits::SNAT_PORTS_HIGH.end(),
        _pad: 0,
        uplink: 0,
        vxlan: 0,
        maglev_seed: 0,
        netns_cookie: 0,
    };
}

/// Bits of [`Control::switches`].
pub mod switches {
    // Bit 0 had a meaning once, and tables of then may have it set.
    /// Some service has a host-network backend on this node: the uplink's egress program translates its replies.
    pub const HOST_BACKENDS: u32 = 1 << 1;
    /// Other nodes may hand over packets to service addresses: look at frames' senders ([`crate::maps::PEERMAC`]).
    pub const HAND_OVER: u32 = 1 << 2;
}

/// The one value of [`crate::maps::CFG`], mapped by the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// [`crate::LAYOUT`] of whoever created the pinned maps; zero in a new map.
    pub layout: u64,
    /// Bits of [`switches`].
    pub switches: u32,
    /// Raised by each agent that adopts the maps.
    pub epoch: u32,
    /// [`Config::hash_seed`] of whoever created the pinned maps: an adopting agent keeps it.
    pub hash_seed: u32,
    /// [`Config::features`] of the programs that were attached last, for people who read the status.
    pub features: u32,
    /// Zero.
    pub _spare: [u32; 10],
}

sizes! { Cidr4 = 8, Cidr6 = 32, Config = 216, Control = 64 }

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn ipv4_ranges_hold_what_their_prefix_says() {
        let ip = |a, b, c, d| Ip4::from(Ipv4Addr::new(a, b, c, d));
        let range = Cidr4::new(ip(10, 244, 3, 77), 24);
        assert_eq!(range.net, ip(10, 244, 3, 0));
        assert!(range.contains(ip(10, 244, 3, 255)));
        assert!(!range.contains(ip(10, 244, 4, 0)));
        assert!(Cidr4::new(ip(0, 0, 0, 0), 0).contains(ip(1, 2, 3, 4)));
        assert!(!Cidr4::NONE.contains(ip(255, 255, 255, 255)));
        assert!(!Cidr4::NONE.contains(ip(0, 0, 0, 0)));
    }

    #[test]
    fn ipv6_ranges_hold_what_their_prefix_says() {
        let ip = |text: &str| Ip6::from(text.parse::<Ipv6Addr>().expect("literal"));
        let cluster = Cidr6::new(ip("fd00:10:244:12::9"), 56);
        assert_eq!(cluster.net, ip("fd00:10:244::"));
        assert!(cluster.contains(ip("fd00:10:244:ff::1")));
        assert!(!cluster.contains(ip("fd00:10:244:100::1")));
        let services = Cidr6::new(ip("fd00:10:96::"), 112);
        assert!(services.contains(ip("fd00:10:96::ffff")));
        assert!(!services.contains(ip("fd00:10:96::1:0")));
        assert!(!Cidr6::NONE.contains(ip("::")));
    }
}
