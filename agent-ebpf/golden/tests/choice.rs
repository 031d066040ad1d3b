//! Algorithms over many connections: shares of backends, and who moves when one goes. On the host; single choices are in
//! `cases/choice.txt`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use abi::{Ip4, Ip6, Port, Proto, backend::Load, frontend::Frontend, maps};
use golden::{memory::Memory, objects::Objects, world, world::Sink as _};
use pipeline::{
    Family, Tables, V4, V6,
    affinity::Origin,
    family::Tuple,
    service::{Client, select},
};
use zerocopy::IntoBytes as _;

/// Services are numbered from 1.
const FIRST: Frontend = Frontend { service: 1, flags: 0, _pad: 0 };
const CONNECTIONS: u16 = 20_000;

struct Node {
    memory: Memory,
    objects: Objects,
    six: bool,
}

impl Node {
    fn new(six: bool, service: &str) -> Self {
        let mut memory = Memory::new(world::config());
        world::furnish(&mut memory);
        let mut node = Self { memory, objects: Objects::default(), six };
        node.service(service);
        node
    }

    fn service(&mut self, line: &str) {
        self.objects.service(line, self.six, &mut self.memory).unwrap();
    }

    /// Backend (by its port) of each of [`CONNECTIONS`] connections from ever new ends, in order.
    fn connections(&self) -> Vec<u16> {
        let end = |i: u16| Port::from_host(1024 + i % 60_000);
        (0..CONNECTIONS)
            .map(|i| {
                let host = u32::from(i / 100);
                if self.six {
                    let src = Ip6([0xfd30_u32.to_be(), 0, 0, host.to_be()]);
                    chosen::<V6, _>(&self.memory, src, Ip6([0, 0, 0, 1]), end(i))
                } else {
                    chosen::<V4, _>(&self.memory, Ip4::from_host(0xc633_0000 + host), Ip4(1), end(i))
                }
            })
            .collect()
    }
}

fn chosen<F: Family, T: Tables<F>>(tables: T, src: F::Addr, dst: F::Addr, sport: Port) -> u16 {
    let tuple = Tuple { src, dst, sport, dport: Port::from_host(80), proto: Proto::TCP };
    let choice = select::<F, T>(tables, FIRST, Client::Outside, Origin::Packet(tuple)).unwrap();
    tables.count_flow(choice.index);
    choice.backend.port.host()
}

fn shares(connections: &[u16]) -> HashMap<u16, f64> {
    let mut counts = HashMap::new();
    for port in connections {
        *counts.entry(*port).or_insert(0.0) += 1.0 / f64::from(CONNECTIONS);
    }
    counts
}

/// Backends 1 to `n` as the end of a service line: the first on this node, so that `run_local` has one too.
fn backends(n: u16) -> String {
    (1..=n)
        .map(|i| if i == 1 { "10.244.1.6:1".to_owned() } else { format!("10.244.2.{i}:{i}") })
        .collect::<Vec<_>>()
        .join(" ")
}

fn in_both_families(run: impl Fn(bool)) {
    run(false);
    run(true);
}

#[test]
fn every_algorithm_gives_equal_backends_equal_shares() {
    // Chance: the standard deviation of a tenth of 20,000 is 2 % of the tenth. Maglev's tables of 1,021 cells differ by a cell, and
    // tuples fall on cells by chance.
    for (word, tolerance) in
        [("", 0.10), ("maglev", 0.10), ("round-robin", 0.001), ("least-connections", 0.01)]
    {
        in_both_families(|six| {
            let node = Node::new(six, &format!("{word} 10.96.0.10:80/tcp -> {}", backends(10)));
            for (port, share) in shares(&node.connections()) {
                let error = (share * 10.0 - 1.0).abs();
                assert!(error < tolerance, "{word:?}, IPv6 {six}: backend {port} has {share}");
            }
        });
    }
}

#[test]
fn weights_are_shares() {
    for word in ["", "maglev", "round-robin"] {
        in_both_families(|six| {
            let node = Node::new(six, &format!("{word} 10.96.0.10:80/tcp -> 10.244.1.6:1*3 10.244.2.9:2"));
            let share = shares(&node.connections())[&1];
            assert!((0.72..0.78).contains(&share), "{word:?}, IPv6 {six}: {share} instead of three quarters");
        });
    }
}

#[test]
fn maglev_moves_few_clients_but_those_of_a_backend_that_goes() {
    in_both_families(|six| {
        let mut node = Node::new(six, &format!("maglev 10.96.0.10:80/tcp -> {}", backends(10)));
        let before = node.connections();
        assert_eq!(before, node.connections(), "a tuple's choice is always the same");
        node.service(&format!("maglev 10.96.0.10:80/tcp -> {}", backends(9)));
        let after = node.connections();
        let stayed = before.iter().zip(&after).filter(|(old, _)| **old != 10);
        let (all, moved) = stayed.fold((0.0, 0.0), |(all, moved), (old, new)| {
            (all + 1.0, moved + if old == new { 0.0 } else { 1.0 })
        });
        assert!(!after.contains(&10));
        assert!(moved / all < 0.10, "IPv6 {six}: {moved} of {all} moved although their backend stayed");
    });
}

#[test]
fn maglev_with_another_generation_than_the_run_does_not_count() {
    in_both_families(|six| {
        let mut node = Node::new(six, &format!("maglev 10.96.0.10:80/tcp -> {}", backends(4)));
        let agreed = node.connections();
        let mut service = abi::service::Service::default();
        for (key, value) in node.memory.entries(maps::SVC.name) {
            if key == 1_u32.as_bytes() {
                service = zerocopy::FromBytes::read_from_bytes(&value).unwrap();
            }
        }
        let run = service.run_cluster;
        service.run_cluster = abi::service::Run::new(run.base(), run.count(), run.generation() + 1);
        node.memory.put(maps::SVC.name, 1_u32.as_bytes(), service.as_bytes());
        let by_chance = node.connections();
        let same = agreed.iter().zip(&by_chance).filter(|(one, other)| one == other).count();
        assert!(same < usize::from(CONNECTIONS) / 3, "IPv6 {six}: {same} as the old table says");
        assert_eq!(shares(&by_chance).len(), 4);
    });
}

#[test]
fn least_connections_avoids_the_loaded_backend() {
    in_both_families(|six| {
        let mut node = Node::new(six, &format!("least-connections 10.96.0.10:80/tcp -> {}", backends(4)));
        let load = if six { maps::LOAD6.name } else { maps::LOAD4.name };
        node.memory.put(load, 1_u32.as_bytes(), Load { flows: 40_000, sockets: 0 }.as_bytes());
        node.memory.put(load, 2_u32.as_bytes(), Load { flows: 0, sockets: 5_000 }.as_bytes());
        let shares = shares(&node.connections());
        // Both candidates are the same backend once in sixteen times.
        assert!((0.04..0.09).contains(&shares[&1]), "IPv6 {six}: {shares:?}");
        assert!(shares[&2] < shares[&3] && shares[&2] < shares[&4], "IPv6 {six}: {shares:?}");
    });
}
