//! Tunnels to nodes on other segments: VXLAN (RFC 7348) over IPv4.
//!
//! At tc the packet is sent to the VXLAN device with the tunnel's key, and the kernel writes the outer headers. XDP writes them itself, behind
//! everything else, since they move the packet. What comes out of a tunnel is decapsulated by the kernel and met by the device's own
//! hook. VLAN tags of the inner frame are not taken off: at XDP tagged frames do not enter tunnels.

use abi::{
    Proto, Reason,
    route::{Nexthop, TUNNEL_MAC, TUNNEL_OVERHEAD, VXLAN_PORT},
};

use crate::{
    family::{Family, V4},
    flow, nat,
    packet::Packet,
    parse::{ETHERTYPE_IPV4, Headers},
    tables::Common,
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Where the outer UDP header and the VXLAN header are.
const UDP: usize = ETHERNET + V4::HEADER;
const VXLAN: usize = UDP + 8;
/// "The network identifier is valid" (RFC 7348, 5).
const VALID: u32 = 0x0800_0000;
/// Source ports of outer packets: the range that RFC 7348, 5 recommends, so that flows spread over queues.
const FIRST_PORT: u16 = 49_152;
const PORT_MASK: u32 = 0x3fff;

const _: () = assert!(VXLAN + 8 == TUNNEL_OVERHEAD as usize);

/// At tc: the verdict for a packet into the tunnel.
#[inline(never)]
pub fn enter<P: Packet>(pkt: &mut P, hop: &Nexthop, vni: u32) -> Packed {
    nat::frame(pkt, TUNNEL_MAC, TUNNEL_MAC);
    if pkt.set_tunnel(vni, hop.tunnel) {
        Verdict::Redirect(hop.ifindex).into()
    } else {
        Verdict::Drop(Reason::Unreachable).into()
    }
}

/// At XDP: puts the finished packet into the tunnel, and gives the verdict for the outer one. `headers` are the packet's as it came.
#[inline(never)]
pub fn wrap<F: Family, P: Packet, T: Common>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    hop: &Nexthop,
    vni: u32,
) -> Packed {
    let config = tables.config();
    let spread = flow::signature::<F>(config.hash_seed, &headers.tuple);
    // As long as the frame is, whatever its header claims.
    let inner = pkt.len();
    nat::frame(pkt, TUNNEL_MAC, TUNNEL_MAC);
    if headers.l3 != ETHERNET || config.snat4.0 == 0 || !pkt.grow_front(usize::from(TUNNEL_OVERHEAD)) {
        return Verdict::Drop(Reason::Unreachable).into();
    }
    let len = (inner + 16) as u16;
    nat::frame(pkt, hop.smac, hop.dmac);
    pkt.store(ETHERNET - 2, ETHERTYPE_IPV4);
    V4::write_header(pkt, ETHERNET, (config.snat4, abi::Ip4(hop.tunnel)), Proto::UDP, len);
    let sport = FIRST_PORT + ((spread ^ spread >> 16) & PORT_MASK) as u16;
    // Without a checksum, as RFC 7348, 4 has it for IPv4: the inner packet has its own.
    pkt.store(UDP, [sport.to_be(), VXLAN_PORT.to_be(), len.to_be(), 0]);
    pkt.store(VXLAN, [VALID.to_be(), (vni << 8).to_be()]);
    let back = hop.underlay == pkt.ifindex();
    if back { Verdict::Transmit.into() } else { Verdict::Redirect(hop.underlay).into() }
}
