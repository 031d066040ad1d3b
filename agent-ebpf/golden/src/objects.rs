//! Services from text to table entries: what the agent's `service` crate does, as small as the cases need it.
//!
//! `10.96.0.10:80/tcp -> 10.244.1.5:8080 10.244.2.9:8080` is a cluster IP, `node:30080/udp ..` a node port,
//! `external 203.0.113.9:80/tcp ..` an external address; `host-port` before one of the latter two makes it a pod's. Before the arrow:
//! `internal-local`, `external-local`, `affinity=SECONDS`, `ranges=NETWORK/LENGTH,..`, `maglev`, `round-robin`, `least-connections`. A
//! backend in 10.244.1.0/24 or on 172.30.0.11 is local; one on 172.30.0.0/24 is a host-network one; `ADDRESS*n` has weight n.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use abi::{
    Ip4, Ip6, Port, Proto,
    backend::{self, Backend4, Backend6, GenerationLine, STATE_READY},
    frontend::{self, Frontend, FrontendKey4, FrontendKey6, SCOPE_EXACT, SCOPE_NODE_PORT},
    maps::{self, VIP_ROW, vip_bit},
    service::{CELLS_PER_LINE, MaglevLine, Run, Service, SlotLine, flags},
    source::{ALLOWED, SERVICE_BITS, SourceClient4, SourceClient6, SourceKey4, SourceKey6},
};
use zerocopy::IntoBytes;

use crate::{
    maglev,
    world::{self, Sink},
};

/// Allocates ids and publishes services.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    services: HashMap<String, u32>,
    backends: HashMap<SocketAddr, u32>,
    generations: HashMap<u32, u16>,
    lines: u32,
    maglev_lines: u32,
    bitmaps: [HashMap<usize, u64>; 4],
}

/// The kind of address that a service line names.
#[derive(Clone, Copy, Debug, Default)]
struct Address {
    external: bool,
    host_port: bool,
    source_ranges: bool,
}

impl Objects {
    /// Publishes a service, or publishes it anew with other backends. The backends it had before and has no more get
    /// another generation.
    ///
    /// # Errors
    /// Names the word that is not understood.
    pub fn service(&mut self, line: &str, six: bool, sink: &mut impl Sink) -> Result<(), String> {
        let (head, tail) = line.split_once("->").ok_or("service: no ->")?;
        let mut service = Service::default();
        let mut address = Address::default();
        let mut name = "";
        let mut ranges = Vec::new();
        for word in head.split_whitespace() {
            match (word, word.split_once('=')) {
                ("internal-local", _) => service.flags |= flags::INTERNAL_LOCAL,
                ("external-local", _) => service.flags |= flags::EXTERNAL_LOCAL,
                ("dsr", _) => service.flags |= flags::DSR,
                ("maglev", _) => service.flags |= flags::MAGLEV,
                ("round-robin", _) => service.flags |= flags::ROUND_ROBIN,
                ("least-connections", _) => service.flags |= flags::LEAST_CONNECTIONS,
                ("external", _) => address.external = true,
                ("host-port", _) => address.host_port = true,
                (_, Some(("affinity", seconds))) => {
                    service.flags |= flags::AFFINITY;
                    service.affinity_s = seconds.parse().map_err(|e| format!("{word:?}: {e}"))?;
                }
                (_, Some(("ranges", text))) => {
                    address.source_ranges = true;
                    ranges.extend(text.split(','));
                }
                _ => name = word,
            }
        }
        let ends = slots(tail)?;
        let local: Vec<_> = ends.iter().copied().filter(|end| is_local(end.ip())).collect();
        service.run_cluster = self.run(&ends, six, sink);
        service.run_local = self.run(&local, six, sink);
        if service.flags & flags::MAGLEV != 0 {
            service.maglev_cluster = self.maglev(&ends, service.run_cluster, sink);
            service.maglev_local = self.maglev(&local, service.run_local, sink);
        }
        let next = self.services.len() as u32 + 1;
        let id = *self.services.entry(name.to_owned()).or_insert(next);
        service.stats = id;
        for range in ranges {
            source_range(range, id, six, sink)?;
        }
        sink.put(maps::SVC.name, id.as_bytes(), service.as_bytes());
        self.frontend(name, address, id, six, sink)
    }

