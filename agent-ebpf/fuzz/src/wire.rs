//! The oracle: where a packet's headers lie and whether its checksums are right, computed in full.
//!
//! Written from the formats (RFC 791, 8200, 9293, 768, 792, 4443, IEEE 802.1Q), sharing nothing with the stages that it judges.

/// Where the parts of an IP packet lie in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The IP header.
    pub l3: usize,
    /// The transport header, behind all extension headers.
    pub l4: usize,
    /// One past the packet's last byte: what follows is padding of the frame.
    pub end: usize,
    /// Protocol of the transport header.
    pub proto: u8,
    /// IPv6.
    pub six: bool,
    /// A part of a datagram.
    pub fragment: bool,
    /// A part that does not begin with a transport header.
    pub later: bool,
    /// The pseudo header's destination is not the IP header's (a routing header).
    pub detour: bool,
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Where the IP header lies, and its EtherType.
fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = 12;
    let mut kind = word(frame, at)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            at += 4;
            kind = word(frame, at)?;
        }
    }
    Some((at + 2, kind))
}

/// Whether an IP header says that the packet is longer than the frame. A length that is shorter than the header itself is wrong, too,
/// but says nothing of the frame; the stages leave it to the receiver.
pub fn is_cut_short(frame: &[u8]) -> bool {
    let claimed = |(l3, kind)| match kind {
        0x0800 => Some(l3 + usize::from(word(frame, l3 + 2)?)),
        0x86dd => Some(l3 + 40 + usize::from(word(frame, l3 + 4)?)),
        _ => None,
    };
    network(frame).and_then(claimed).is_none_or(|end| end > frame.len())
}

impl Layout {
    /// Finds the headers; `None` if the frame holds no complete IP packet.
    pub fn of(frame: &[u8]) -> Option<Self> {
        match network(frame)? {
            (l3, 0x0800) => Self::four(frame, l3),
            (l3, 0x86dd) => Self::six(frame, l3),
            _ => None,
        }
    }

    fn four(frame: &[u8], l3: usize) -> Option<Self> {
        let first = *frame.get(l3)?;
        let (header, total) = (usize::from(first & 15) * 4, length(word(frame, l3 + 2)?, frame.len() - l3));
        let proto = *frame.get(l3 + 9)?;
        let field = word(frame, l3 + 6)?;
        let end = l3 + total;
        if first >> 4 != 4 || header < 20 || total < header || frame.len() < end {
            return None;
        }
        let (fragment, later) = (field & 0x3fff != 0, field & 0x1fff != 0);
        Some(Self { l3, l4: l3 + header, end, proto, six: false, fragment, later, detour: false })
    }

    fn six(frame: &[u8], l3: usize) -> Option<Self> {
        let payload = word(frame, l3 + 4)?;
        let end = l3 + 40 + length(payload, frame.len().saturating_sub(l3 + 40));
        if *frame.get(l3)? >> 4 != 6 || frame.len() < end {
            return None;
        }
        let mut layout = Self {
            l3,
            l4: l3 + 40,
            end,
            proto: *frame.get(l3 + 6)?,
            six: true,
            fragment: false,
            later: false,
            detour: false,
        };
        while !layout.later {
            let length = match layout.proto {
                0 | 43 | 60 => 8 + usize::from(*frame.get(layout.l4 + 1)?) * 8,
                44 => 8,
                _ => break,
            };
            if layout.proto == 44 {
                let field = word(frame, layout.l4 + 2)?;
                layout.fragment |= field & 0xfff9 != 0;
                layout.later = field & 0xfff8 != 0;
            }
            layout.detour |= layout.proto == 43;
            layout.proto = *frame.get(layout.l4)?;
            layout.l4 += length;
            if layout.l4 > end {
                return None;
            }
        }
        Some(layout)
    }

    /// Where the source address lies, and an address's length; the destination follows it.
    fn addresses(&self) -> (usize, usize) {
        if self.six { (self.l3 + 8, 16) } else { (self.l3 + 12, 4) }
    }

    /// Where the transport's checksum lies.
    fn sum_at(&self) -> Option<usize> {
        let offset = match (self.proto, self.six) {
            (TCP, _) => 16,
            (UDP, _) => 6,
            (ICMP, false) | (ICMPV6, true) => 2,
            _ => return None,
        };
        (!self.fragment && !self.detour && self.l4 + offset + 2 <= self.end).then_some(self.l4 + offset)
    }

    /// Where the payload begins, of TCP and UDP in one piece.
    pub fn payload(&self, frame: &[u8]) -> Option<usize> {
        let (header, least) = match self.proto {
            TCP => (usize::from(frame.get(self.l4 + 12)? >> 4) * 4, 20),
            UDP => (8, 8),
            _ => return None,
        };
        let at = self.l4 + header;
        (!self.fragment && header >= least && at <= self.end).then_some(at)
    }

