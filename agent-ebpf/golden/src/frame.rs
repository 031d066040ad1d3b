//! Packets from text, with all checksums computed in full.
//!
//! `client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S +12`: frame addresses, hop count, protocol, ends, then words:
//! TCP flags (letters of `FSRPA`), `+n` bytes of payload, `seq=n`, `ack=n`, `vlan=n` (twice for two tags), `nosum` (UDP
//! without a checksum), `options` (IPv4 options, or an IPv6 destination options header), `frag=id:offset` or
//! `frag=id:offset+` (more follow), `nodf` (IPv4: may be fragmented), `mss=n` (a TCP option, `odd` before: at an odd place), `cut=n`
//! (only the frame's first `n` bytes), `at=n:byte` (another byte, in hexadecimal, at a place), `vxlan=n` (the frame travels in network `n` of the tunnel to
//! node 4). SCTP's `S`, `SA`, `F` and `R` are INIT, INIT ACK, SHUTDOWN and ABORT, without them the chunk is DATA. Protocols `unreach`
//! (port unreachable) and `toobig` (fragmentation needed, packet too big; `size=n`) quote another packet: see [`crate::case::Talk`].

use std::net::{IpAddr, SocketAddr};

use abi::{Mac, route::TUNNEL_MAC};
use pipeline::{Packet, packet::Mend, parse::tcp};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::world;

/// A packet, described.
#[derive(Clone, Debug)]
pub struct Spec {
    smac: Mac,
    dmac: Mac,
    ttl: u8,
    proto: String,
    src: SocketAddr,
    dst: SocketAddr,
    flags: u8,
    payload: usize,
    seq: u32,
    ack: u32,
    vlans: Vec<u16>,
    no_sum: bool,
    options: bool,
    /// Identification, offset in bytes, whether more follow.
    fragment: Option<(u16, u16, bool)>,
    may_fragment: bool,
    /// Largest segment size, and whether it stands at an odd place.
    mss: Option<u16>,
    odd: bool,
    /// What a "too big" tells.
    size: u16,
    cut: Option<usize>,
    other_byte: Option<(usize, u8)>,
    vxlan: Option<u32>,
}

fn end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|e| format!("address {text:?}: {e}"))
}

