//! Sizes: packets that are too large for the way they would take, and the largest segment that TCP connections may use through
//! a tunnel.
//!
//! A way's size is its next hop's ([`abi::route::Nexthop::mtu`]). Fragments are never made here: what may be fragmented is left to the
//! stack, or at XDP, which has no way back to it for a translated packet, dropped.

use abi::{Proto, Reason};

use crate::{
    answer, checksum,
    packet::{Mend, Packet},
    parse::{Fragmented, Headers, tcp},
    reject,
    route::{Target, To},
    tables::Tables,
    verdict::{Packed, Verdict},
    wire::Wire,
};

/// Bytes of TCP's and UDP's headers without options.
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
/// Where TCP's checksum is.
const TCP_CHECKSUM: usize = 16;
/// Where TCP's data offset is.
const TCP_OFFSET: usize = 12;
/// Options walked in search of the largest segment size, which all known stacks put first.
const MAX_OPTIONS: usize = 3;
/// TCP option kinds (RFC 9293, 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
/// Bytes of that option.
const SEGMENT_SIZE_LEN: u8 = 4;

/// What becomes of a packet that is larger than its next hop takes. It goes on if it will be cut into segments that fit; otherwise
/// its sender is told the size. If it may be fragmented, then the stack does that, or the tunnel's outer packet is fragmented.
#[inline(never)]
pub fn judge<F: Wire, P: Packet, T: Tables<F>>(
    pkt: &mut P,
    tables: T,
    headers: &Headers<F::Addr>,
    target: &mut Target,
    xdp: bool,
) -> Packed {
    let mtu = target.hop.mtu;
    let payload = pkt.segment();
    if !matches!(target.to, To::Link | To::Tunnel) || payload != 0 && fits::<F, P>(pkt, headers, payload, mtu)
    {
        return Packed::CONTINUE;
    }
    let may_fragment = F::may_fragment(pkt, headers);
    if may_fragment && !xdp {
        if target.is(To::Link) {
            target.to = To::Stack;
        }
        return Packed::CONTINUE;
    }
    let quotable = answer::quotable::<F, P>(pkt, headers);
    let error = headers.tuple.proto == F::ICMP && pkt.load::<u8>(headers.l4).is_none_or(F::is_error);
    if may_fragment || !quotable || error || !reject::complain::<F, P>(pkt, headers, F::TOO_BIG, mtu) {
        return Verdict::Drop(Reason::TooBig).into();
    }
    tables.count_drop(Reason::TooBig);
    answer::back::<F, P, T>(pkt, tables, headers)
}

/// Whether segments with this payload, and the packet's own headers, fit.
#[inline(always)]
fn fits<F: Wire, P: Packet>(pkt: &P, headers: &Headers<F::Addr>, payload: u32, mtu: u16) -> bool {
    let header = if headers.tuple.proto == Proto::TCP {
        pkt.load::<u8>(headers.l4 + TCP_OFFSET).map_or(TCP_HEADER, |b| u32::from(b >> 4) * 4)
    } else {
        UDP_HEADER
    };
    (headers.l4 - headers.l3) as u32 + header + payload <= u32::from(mtu)
}

/// Lowers the largest segment size that a SYN or SYN-ACK announces to `mss`, if that is not zero.
#[inline(always)]
pub fn clamp<F: Wire, P: Packet>(pkt: &mut P, headers: &Headers<F::Addr>, mss: u16) {
    let first = headers.fragmented as u8 != Fragmented::Later as u8;
    if mss != 0 && first && headers.tuple.proto == Proto::TCP && headers.tcp & tcp::SYN != 0 {
        let segment = (headers.l3 + headers.len as usize).saturating_sub(headers.l4);
        clamp_option(pkt, headers.l4, segment, mss);
    }
}

/// The largest segment in packets of `mtu` bytes, as RFC 9293, 3.7.1 counts it: without options.
#[inline(always)]
pub fn segment<F: Wire>(mtu: u16) -> u16 {
    mtu.saturating_sub(F::HEADER as u16 + TCP_HEADER as u16)
}

/// Lowers the largest segment size in the TCP header at `l4`, which the IP header says has `segment` bytes with its data, to `mss`.
#[inline(never)]
fn clamp_option<P: Packet>(pkt: &mut P, l4: usize, segment: usize, mss: u16) {
    pkt.pull(l4 + 60);
    let Some(offset) = pkt.load::<u8>(l4 + TCP_OFFSET) else { return };
    let end = usize::from(offset >> 4) * 4;
    if end > segment {
        return;
    }
    let mut at = TCP_HEADER as usize;
    for _ in 0..MAX_OPTIONS {
        if at + 4 > end {
            return;
        }
        let place = l4 + (at & 63);
        let Some([kind, len]) = pkt.load::<[u8; 2]>(place) else { return };
        match kind {
            END => return,
            NO_OPERATION => at += 1,
            SEGMENT_SIZE if len == SEGMENT_SIZE_LEN => {
                let Some(announced) = pkt.load::<u16>(place + 2) else { return };
                if u16::from_be(announced) > mss {
                    pkt.store(place + 2, mss.to_be());
                    let change = checksum::word(announced, mss.to_be());
                    // At an odd place the two bytes belong to two words of the sum.
                    let change = if at & 1 != 0 { change.swap_bytes() } else { change };
                    pkt.mend(l4 + TCP_CHECKSUM, Mend { ports: change, ..Mend::default() });
                }
                return;
            }
            _ if len < 2 => return,
            _ => at += usize::from(len),
        }
    }
}
