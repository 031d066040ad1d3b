//! Services from text to table entries: what the agent's `service` crate does, as small as the cases need it.
//!
//! `10.96.0.10:80/tcp -> 10.244.1.5:8080 10.244.2.9:8080` is a cluster IP, `node:30080/udp ..` a node port,
//! `external 203.0.113.9:80/tcp ..` an external address. Before the arrow: `internal-local`, `external-local`, `affinity=SECONDS`. A backend
//! in 10.244.1.0/24 or on 172.30.0.11 is local; one on 172.30.0.0/24 is a host-network one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use abi::{
    Ip4, Ip6, Port, Proto,
    backend::{self, Backend4, Backend6, GenerationLine, STATE_READY},
    frontend::{self, Frontend, FrontendKey4, FrontendKey6, SCOPE_EXACT, SCOPE_NODE_PORT},
    maps,
    service::{Run, Service, SlotLine, flags},
};
use zerocopy::IntoBytes;

use crate::world::{self, Sink};

/// Allocates ids and publishes services.
#[derive(Debug, Default)]
pub struct Objects {
    services: HashMap<String, u32>,
    backends: HashMap<SocketAddr, u32>,
    generations: HashMap<u32, u16>,
    lines: u32,
    ports: [HashMap<usize, u64>; 2],
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
        let mut external = false;
        let mut name = "";
        for word in head.split_whitespace() {
            match word {
                "internal-local" => service.flags |= flags::INTERNAL_LOCAL,
                "external-local" => service.flags |= flags::EXTERNAL_LOCAL,
                "external" => external = true,
                _ => match word.strip_prefix("affinity=") {
                    Some(seconds) => {
                        service.flags |= flags::AFFINITY;
                        service.affinity_s = seconds.parse().map_err(|e| format!("{word:?}: {e}"))?;
                    }
                    None => name = word,
                },
            }
        }
        let mut ends = Vec::new();
        for word in tail.split_whitespace() {
            ends.push(word.parse::<SocketAddr>().map_err(|e| format!("backend {word:?}: {e}"))?);
        }
        let local: Vec<_> = ends.iter().copied().filter(|end| is_local(end.ip())).collect();
        service.run_cluster = self.run(&ends, six, sink);
        service.run_local = self.run(&local, six, sink);
        let next = self.services.len() as u32 + 1;
        let id = *self.services.entry(name.to_owned()).or_insert(next);
        service.stats = id;
        sink.put(maps::SVC.name, id.as_bytes(), service.as_bytes());
        self.frontend(name, external, id, six, sink)
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
        external: bool,
        id: u32,
        six: bool,
        sink: &mut impl Sink,
    ) -> Result<(), String> {
        let (end, proto) = name.split_once('/').ok_or_else(|| format!("service {name:?}: no protocol"))?;
        let proto = match proto {
            "tcp" => Proto::TCP,
            "udp" => Proto::UDP,
            _ => return Err(format!("protocol {proto:?}")),
        };
        let (addr, scope) = match end.strip_prefix("node:") {
            Some(port) => (format!("0.0.0.0:{port}"), SCOPE_NODE_PORT),
            None => (end.to_owned(), SCOPE_EXACT),
        };
        let end: SocketAddr = addr.parse().map_err(|e| format!("address {addr:?}: {e}"))?;
        let port = Port::from_host(end.port());
        let external = external || scope == SCOPE_NODE_PORT;
        let value =
            Frontend { service: id, flags: if external { frontend::flags::EXTERNAL } else { 0 }, _pad: 0 };
        if six {
            let addr = if scope == SCOPE_NODE_PORT { Ip6::default() } else { v6(end.ip()) };
            let key = FrontendKey6 { addr, port, proto, scope, _pad: 0 };
            sink.put(maps::FE6.name, key.as_bytes(), value.as_bytes());
        } else {
            let key = FrontendKey4 { addr: v4(end.ip()), port, proto, scope };
            sink.put(maps::FE4.name, key.as_bytes(), value.as_bytes());
        }
        if external {
            let bits = &mut self.ports[proto.port_row() as usize];
            *bits.entry(usize::from(end.port() / 64)).or_default() |= 1 << (end.port() % 64);
            let mut bitmap = [0_u64; 1024];
            for (word, value) in bits.iter() {
                bitmap[*word] = *value;
            }
            sink.put(maps::PORTS.name, proto.port_row().as_bytes(), bitmap.as_bytes());
        }
        Ok(())
    }
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
