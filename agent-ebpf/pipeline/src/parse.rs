//! From bytes to [`Headers`]: Ethernet with at most two VLAN tags, then one family's header, then the transport's ports.
//!
//! What cannot be ours (ARP, multicast, unknown EtherTypes) ends with a pass; what is cut short with a drop.

use abi::{Port, Proto, Reason, fragment::Fragment};

use crate::{
    family::{Family, Tuple},
    packet::Packet,
    sctp,
    tables::Tables,
    verdict::{Step, drop, pass},
};
use core::ops::ControlFlow::Continue;

/// EtherType of IPv4 (IEEE 802 numbers), in wire order.
pub const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, in wire order.
pub const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_QINQ: u16 = 0x88a8_u16.to_be();

/// Bytes of an Ethernet header without tags.
const ETHERNET: usize = 14;
/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// Where the EtherType of an untagged frame is.
const TYPE_AT: usize = 12;

/// Where TCP's flags are.
const TCP_FLAGS: usize = 13;

/// TCP flag bits (RFC 9293, 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 0x10;
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragmented {
    /// A whole datagram.
    Whole,
    /// The first fragment: has the ports.
    First,
    /// A later fragment: has none.
    Later,
}

/// What the stages need to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<A> {
    /// Addresses, ports, protocol. Ports are zero when the packet has none.
    pub tuple: Tuple<A>,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header.
    pub l4: usize,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// TCP's flags, or what corresponds to them in SCTP; zero for other protocols.
    pub tcp: u8,
    /// Whether it is a fragment.
    pub fragmented: Fragmented,
    /// Identification of the fragmented datagram.
    pub fragment_id: u32,
    /// Bytes of the IP packet, as its header says.
    pub len: u32,
}

impl<A> Headers<A> {
    /// Whether the packet has ports that the stages may translate.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.tuple.proto, Proto::TCP | Proto::UDP | Proto::SCTP)
    }

    /// Whether the protocol has connections, which begin with a packet of their own and keep their backend.
    #[inline(always)]
    pub fn connected(&self) -> bool {
        matches!(self.tuple.proto, Proto::TCP | Proto::SCTP)
    }

    /// Whether the packet opens a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.tcp & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// Reads the Ethernet header: the offset of the IP header and the EtherType in wire order.
#[inline(always)]
pub fn link<P: Packet>(pkt: &mut P) -> Step<(usize, u16)> {
    pkt.pull(ETHERNET + 2 * TAG + 20);
    let mut l3 = ETHERNET;
    let Some(mut ethertype) = pkt.load::<u16>(TYPE_AT) else { return drop(Reason::Malformed) };
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        l3 += TAG;
        match pkt.load::<u16>(l3 - 2) {
            Some(inner) => ethertype = inner,
            None => return drop(Reason::Malformed),
        }
    }
    Continue((l3, ethertype))
}

/// Reads what the transport header gives: source port, destination port, TCP flags.
#[inline(always)]
pub fn transport<P: Packet>(pkt: &mut P, l4: usize, proto: Proto) -> Step<(Port, Port, u8)> {
    pkt.pull(l4 + if matches!(proto, Proto::TCP | Proto::SCTP) { TCP_FLAGS + 1 } else { 8 });
    match proto {
        Proto::TCP => {
            let (Some([sport, dport]), Some(flags)) =
                (pkt.load::<[u16; 2]>(l4), pkt.load::<u8>(l4 + TCP_FLAGS))
            else {
                return drop(Reason::Malformed);
            };
            Continue((Port(sport), Port(dport), flags))
        }
        Proto::UDP => match pkt.load::<[u16; 2]>(l4) {
            Some([sport, dport]) => Continue((Port(sport), Port(dport), 0)),
            None => drop(Reason::Malformed),
        },
        Proto::SCTP => match pkt.load::<[u16; 2]>(l4) {
            Some([sport, dport]) => Continue((Port(sport), Port(dport), sctp::flags(pkt, l4))),
            None => drop(Reason::Malformed),
        },
        _ => Continue((Port(0), Port(0), 0)),
    }
}

/// Gives a later fragment the ports of its datagram's first one; `false` if they are not known.
#[inline(always)]
pub fn recall_fragment<F: Family, T: Tables<F>>(tables: T, headers: &mut Headers<F::Addr>) -> bool {
    if headers.fragmented as u8 != Fragmented::Later as u8 {
        return true;
    }
    match tables.fragment(&F::fragment_key(&headers.tuple, headers.fragment_id)) {
        Some(Fragment { sport, dport }) => {
            headers.tuple.sport = sport;
            headers.tuple.dport = dport;
            true
        }
        None => false,
    }
}

/// Remembers the ports of a first fragment for the later ones. Only translated datagrams need it.
#[inline(always)]
pub fn remember_fragment<F: Family, T: Tables<F>>(tables: T, headers: &Headers<F::Addr>) {
    if headers.fragmented as u8 == Fragmented::First as u8 {
        let ports = Fragment { sport: headers.tuple.sport, dport: headers.tuple.dport };
        tables.remember_fragment(&F::fragment_key(&headers.tuple, headers.fragment_id), ports);
    }
}

/// Ends packets that are never ours, whatever the tables say.
#[inline(always)]
pub fn unicast<F: Family>(headers: &Headers<F::Addr>) -> Step<()> {
    if F::is_link_scoped(headers.tuple.dst) { pass() } else { Continue(()) }
}
