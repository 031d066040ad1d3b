//! Properties of the stages on the host, over random packets and histories.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use abi::{flow::FlowState, maps};
use golden::{
    frame::{Frame, Spec, checksums_are_right},
    memory::Memory,
    objects::Objects,
    world::{self, Sink as _},
};
use pipeline::{Verdict, forward::At};
use proptest::prelude::*;

/// A node with services, tables in memory.
struct Node {
    memory: Memory,
    objects: Objects,
    six: bool,
}

impl Node {
    fn new(six: bool, services: &[&str]) -> Self {
        let mut memory = Memory::new(world::config());
        world::furnish(&mut memory);
        let mut node = Self { memory, objects: Objects::default(), six };
        for service in services {
            node.service(service);
        }
        node
    }

    fn service(&mut self, line: &str) {
        self.objects.service(line, self.six, &mut self.memory).unwrap();
    }

    fn packet(&self, line: &str) -> Vec<u8> {
        let spec = Spec::parse(line).unwrap();
        if self.six { spec.to_v6() } else { spec }.build(&[])
    }

    fn pod_sends(&self, ifindex: u32, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut frame = Frame::new(bytes, ifindex);
        let verdict = pipeline::pod::ingress(&mut frame, &self.memory);
        (verdict, frame.bytes)
    }

    fn uplink_gets(&self, at: At, bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut frame = Frame::new(bytes, world::UPLINK);
        let verdict = pipeline::uplink::ingress(&mut frame, &self.memory, at);
        (verdict, frame.bytes)
    }

    /// Offsets of the source address, the destination address and the ports, and an address's length.
    fn offsets(&self) -> (usize, usize, usize, usize) {
        if self.six { (22, 38, 54, 16) } else { (26, 30, 34, 4) }
    }

    /// The packet with its ends exchanged: what the other side answers. No checksum changes by that.
    fn answered(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let (src, dst, ports, len) = self.offsets();
        for i in 0..len {
            bytes.swap(src + i, dst + i);
        }
        bytes.swap(ports, ports + 2);
        bytes.swap(ports + 1, ports + 3);
        bytes
    }

