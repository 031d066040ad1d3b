//! Client affinity at the socket, over tables in memory: `BPF_PROG_TEST_RUN` does not run socket programs. The packet's side
//! is in `cases/*.txt`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};

use abi::{Config, Ip4, Ip6, Port, Proto};
use golden::{memory::Memory, objects::Objects, world};
use pipeline::{
    Family, Tables, V4, V6,
    socket::{Outcome, balance},
};

const NODE: u64 = 1;
const POD: u64 = 77;
const OTHER_POD: u64 = 78;

struct Node {
    memory: Memory,
    objects: Objects,
    six: bool,
}

impl Node {
    fn new(six: bool) -> Self {
        let mut memory = Memory::new(Config { netns_cookie: NODE, ..world::config() });
        world::furnish(&mut memory);
        Self { memory, objects: Objects::default(), six }
    }

    fn service(&mut self, line: &str) {
        self.objects.service(line, self.six, &mut self.memory).unwrap();
    }

    fn gone(&mut self, backend: &str) {
        self.objects.gone(backend, self.six, &mut self.memory).unwrap();
    }

    /// The port of the backend that a socket in this namespace is given; the backends of a test differ by it.
    fn connect(&self, netns: u64, to: &str) -> u16 {
        let to: SocketAddr = to.parse().unwrap();
        let (addr, port) = (to.ip(), Port::from_host(to.port()));
        match (self.six, addr, world::to_v6(addr)) {
            (true, _, IpAddr::V6(addr)) => chosen::<V6, _>(&self.memory, Ip6::from(addr), port, netns),
            (false, IpAddr::V4(addr), _) => chosen::<V4, _>(&self.memory, Ip4::from(addr), port, netns),
            _ => panic!("{to} is of no family"),
        }
    }

    #[track_caller]
    fn check(&self, netns: u64, expected: u16, why: &str) {
        let port = self.connect(netns, "10.96.0.10:80");
        assert_eq!(port, expected, "IPv{}: {why}", if self.six { 6 } else { 4 });
    }
}

fn chosen<F: Family, T: Tables<F>>(tables: T, addr: F::Addr, port: Port, netns: u64) -> u16 {
    match balance::<F, T>(tables, addr, port, Proto::TCP, netns) {
        Outcome::Use(choice) => choice.backend.port.host(),
        other => panic!("{other:?}"),
    }
}

fn in_both_families(run: impl Fn(Node)) {
    for six in [false, true] {
        run(Node::new(six));
    }
}

const ONE: &str = "affinity=60 10.96.0.10:80/tcp -> 10.244.1.6:1001";
const TWO: &str = "affinity=60 10.96.0.10:80/tcp -> 10.244.2.9:1002";

#[test]
fn a_namespace_is_one_client_and_others_are_not_bound_by_it() {
    in_both_families(|mut node| {
        node.service(ONE);
        node.check(POD, 1001, "the only backend");
        node.check(NODE, 1001, "the only backend");
        node.service(TWO);
        node.check(POD, 1001, "the pod's backend");
        node.check(NODE, 1001, "the node's backend");
        node.check(OTHER_POD, 1002, "a new client");
    });
}

#[test]
fn many_clients_are_spread_and_each_stays() {
    in_both_families(|mut node| {
        node.service("affinity=60 10.96.0.10:80/tcp -> 10.244.1.6:1001 10.244.2.9:1002 10.244.2.8:1003");
        let first: Vec<u16> = (100..150).map(|pod| node.connect(pod, "10.96.0.10:80")).collect();
        for port in 1001..=1003 {
            assert!(first.contains(&port), "{port} has no client of fifty");
        }
        for _ in 0..3 {
            let again: Vec<u16> = (100..150).map(|pod| node.connect(pod, "10.96.0.10:80")).collect();
            assert_eq!(again, first);
        }
    });
}

#[test]
fn it_ends_with_its_timeout_which_a_use_renews() {
    in_both_families(|mut node| {
        node.service(ONE);
        node.check(POD, 1001, "the only backend");
        node.service(TWO);
        for _ in 0..3 {
            node.memory.now.set(node.memory.now.get() + 50);
            node.check(POD, 1001, "used less than a minute ago");
        }
        node.memory.now.set(node.memory.now.get() + 57);
        node.check(POD, 1002, "not used for more than a minute");
    });
}

#[test]
fn it_ends_with_its_backend() {
    in_both_families(|mut node| {
        node.service(ONE);
        node.check(POD, 1001, "the only backend");
        node.service(TWO);
        node.gone("10.244.1.6:1001");
        node.check(POD, 1002, "the backend is gone");
        node.service(ONE);
        node.check(POD, 1002, "the first backend has come back to a client that has another");
    });
}

#[test]
fn services_do_not_share_clients() {
    in_both_families(|mut node| {
        node.service(ONE);
        node.check(POD, 1001, "the only backend");
        node.service("affinity=60 10.96.0.11:80/tcp -> 10.244.2.9:1003");
        assert_eq!(node.connect(POD, "10.96.0.11:80"), 1003);
        node.check(POD, 1001, "the other service changes nothing");
    });
}

#[test]
fn loopback_serves_node_ports_to_the_node_alone() {
    let mut node = Node::new(false);
    node.service("affinity=60 node:30080/tcp -> 10.244.1.6:1001");
    assert_eq!(node.connect(NODE, "127.0.0.1:30080"), 1001);
    let pod =
        balance::<V4, _>(&node.memory, Ip4::from_host(0x7f00_0001), Port::from_host(30_080), Proto::TCP, POD);
    assert_eq!(pod, Outcome::Leave);
}