    fn maglev(&mut self, ends: &[SocketAddr], run: Run, sink: &mut impl Sink) -> Run {
        if ends.is_empty() {
            return Run::EMPTY;
        }
        let base = self.maglev_lines + 1;
        let cells = maglev::table(ends);
        for chunk in cells.chunks(CELLS_PER_LINE as usize) {
            let mut line = MaglevLine::default();
            line.cells[..chunk.len()].copy_from_slice(chunk);
            self.maglev_lines += 1;
            sink.put(maps::MAGLEV.name, self.maglev_lines.as_bytes(), line.as_bytes());
        }
        Run::new(base, cells.len() as u16, run.generation())
    }

    /// Marks a backend as gone: its flows must not be used for new work.
    ///
    /// # Errors
    /// If no service has named the backend.
    pub fn gone(&mut self, text: &str, six: bool, sink: &mut impl Sink) -> Result<(), String> {
        let end: SocketAddr = text.parse().map_err(|e| format!("backend {text:?}: {e}"))?;
        let index = *self.backends.get(&end).ok_or_else(|| format!("backend {text} is not known"))?;
        *self.generations.entry(index).or_default() += 1;
        self.backend(end, index, six, sink);
        Ok(())
    }

    fn run(&mut self, ends: &[SocketAddr], six: bool, sink: &mut impl Sink) -> Run {
        if ends.is_empty() {
            return Run::EMPTY;
        }
        let mut line = SlotLine::default();
        for (slot, end) in line.backends.iter_mut().zip(ends) {
            let next = self.backends.len() as u32 + 1;
            let index = *self.backends.entry(*end).or_insert(next);
            self.backend(*end, index, six, sink);
            *slot = index;
        }
        self.lines += 1;
        sink.put(maps::SLOTS.name, self.lines.as_bytes(), line.as_bytes());
        Run::new(self.lines, ends.len() as u16, 1)
    }

    fn backend(&self, end: SocketAddr, index: u32, six: bool, sink: &mut impl Sink) {
        let generation = self.generations.get(&index).copied().unwrap_or_default();
        let mut flags = 0;
        if is_local(end.ip()) {
            flags |= backend::flags::LOCAL;
        }
        if is_host(end.ip()) {
            flags |= backend::flags::HOST;
        }
        let port = Port::from_host(end.port());
        let mut line = GenerationLine::default();
        for (i, place) in (0..).zip(line.generations.iter_mut()) {
            *place = self.generations.get(&i).copied().unwrap_or_default();
        }
        if six {
            let entry = Backend6 {
                addr: v6(end.ip()),
                port,
                state: STATE_READY,
                weight: 1,
                generation,
                flags,
                ..Backend6::default()
            };
            sink.put(maps::BE6.name, index.as_bytes(), entry.as_bytes());
            sink.put(maps::BEGEN6.name, 0_u32.as_bytes(), line.as_bytes());
        } else {
            let entry = Backend4 {
                addr: v4(end.ip()),
                port,
                state: STATE_READY,
                weight: 1,
                generation,
                flags,
                ..Backend4::default()
            };
            sink.put(maps::BE4.name, index.as_bytes(), entry.as_bytes());
            sink.put(maps::BEGEN4.name, 0_u32.as_bytes(), line.as_bytes());
        }
    }

    fn frontend(
        &mut self,
        name: &str,
        address: Address,
        id: u32,
        six: bool,
        sink: &mut impl Sink,
    ) -> Result<(), String> {
        let (end, proto) = name.split_once('/').ok_or_else(|| format!("service {name:?}: no protocol"))?;
        let proto = match proto {
            "tcp" => Proto::TCP,
            "udp" => Proto::UDP,
            "sctp" => Proto::SCTP,
            _ => return Err(format!("protocol {proto:?}")),
        };
        let (end, scope) = match end.strip_prefix("node:") {
            Some(port) => (format!("0.0.0.0:{port}"), SCOPE_NODE_PORT),
            None => (end.to_owned(), SCOPE_EXACT),
        };
        let end: SocketAddr = end.parse().map_err(|e| format!("address {end:?}: {e}"))?;
        let node_port = scope == SCOPE_NODE_PORT;
        let mut flags = if address.external || node_port { frontend::flags::EXTERNAL } else { 0 };
        if node_port && !address.host_port {
            flags |= frontend::flags::NODE_PORT;
        }
        if address.source_ranges {
            flags |= frontend::flags::SOURCE_RANGES;
        }
        let row = Frontend { service: id, flags, _pad: 0 };
        put_frontend((end.ip(), end.port()), proto, scope, row, six, sink);
        if !node_port && !address.host_port {
            let icmp = if six { Proto::ICMP6 } else { Proto::ICMP };
            let vip = Frontend { service: 0, flags: frontend::flags::VIP, _pad: 0 };
            put_frontend((end.ip(), 0), icmp, SCOPE_EXACT, vip, six, sink);
        }
        if node_port {
            self.set_bit(proto.port_row(), end.port(), sink);
        } else if address.external {
            let mixed = if six { v6(end.ip()).mix() } else { v4(end.ip()).mix() };
            self.set_bit(VIP_ROW, vip_bit(mixed), sink);
        }
        Ok(())
    }

