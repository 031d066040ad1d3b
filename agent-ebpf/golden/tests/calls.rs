//! What becomes of socket calls, over tables in memory: who calls where, and what is bound. Real sockets are in `socket.rs`, affinity in
//! `affinity.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};

use abi::{Config, Ip4, Ip6, Port, Proto};
use golden::{memory::Memory, objects::Objects, world};
use pipeline::{
    Family, Tables, V4, V6, bind,
    socket::{Outcome, balance},
};

const NODE: u64 = 1;
const POD: u64 = 77;

fn node(services: &[&str], six: bool) -> Memory {
    let mut memory = Memory::new(Config { netns_cookie: NODE, ..world::config() });
    world::furnish(&mut memory);
    let mut objects = Objects::default();
    for service in services {
        objects.service(service, six, &mut memory).unwrap();
    }
    memory
}

fn word<F: Family, T: Tables<F>>(tables: T, addr: F::Addr, port: u16, proto: Proto, netns: u64) -> String {
    match balance::<F, T>(tables, addr, Port::from_host(port), proto, netns) {
        Outcome::Leave => "leave".to_owned(),
        Outcome::Use(choice) => choice.backend.port.host().to_string(),
        Outcome::Refuse => "refuse".to_owned(),
        Outcome::Unreachable => "unreachable".to_owned(),
    }
}

/// The outcome for a socket of each protocol; a backend is told by its port.
fn call(memory: &Memory, six: bool, to: &str, proto: Proto, netns: u64) -> String {
    let to: SocketAddr = to.parse().unwrap();
    match (six, to.ip(), world::to_v6(to.ip())) {
        (true, IpAddr::V4(addr), _) if addr.is_loopback() => {
            word::<V6, _>(memory, Ip6::from(std::net::Ipv6Addr::LOCALHOST), to.port(), proto, netns)
        }
        (true, _, IpAddr::V6(addr)) => word::<V6, _>(memory, addr.into(), to.port(), proto, netns),
        (_, IpAddr::V4(addr), _) => word::<V4, _>(memory, addr.into(), to.port(), proto, netns),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(services: &[&str], calls: &[(&str, Proto, u64, &str)]) {
    for six in [false, true] {
        let memory = node(services, six);
        for (to, proto, netns, expected) in calls {
            assert_eq!(call(&memory, six, to, *proto, *netns), *expected, "IPv6 {six}: {to} of {netns}");
        }
    }
}

#[test]
fn an_address_decides_what_becomes_of_a_call() {
    check(
        &[
            "10.96.0.10:80/tcp -> 10.244.1.6:1001",
            "10.96.0.11:53/udp ->",
            "internal-local 10.96.0.12:80/tcp -> 10.244.2.9:1002",
            "external 203.0.113.9:80/tcp -> 10.244.2.9:1003",
            "10.96.0.13:9000/sctp -> 10.244.2.9:1004",
        ],
        &[
            ("10.96.0.10:80", Proto::TCP, POD, "1001"),
            ("10.96.0.10:80", Proto::TCP, NODE, "1001"),
            ("10.96.0.10:81", Proto::TCP, POD, "refuse"),
            ("10.96.0.10:80", Proto::UDP, POD, "refuse"),
            ("10.96.0.11:53", Proto::UDP, POD, "refuse"),
            ("10.96.0.12:80", Proto::TCP, POD, "unreachable"),
            ("10.96.0.99:80", Proto::TCP, POD, "unreachable"),
            ("10.96.0.13:9000", Proto::SCTP, POD, "1004"),
            ("203.0.113.9:80", Proto::TCP, POD, "1003"),
            ("203.0.113.9:81", Proto::TCP, POD, "refuse"),
            ("203.0.113.10:80", Proto::TCP, POD, "leave"),
            ("10.244.2.9:80", Proto::TCP, POD, "leave"),
            ("198.51.100.1:80", Proto::TCP, POD, "leave"),
            // A ping socket.
            ("10.96.0.10:0", Proto::ICMP, POD, "leave"),
        ],
    );
}

#[test]
fn node_ports_are_served_on_the_nodes_own_addresses() {
    check(
        &["external-local node:30080/tcp -> 10.244.2.9:1001", "host-port node:8080/tcp -> 10.244.1.6:1002"],
        &[
            ("172.30.0.11:30080", Proto::TCP, POD, "1001"),
            ("172.30.0.11:30080", Proto::TCP, NODE, "1001"),
            ("127.0.0.1:30080", Proto::TCP, NODE, "1001"),
            ("127.0.0.1:30080", Proto::TCP, POD, "leave"),
            ("172.30.0.12:30080", Proto::TCP, NODE, "leave"),
            ("172.30.0.11:30080", Proto::UDP, NODE, "leave"),
            ("172.30.0.11:30081", Proto::TCP, NODE, "leave"),
            ("172.30.0.11:8080", Proto::TCP, POD, "1002"),
        ],
    );
}

#[test]
fn source_ranges_judge_the_node_by_its_address_and_leave_pods_to_their_packets() {
    check(
        &[
            "external ranges=172.30.0.0/24 203.0.113.9:80/tcp -> 10.244.2.9:1001",
            "external ranges=198.51.100.0/24 203.0.113.10:80/tcp -> 10.244.2.9:1002",
        ],
        &[
            ("203.0.113.9:80", Proto::TCP, NODE, "1001"),
            ("203.0.113.10:80", Proto::TCP, NODE, "unreachable"),
            ("203.0.113.9:80", Proto::TCP, POD, "leave"),
            ("203.0.113.10:80", Proto::TCP, POD, "leave"),
            ("203.0.113.9:81", Proto::TCP, POD, "refuse"),
        ],
    );
}

#[test]
fn binds_of_the_node_keep_off_node_ports() {
    let services = ["node:30080/tcp -> 10.244.2.9:80", "host-port node:8080/tcp -> 10.244.2.9:80"];
    let port = Port::from_host;
    let (four, six) = (node(&services, false), node(&services, true));
    let addr = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(four) => Ip4::from(four),
        IpAddr::V6(_) => panic!("{text}"),
    };
    for (bound, number, proto, netns, allowed) in [
        ("0.0.0.0", 30_080, Proto::TCP, NODE, false),
        ("127.0.0.1", 30_080, Proto::TCP, NODE, false),
        ("172.30.0.11", 30_080, Proto::TCP, NODE, false),
        ("172.30.0.12", 30_080, Proto::TCP, NODE, true),
        ("192.0.2.1", 30_080, Proto::TCP, NODE, true),
        ("0.0.0.0", 30_080, Proto::UDP, NODE, true),
        ("0.0.0.0", 30_080, Proto::TCP, POD, true),
        ("0.0.0.0", 30_081, Proto::TCP, NODE, true),
        ("0.0.0.0", 8080, Proto::TCP, NODE, true),
    ] {
        let is = bind::allowed::<V4, _>(&four, addr(bound), port(number), proto, netns);
        assert_eq!(is, allowed, "{bound}:{number} of {netns}");
    }
    let any = Ip6::default();
    assert!(!bind::allowed::<V6, _>(&six, any, port(30_080), Proto::TCP, NODE));
    assert!(bind::allowed::<V6, _>(&four, any, port(30_080), Proto::TCP, NODE), "the other family's port");
}