impl Spec {
    /// Reads a packet's line.
    ///
    /// # Errors
    /// Names the word that is not understood.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let mut next = |what: &str| words.next().ok_or_else(|| format!("{line:?}: no {what}"));
        let (smac, dmac) = next("frame addresses")?.split_once('>').ok_or("frame addresses: no >")?;
        let known =
            |name: &str| world::mac(name).ok_or_else(|| format!("frame address {name:?} is not known"));
        let ttl = next("hop count")?.parse().map_err(|e| format!("hop count: {e}"))?;
        let proto = next("protocol")?.to_owned();
        let (src, dst) = next("addresses")?.split_once('>').ok_or("addresses: no >")?;
        let mut spec = Self {
            smac: known(smac)?,
            dmac: known(dmac)?,
            ttl,
            proto,
            src: end(src)?,
            dst: end(dst)?,
            flags: 0,
            payload: 0,
            seq: 1000,
            ack: 0,
            vlans: Vec::new(),
            no_sum: false,
            options: false,
            fragment: None,
            may_fragment: false,
            mss: None,
            odd: false,
            size: 1280,
            cut: None,
            other_byte: None,
            vxlan: None,
        };
        for word in words {
            spec.word(word)?;
        }
        Ok(spec)
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let number = |text: &str| text.parse::<u32>().map_err(|e| format!("{word:?}: {e}"));
        match word.split_once('=') {
            Some(("seq", n)) => self.seq = number(n)?,
            Some(("ack", n)) => self.ack = number(n)?,
            Some(("vlan", n)) => self.vlans.push(number(n)? as u16),
            Some(("frag", text)) => {
                let more = text.ends_with('+');
                let (id, offset) = text.trim_end_matches('+').split_once(':').ok_or("frag: no :")?;
                self.fragment = Some((number(id)? as u16, number(offset)? as u16, more));
            }
            Some(("mss", n)) => self.mss = Some(number(n)? as u16),
            Some(("size", n)) => self.size = number(n)? as u16,
            Some(("cut", n)) => self.cut = Some(number(n)? as usize),
            Some(("vxlan", n)) => self.vxlan = Some(number(n)?),
            Some(("at", text)) => {
                let (place, byte) = text.split_once(':').ok_or("at: no :")?;
                let byte = u8::from_str_radix(byte.trim_start_matches("0x"), 16);
                let byte = byte.map_err(|e| format!("{word:?}: {e}"))?;
                self.other_byte = Some((number(place)? as usize, byte));
            }
            None if word == "nodf" => self.may_fragment = true,
            None if word == "odd" => self.odd = true,
            None if word == "nosum" => self.no_sum = true,
            None if word == "options" => self.options = true,
            None if word.starts_with('+') => self.payload = number(&word[1..])? as usize,
            None => {
                for letter in word.chars() {
                    self.flags |= match letter {
                        'F' => tcp::FIN,
                        'S' => tcp::SYN,
                        'R' => tcp::RST,
                        'P' => 0x08,
                        'A' => tcp::ACK,
                        _ => return Err(format!("word {word:?} is not understood")),
                    };
                }
            }
            Some(_) => return Err(format!("word {word:?} is not understood")),
        }
        Ok(())
    }

    /// The same packet in IPv6.
    pub fn to_v6(&self) -> Self {
        let map = |end: SocketAddr| SocketAddr::new(world::to_v6(end.ip()), end.port());
        Self { src: map(self.src), dst: map(self.dst), ..self.clone() }
    }

    /// Whether the packet quotes another one.
    pub fn is_error(&self) -> bool {
        matches!(self.proto.as_str(), "unreach" | "toobig")
    }

    /// The same packet with the hop count of an untagged frame.
    pub fn with_hops_of(&self, frame: &[u8]) -> Self {
        Self { ttl: frame[if self.src.is_ipv6() { 21 } else { 22 }], ..self.clone() }
    }

    /// The packet's bytes. `quoted` is the packet that an ICMP error is about.
    pub fn build(&self, quoted: &[u8]) -> Vec<u8> {
        let mut frame = self.frame(quoted);
        if let Some((place, byte)) = self.other_byte {
            frame[place] = byte;
        }
        frame.truncate(self.cut.unwrap_or(frame.len()));
        match self.vxlan {
            Some(vni) => tunnelled(vni, frame),
            None => frame,
        }
    }

    /// Whether the packet travels in a tunnel.
    pub const fn is_tunnelled(&self) -> bool {
        self.vxlan.is_some()
    }

    fn frame(&self, quoted: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.dmac.bytes());
        frame.extend(self.smac.bytes());
        for (i, tag) in self.vlans.iter().enumerate() {
            let outer = self.vlans.len() == 2 && i == 0;
            frame.extend(if outer { 0x88a8_u16 } else { 0x8100 }.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let six = self.src.is_ipv6();
        frame.extend(if six { 0x86dd_u16 } else { 0x0800 }.to_be_bytes());
        let (proto, body) = self.transport(quoted, frame.len());
        let header = if six { self.ipv6(proto, body.len()) } else { self.ipv4(proto, body.len()) };
        frame.extend(header);
        frame.extend(body);
        frame
    }

    fn later_fragment(&self) -> bool {
        self.fragment.is_some_and(|(_, offset, _)| offset != 0)
    }

    /// Type of the SCTP chunk that does what TCP's flags would: INIT, INIT ACK, SHUTDOWN, ABORT, DATA (RFC 9260, 3.2).
    fn sctp_chunk(&self) -> u8 {
        match self.flags {
            tcp::SYN => 1,
            flags if flags & tcp::SYN != 0 => 2,
            flags if flags & tcp::FIN != 0 => 7,
            flags if flags & tcp::RST != 0 => 6,
            _ => 0,
        }
    }

    fn transport(&self, quoted: &[u8], link: usize) -> (u8, Vec<u8>) {
        let payload: Vec<u8> = (0..self.payload).map(|i| i as u8).collect();
        let six = self.src.is_ipv6();
        let icmp = if six { 58 } else { 1 };
        let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (proto, at, mut body) = match self.proto.as_str() {
            "tcp" => {
                let window: u16 = if self.flags & tcp::RST != 0 { 0 } else { 1024 };
                let options = self.tcp_options();
                let words = (20 + options.len() as u8) / 4;
                let rest = [&self.seq.to_be_bytes()[..], &self.ack.to_be_bytes(), &[words << 4, self.flags]]
                    .concat();
                (6, Some(16), [&ports[..], &rest, &window.to_be_bytes(), &[0; 4], &options].concat())
            }
            "udp" => (17, Some(6), [&ports[..], &(8 + self.payload as u16).to_be_bytes(), &[0; 2]].concat()),
            kind @ ("echo" | "echo-reply") => {
                let (request, reply) = if six { (128, 129) } else { (8, 0) };
                let kind = if kind == "echo" { request } else { reply };
                (icmp, Some(2), vec![kind, 0, 0, 0, 0, 7, 0, 1])
            }
            kind @ ("unreach" | "toobig") => {
                // Behind a fragment header, next header 44, there are eight bytes more.
                let quote = if !six { 28 } else { 48 + 8 * usize::from(quoted.get(link + 6) == Some(&44)) };
                let kind = match (kind, six) {
                    ("unreach", false) => [3, 3, 0, 0, 0, 0, 0, 0],
                    ("unreach", true) => [1, 4, 0, 0, 0, 0, 0, 0],
                    (_, false) => [3, 4, 0, 0, 0, 0, (self.size >> 8) as u8, self.size as u8],
                    (_, true) => [2, 0, 0, 0, 0, 0, (self.size >> 8) as u8, self.size as u8],
                };
                (icmp, Some(2), [&kind[..], &quoted[link..link + quote]].concat())
            }
            "sctp" => {
                let len = 4 + self.payload as u16;
                let chunk = [&[self.sctp_chunk(), 3][..], &len.to_be_bytes()].concat();
                (132, None, [&ports[..], &self.seq.to_be_bytes(), &[0; 4], &chunk].concat())
            }
            other => (other.parse().unwrap_or(255), None, Vec::new()),
        };
        if self.later_fragment() {
            return (proto, payload);
        }
        body.extend(payload);
        if proto == 132 {
            let sum = crc32c(&body);
            body[8..12].copy_from_slice(&sum.to_le_bytes());
        }
        if let Some(at) = at
            && !(self.no_sum && proto == 17)
        {
            let pseudo = if proto == 1 { 0 } else { self.pseudo(proto, body.len()) };
            let sum = match !fold(pseudo + sum(&body)) {
                0 if proto == 17 => u16::MAX,
                sum => sum,
            };
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        (proto, body)
    }

    fn tcp_options(&self) -> Vec<u8> {
        match self.mss {
            Some(mss) if self.odd => [&[1, 2, 4][..], &mss.to_be_bytes(), &[1, 1, 0]].concat(),
            Some(mss) => [&[2, 4][..], &mss.to_be_bytes()].concat(),
            None => Vec::new(),
        }
    }

    fn pseudo(&self, proto: u8, len: usize) -> u64 {
        sum(&octets(self.src.ip())) + sum(&octets(self.dst.ip())) + u64::from(proto) + len as u64
    }

    fn ipv4(&self, proto: u8, body: usize) -> Vec<u8> {
        let words: u8 = if self.options { 6 } else { 5 };
        let len = u16::from(words) * 4 + body as u16;
        let (id, field) = match self.fragment {
            Some((id, offset, more)) => (id, (offset / 8) | if more { 0x2000 } else { 0 }),
            None => (0, if self.may_fragment { 0 } else { 0x4000 }),
        };
        let mut header = vec![0x40 | words, 0];
        header.extend([len.to_be_bytes(), id.to_be_bytes(), field.to_be_bytes()].concat());
        header.extend([self.ttl, proto, 0, 0]);
        header.extend(octets(self.src.ip()));
        header.extend(octets(self.dst.ip()));
        if self.options {
            header.extend([1; 4]);
        }
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6(&self, proto: u8, body: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut next = proto;
        if let Some((id, offset, more)) = self.fragment {
            extensions = vec![next, 0];
            extensions.extend(((offset & !7) | u16::from(more)).to_be_bytes());
            // The identification is compared as the field lies in the packet; IPv4's has 16 bits.
            extensions.extend(u32::from(id).to_be_bytes());
            next = 44;
        }
        if self.options {
            extensions.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
            next = 60;
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((extensions.len() + body) as u16).to_be_bytes());
        header.extend([next, self.ttl]);
        header.extend(octets(self.src.ip()));
        header.extend(octets(self.dst.ip()));
        header.extend(extensions);
        header
    }
}

/// The frame inside VXLAN from node 1 to node 4 (RFC 7348, 5), inner frame addresses included. The outer source port is left zero.
fn tunnelled(vni: u32, mut inner: Vec<u8>) -> Vec<u8> {
    inner[..12].copy_from_slice(&[TUNNEL_MAC.bytes(), TUNNEL_MAC.bytes()].concat());
    let inner = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), &inner].concat();
    let line = format!("uplink>gateway 64 udp 172.30.0.11:0>172.30.0.14:4789 nosum +{}", inner.len());
    let mut outer = Spec::parse(&line).map(|spec| spec.frame(&[])).unwrap_or_default();
    outer[42..].copy_from_slice(&inner);
    outer
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the IP header's and the transport's checksums of an untagged TCP or UDP packet without extension headers are
/// what a full computation gives.
pub fn checksums_are_right(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let (header, addresses, proto) = match ip[0] >> 4 {
        4 => (usize::from(ip[0] & 15) * 4, &ip[12..20], ip[9]),
        _ => (40, &ip[8..40], ip[6]),
    };
    let body = &ip[header..];
    let pseudo = sum(addresses) + u64::from(proto) + body.len() as u64;
    let header_right = ip[0] >> 4 != 4 || fold(sum(&ip[..header])) == u16::MAX;
    header_right && fold(pseudo + sum(body)) == u16::MAX
}

/// A packet on the host, as the stages see it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Whether the hook is XDP.
    pub xdp: bool,
    /// The next hop that XDP has noted.
    pub note: Option<u32>,
    /// Payload of the segments that the packet will be cut into, zero if it is one.
    pub segment: u32,
    /// Network identifier and other end of the tunnel that the packet goes into.
    pub tunnel: Option<(u32, u32)>,
}