    fn pseudo(&self, frame: &[u8]) -> u64 {
        let (at, length) = self.addresses();
        if self.proto == ICMP {
            return 0;
        }
        add(&frame[at..at + 2 * length]) + u64::from(self.proto) + (self.end - self.l4) as u64
    }

    /// Whether the checksums are what a full computation gives; `None` if that cannot be said of this packet.
    pub fn right(&self, frame: &[u8]) -> Option<bool> {
        if !self.six && fold(add(&frame[self.l3..self.l4])) != u16::MAX {
            return Some(false);
        }
        let at = self.sum_at()?;
        let none = self.proto == UDP && frame[at..at + 2] == [0, 0];
        // A tunnel's datagrams may do without in IPv6, too (RFC 6935).
        if none && (!self.six || word(frame, self.l4 + 2) == Some(abi::route::VXLAN_PORT)) {
            return Some(true);
        }
        if self.proto == UDP && usize::from(word(frame, self.l4 + 4)?) != self.end - self.l4 {
            return None;
        }
        Some(!none && fold(self.pseudo(frame) + add(&frame[self.l4..self.end])) == u16::MAX)
    }

    /// Makes the checksums right.
    pub fn mend(&self, frame: &mut [u8]) {
        if !self.six {
            frame[self.l3 + 10..self.l3 + 12].fill(0);
            let sum = !fold(add(&frame[self.l3..self.l4]));
            frame[self.l3 + 10..self.l3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let Some(at) = self.sum_at() else { return };
        frame[at..at + 2].fill(0);
        let sum = match !fold(self.pseudo(frame) + add(&frame[self.l4..self.end])) {
            0 if self.proto == UDP => u16::MAX,
            sum => sum,
        };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Exchanges sender and receiver in all headers. No checksum changes by that.
    pub fn turn(&self, frame: &mut [u8]) {
        let swap = |frame: &mut [u8], at: usize, length: usize| {
            for i in at..at + length {
                frame.swap(i, i + length);
            }
        };
        swap(frame, 0, 6);
        let (at, length) = self.addresses();
        swap(frame, at, length);
        if matches!(self.proto, TCP | UDP) && !self.later && self.l4 + 4 <= self.end {
            swap(frame, self.l4, 2);
        }
    }

    /// The two addresses, sender first.
    pub fn ends<'a>(&self, frame: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (at, length) = self.addresses();
        frame[at..at + 2 * length].split_at(length)
    }

    /// Whether the packet is a tunnel's datagram.
    pub fn is_tunnel(&self, frame: &[u8]) -> bool {
        self.proto == UDP && word(frame, self.l4 + 2) == Some(abi::route::VXLAN_PORT)
    }
}

/// What a length field says of `rest` bytes: zero means all of them, as in packets that are longer than the field can say and
/// that the stack will cut (`iph_totlen` in Linux, RFC 2675 for the zero in IPv6).
fn length(field: u16, rest: usize) -> usize {
    if field == 0 { rest } else { usize::from(field) }
}

fn add(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use golden::frame::Spec;

    fn packet(line: &str, six: bool) -> Vec<u8> {
        let spec = Spec::parse(line).unwrap();
        if six { spec.to_v6() } else { spec }.build(&[])
    }

    const LINES: &[&str] = &[
        "pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S +7",
        "client>uplink 64 udp 172.30.0.3:4000>172.30.0.11:30080 +40 vlan=7",
        "pod5>host5 64 echo 10.244.1.5:0>10.244.1.6:0",
        "pod5>host5 64 udp 10.244.1.5:40000>10.96.0.10:80 +9 options",
    ];

    #[test]
    fn checksums_of_golden_packets_are_right_and_one_changed_byte_is_seen() {
        for (line, six) in LINES.iter().flat_map(|line| [(line, false), (line, true)]) {
            let mut frame = packet(line, six);
            let layout = Layout::of(&frame).unwrap();
            assert_eq!(layout.right(&frame), Some(true), "{line} {six}");
            *frame.last_mut().unwrap() ^= 1;
            assert_eq!(layout.right(&frame), Some(false), "{line} {six}");
            layout.mend(&mut frame);
            assert_eq!(layout.right(&frame), Some(true), "{line} {six}");
            layout.turn(&mut frame);
            assert_eq!(layout.right(&frame), Some(true), "{line} {six}");
        }
    }

    #[test]
    fn what_is_cut_short_has_no_layout() {
        for six in [false, true] {
            let frame = packet(LINES[0], six);
            assert_eq!(Layout::of(&frame[..frame.len() - 1]), None);
        }
    }

    #[test]
    fn nothing_can_be_said_of_a_part_of_a_datagram() {
        for six in [false, true] {
            let frame = packet("pod5>host5 64 udp 10.244.1.5:0>10.244.1.6:0 frag=7:1480 +20", six);
            let layout = Layout::of(&frame).unwrap();
            assert!(layout.fragment && layout.later);
            assert_eq!(layout.right(&frame), None);
        }
    }
}