    /// All from the addresses on: what translation may change and must give back.
    fn inner(&self, bytes: &[u8]) -> Vec<u8> {
        bytes[self.offsets().0..].to_vec()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reply_undoes_what_the_request_went_through(
        six: bool, udp: bool, sport in 1_u16.., payload in 0_usize..1200, seq: u32, remote: bool, outside: bool,
    ) {
        let proto = if udp { "udp" } else { "tcp" };
        let backend = if remote { "10.244.2.9:8080" } else { "10.244.1.6:8080" };
        let cluster = format!("10.96.0.10:80/{proto} -> {backend}");
        let node_port = format!("node:30080/{proto} -> {backend}");
        let node = Node::new(six, &[&cluster, &node_port]);
        let (request, reply);
        if outside {
            let flags = if udp { String::new() } else { format!("S seq={seq}") };
            request = node.packet(&format!(
                "client>uplink 64 {proto} 172.30.0.3:{sport}>172.30.0.11:30080 {flags} +{payload}"));
            let (verdict, out) = node.uplink_gets(At::Xdp, request.clone());
            prop_assert_eq!(verdict, if remote { Verdict::Transmit } else { Verdict::Pass });
            prop_assert!(checksums_are_right(&out));
            let answer = node.answered(out);
            reply = if remote { node.uplink_gets(At::Xdp, answer) } else { node.pod_sends(6, answer) };
        } else {
            let flags = if udp { String::new() } else { format!("S seq={seq}") };
            request = node.packet(&format!(
                "pod5>host5 64 {proto} 10.244.1.5:{sport}>10.96.0.10:80 {flags} +{payload}"));
            let (verdict, out) = node.pod_sends(5, request.clone());
            prop_assert_eq!(verdict, if remote { Verdict::Redirect(1) } else { Verdict::Peer(6) });
            prop_assert!(checksums_are_right(&out));
            let answer = node.answered(out);
            reply = if remote { node.uplink_gets(At::Tc, answer) } else { node.pod_sends(6, answer) };
        }
        let (verdict, back) = reply;
        prop_assert!(!matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
        prop_assert!(checksums_are_right(&back));
        prop_assert_eq!(node.inner(&node.answered(back)), node.inner(&request));
    }

    #[test]
    fn no_bytes_make_a_stage_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..120, six: bool) {
        let node = Node::new(six, &["10.96.0.10:80/tcp -> 10.244.1.6:8080", "node:30080/tcp -> 10.244.2.9:8080"]);
        // Pure noise, and noise behind a header that is right.
        let mut near = node.packet("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S +40");
        for (place, noise) in near.iter_mut().skip(cut).step_by(7).zip(&bytes) {
            *place = *noise;
        }
        near.truncate(near.len() - cut.min(near.len()) / 2);
        for bytes in [bytes, near] {
            for at in [At::Xdp, At::Tc] {
                node.uplink_gets(at, bytes.clone());
            }
            node.pod_sends(5, bytes.clone());
            pipeline::egress::egress(&mut Frame::new(bytes, 1), &node.memory);
        }
    }

    #[test]
    fn a_tcp_connection_keeps_its_backend_through_any_changes(six: bool, changes in proptest::collection::vec(0_u8..4, 1..12)) {
        let mut node = Node::new(six, &["10.96.0.10:80/tcp -> 10.244.1.6:8080 10.244.2.8:8080 10.244.2.9:8080"]);
        let request = node.packet("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S");
        let (first, out) = node.pod_sends(5, request);
        let answer = node.answered(out);
        match first {
            Verdict::Peer(6) => { node.pod_sends(6, answer); }
            _ => { node.uplink_gets(At::Tc, answer); }
        }
        let data = node.packet("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 A +10");
        let (_, before) = node.pod_sends(5, data.clone());
        for change in changes {
            let all = ["10.244.1.6:8080", "10.244.2.8:8080", "10.244.2.9:8080", "10.244.2.7:8080"];
            node.service(&format!("10.96.0.10:80/tcp -> {}", all[usize::from(change)]));
            for gone in &all[..3] {
                if *gone != all[usize::from(change)] {
                    node.objects.gone(gone, six, &mut node.memory).unwrap();
                }
            }
            let (_, now) = node.pod_sends(5, data.clone());
            prop_assert_eq!(&now, &before);
        }
    }
}

#[test]
fn no_two_clients_get_one_source_port_and_exhaustion_is_counted() {
    for six in [false, true] {
        let node = Node::new(six, &["node:30080/tcp -> 10.244.2.9:8080"]);
        let (src, _, ports, _) = node.offsets();
        let mut taken = HashSet::new();
        let mut refused = 0;
        for client in 0..4000_u16 {
            let line = format!("client>uplink 64 tcp 172.30.0.3:{}>172.30.0.11:30080 S", 40_000 + client);
            match node.uplink_gets(At::Xdp, node.packet(&line)) {
                (Verdict::Transmit, out) => {
                    assert!(taken.insert(out[src..ports + 2].to_vec()), "one port for two clients");
                }
                (Verdict::Drop(_), _) => refused += 1,
                (verdict, _) => panic!("{verdict:?}"),
            }
        }
        assert_eq!(taken.len() + refused, 4000);
        assert_eq!(refused as u64, node.memory.drops.borrow().iter().sum::<u64>());
        assert!(refused < 40, "{refused} of 4000 clients found no port in a range of 28,976");
    }
}

#[test]
fn a_connection_takes_its_reverse_entry_over_when_the_forward_one_was_evicted() {
    for (six, size) in [(false, 64), (true, 104)] {
        let node = Node::new(six, &["10.96.0.10:80/tcp -> 10.244.1.6:8080"]);
        let request = node.packet("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S");
        let (verdict, first) = node.pod_sends(5, request.clone());
        assert_eq!(verdict, Verdict::Peer(6));
        let queue = if six { maps::FLOWQ6.name } else { maps::FLOWQ4.name };
        let state = size_of::<FlowState>();
        let addresses = if six { 32 } else { 8 };
        assert_eq!(node.memory.entries(queue).len(), 2);
        // The kind stands behind two ports and three sums.
        node.memory.retain(queue, |_, value| {
            assert!(value.len() == size && addresses + state <= size);
            value[addresses + 10] == abi::flow::KIND_REVERSE
        });
        assert_eq!(node.memory.entries(queue).len(), 1);
        let (verdict, second) = node.pod_sends(5, request);
        assert_eq!(verdict, Verdict::Peer(6));
        assert_eq!(second, first, "the source port stays");
        assert_eq!(node.memory.entries(queue).len(), 2);
    }
}

#[test]
fn a_pair_lives_in_one_table_at_a_time() {
    let node = Node::new(false, &["10.96.0.10:80/tcp -> 10.244.1.6:8080"]);
    let request = node.packet("pod5>host5 64 tcp 10.244.1.5:40000>10.96.0.10:80 S");
    let (_, out) = node.pod_sends(5, request.clone());
    let count = |map| node.memory.entries(map).len();
    assert_eq!((count(maps::FLOWQ4.name), count(maps::FLOW4.name)), (2, 0));
    node.pod_sends(6, node.answered(out));
    assert_eq!((count(maps::FLOWQ4.name), count(maps::FLOW4.name)), (0, 2));
    node.pod_sends(5, request);
    assert_eq!((count(maps::FLOWQ4.name), count(maps::FLOW4.name)), (0, 2));
}

#[test]
fn random_choice_is_fair() {
    let node = Node::new(false, &["10.96.0.10:53/udp -> 10.244.2.7:53 10.244.2.8:53 10.244.2.9:53"]);
    let mut hits = [0_u32; 3];
    for port in 0..3000 {
        let packet = node.packet(&format!("pod5>host5 64 udp 10.244.1.5:{}>10.96.0.10:53", 20_000 + port));
        let (_, out) = node.pod_sends(5, packet);
        hits[usize::from(out[33]) - 7] += 1;
    }
    // Three standard deviations of a fair choice are 77.
    assert!(hits.iter().all(|n| n.abs_diff(1000) < 100), "{hits:?}");
}

#[test]
fn a_handed_over_connection_is_established_by_its_second_packet_that_opens_nothing() {
    for six in [false, true] {
        let node = Node::new(
            six,
            &["dsr node:30080/tcp -> 10.244.2.9:8080", "dsr node:30053/udp -> 10.244.2.9:5353"],
        );
        let (established, queue) =
            if six { (maps::FLOW6.name, maps::FLOWQ6.name) } else { (maps::FLOW4.name, maps::FLOWQ4.name) };
        let check = |line: &str, expected: (usize, usize)| {
            let (verdict, _) = node.uplink_gets(At::Xdp, node.packet(line));
            assert_eq!(verdict, Verdict::Transmit);
            let count = |map| node.memory.entries(map).len();
            assert_eq!((count(queue), count(established)), expected, "{line}");
        };
        check("client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S", (1, 0));
        check("client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 S", (1, 0));
        check("client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A", (1, 0));
        check("client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A +10", (0, 1));
        check("client>uplink 64 tcp 172.30.0.3:40000>172.30.0.11:30080 A +10", (0, 1));
        check("client>uplink 64 udp 172.30.0.3:40000>172.30.0.11:30053 +10", (1, 1));
        check("client>uplink 64 udp 172.30.0.3:40000>172.30.0.11:30053 +10", (0, 2));
    }
}

#[test]
fn an_entry_whose_signature_is_another_flows_is_not_obeyed() {
    for six in [false, true] {
        let mut node = Node::new(six, &["10.96.0.10:53/udp -> 10.244.1.6:5353"]);
        let request = node.packet("pod5>host5 64 udp 10.244.1.5:40000>10.96.0.10:53 +10");
        let (verdict, first) = node.pod_sends(5, request.clone());
        assert_eq!(verdict, Verdict::Peer(6));
        node.service("10.96.0.10:53/udp -> 10.244.2.9:5353");
        assert_eq!(node.pod_sends(5, request.clone()), (Verdict::Peer(6), first), "the entry is obeyed");
        let queue = if six { maps::FLOWQ6.name } else { maps::FLOWQ4.name };
        let addresses = if six { 32 } else { 8 };
        for (key, mut value) in node.memory.entries(queue) {
            // The signature stands 32 bytes behind the addresses.
            value[addresses + 32] ^= 1;
            node.memory.put(queue, &key, &value);
        }
        assert_eq!(node.pod_sends(5, request).0, Verdict::Redirect(1), "what another flow has left is not");
    }
}