impl Frame {
    /// A packet that came by an interface.
    pub const fn new(bytes: Vec<u8>, ifindex: u32) -> Self {
        Self { bytes, ifindex, xdp: false, note: None, segment: 0, tunnel: None }
    }
}

impl Packet for Frame {
    fn is_at_xdp(&self) -> bool {
        self.xdp
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn pull(&mut self, _len: usize) {}

    fn load<T: FromBytes + Copy>(&self, at: usize) -> Option<T> {
        T::read_from_prefix(self.bytes.get(at..)?).ok().map(|(value, _)| value)
    }

    fn store<T: IntoBytes + Immutable>(&mut self, at: usize, value: T) {
        let bytes = value.as_bytes();
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn mend(&mut self, at: usize, sums: Mend) {
        if let Some(stored) = self.load::<u16>(at) {
            self.store(at, sums.applied(stored));
        }
    }

    fn resize(&mut self, len: usize) -> bool {
        self.bytes.resize(len, 0);
        true
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn mtu(&self) -> u16 {
        world::TUNNEL_MTU
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn grow_front(&mut self, bytes: usize) -> bool {
        self.bytes.splice(0..0, vec![0; bytes]);
        true
    }

    fn set_tunnel(&mut self, vni: u32, remote: u32) -> bool {
        self.tunnel = Some((vni, remote));
        true
    }

    fn note(&self) -> Option<u32> {
        self.note
    }
}