    fn set_bit(&mut self, row: u32, bit: u16, sink: &mut impl Sink) {
        let words = &mut self.bitmaps[row as usize];
        *words.entry(usize::from(bit / 64)).or_default() |= 1 << (bit % 64);
        let mut bitmap = [0_u64; 1024];
        for (word, value) in words.iter() {
            bitmap[*word] = *value;
        }
        sink.put(maps::PORTS.name, row.as_bytes(), bitmap.as_bytes());
    }
}

/// The slots of a service's backends: each as often as its weight says.
fn slots(text: &str) -> Result<Vec<SocketAddr>, String> {
    let mut slots = Vec::new();
    for word in text.split_whitespace() {
        let (end, weight) = word.split_once('*').unwrap_or((word, "1"));
        let end: SocketAddr = end.parse().map_err(|e| format!("backend {word:?}: {e}"))?;
        let weight = weight.parse().map_err(|e| format!("weight {word:?}: {e}"))?;
        slots.extend(std::iter::repeat_n(end, weight));
    }
    Ok(slots)
}

fn put_frontend(end: (IpAddr, u16), proto: Proto, scope: u8, row: Frontend, six: bool, sink: &mut impl Sink) {
    let port = Port::from_host(end.1);
    if six {
        let addr = if scope == SCOPE_NODE_PORT { Ip6::default() } else { v6(end.0) };
        let key = FrontendKey6 { addr, port, proto, scope, _pad: 0 };
        sink.put(maps::FE6.name, key.as_bytes(), row.as_bytes());
    } else {
        let key = FrontendKey4 { addr: v4(end.0), port, proto, scope };
        sink.put(maps::FE4.name, key.as_bytes(), row.as_bytes());
    }
}

/// Allows a range of clients. In IPv6 it is what the first and the last address of the range have in common.
fn source_range(text: &str, service: u32, six: bool, sink: &mut impl Sink) -> Result<(), String> {
    let (net, len) = text.split_once('/').ok_or_else(|| format!("range {text:?}: no length"))?;
    let net: Ipv4Addr = net.parse().map_err(|e| format!("range {text:?}: {e}"))?;
    let len: u32 = len.parse().map_err(|e| format!("range {text:?}: {e}"))?;
    if six {
        let host = u32::MAX.checked_shr(len).unwrap_or_default();
        let bits = |addr: u32| match world::to_v6(IpAddr::V4(addr.into())) {
            IpAddr::V6(addr) => u128::from(addr),
            IpAddr::V4(_) => 0,
        };
        let common = (bits(net.to_bits()) ^ bits(net.to_bits() | host)).leading_zeros();
        let client = SourceClient6 { service, addr: v6(IpAddr::V4(net)) };
        let key = SourceKey6 { prefix_len: SERVICE_BITS + common, client };
        sink.put(maps::SRCR6.name, key.as_bytes(), ALLOWED.as_bytes());
    } else {
        let client = SourceClient4 { service, addr: net.into() };
        let key = SourceKey4 { prefix_len: SERVICE_BITS + len, client };
        sink.put(maps::SRCR4.name, key.as_bytes(), ALLOWED.as_bytes());
    }
    Ok(())
}

fn is_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(four) if four.octets()[..3] == [10, 244, 1] || four.octets() == [172, 30, 0, 11])
}

fn is_host(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(four) if four.octets()[..2] == [172, 30])
}

fn v4(addr: IpAddr) -> Ip4 {
    match addr {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(_) => Ip4::default(),
    }
}

fn v6(addr: IpAddr) -> Ip6 {
    match world::to_v6(addr) {
        IpAddr::V6(six) => six.into(),
        IpAddr::V4(_) => Ip6::default(),
    }
}
