//! A flood of new connections against established ones, in the kernel. Needs root and the object; skips aloud without.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bpf;

use std::time::Instant;

use abi::maps;
use aya::{
    Ebpf,
    maps::HashMap,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use bpf::{Loaded, load};
use golden::{frame::Spec, objects::Objects, world};

/// Connections that nobody answers.
const FLOOD: u32 = 2_000_000;
/// Connections that are open at once, two entries each: many share a set with others, none has more than four places' worth.
const FEW: u16 = 40;
/// Connections that were answered. The tables have 256 entries, two for each of them.
const ESTABLISHED: u16 = 100;
/// Of an untagged IPv4 frame: where the source address is, the ports, and TCP's checksum.
const SOURCE: usize = 26;
const PORTS: usize = 34;

fn program(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut("xdp_ns").unwrap().try_into().unwrap()
}

/// Runs XDP on a packet: the action and the bytes.
fn run(xdp: &mut Xdp, packet: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; 256];
    let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = xdp.test_run(options).unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

fn packet(line: &str) -> Vec<u8> {
    Spec::parse(line).unwrap().build(&[])
}

/// The answer to an untagged IPv4 packet: its ends exchanged, which no checksum notices.
fn answer(mut frame: Vec<u8>) -> Vec<u8> {
    for i in 0..4 {
        frame.swap(SOURCE + i, SOURCE + 4 + i);
    }
    for i in 0..2 {
        frame.swap(PORTS + i, PORTS + 2 + i);
    }
    frame
}

fn entries(ebpf: &Ebpf, name: &str) -> usize {
    let map = ebpf.map(name).unwrap();
    HashMap::<_, [u8; 16], [u8; 64]>::try_from(map).unwrap().keys().count()
}

#[test]
fn two_million_unanswered_connections_evict_no_answered_one() {
    bpf::in_namespace(|path| {
        let mut ebpf = load(&path, &world::config());
        world::furnish(&mut Loaded(&mut ebpf));
        let mut objects = Objects::default();
        let mut publish = |ebpf: &mut Ebpf, line: &str| {
            objects.service(line, false, &mut Loaded(ebpf)).unwrap();
        };
        program(&mut ebpf).load().unwrap();
        publish(&mut ebpf, "node:30080/tcp -> 10.244.2.9:8080");
        let client = |port: u16, flags: &str| {
            packet(&format!("client>uplink 64 tcp 172.30.0.3:{port}>172.30.0.11:30080 {flags}"))
        };
        let mut before = Vec::new();
        for port in 40_000..40_000 + ESTABLISHED {
            let (action, out) = run(program(&mut ebpf), &client(port, "S"));
            assert_eq!(action, 3, "XDP_TX to the backend's node");
            run(program(&mut ebpf), &answer(out));
            before.push(run(program(&mut ebpf), &client(port, "A +10")));
        }
        assert_eq!(entries(&ebpf, maps::FLOW4.name), 2 * usize::from(ESTABLISHED));
        // Who comes now is sent to a pod of this node: an established connection that was forgotten would be, too.
        publish(&mut ebpf, "node:30080/tcp -> 10.244.1.5:8080");
        let started = Instant::now();
        let mut syn = packet("client>uplink 64 tcp 10.0.0.0:1>172.30.0.11:30080 S");
        let xdp = program(&mut ebpf);
        for number in 0..FLOOD {
            // Wrong checksums harm nobody: nothing looks at them before the pod.
            syn[SOURCE + 1..SOURCE + 4].copy_from_slice(&number.to_be_bytes()[1..]);
            let options = TestRunOptions { data_in: Some(&syn), ..TestRunOptions::new() };
            let action = xdp.test_run(options).unwrap().return_value;
            assert_eq!(action, 2, "XDP_PASS to the pod, connection {number}");
        }
        println!("{FLOOD} new connections in {:?}", started.elapsed());
        assert_eq!(entries(&ebpf, maps::FLOW4.name), 2 * usize::from(ESTABLISHED));
        for (port, before) in (40_000..).zip(before) {
            assert_eq!(run(program(&mut ebpf), &client(port, "A +10")), before, "port {port}");
        }
    });
}

#[test]
fn unanswered_connections_share_sets_as_long_as_there_is_room() {
    bpf::in_namespace(|path| {
        let mut ebpf = load(&path, &world::config());
        world::furnish(&mut Loaded(&mut ebpf));
        program(&mut ebpf).load().unwrap();
        Objects::default()
            .service("node:30080/tcp -> 10.244.2.9:8080", false, &mut Loaded(&mut ebpf))
            .unwrap();
        let xdp = program(&mut ebpf);
        let opened = (40_000..40_000 + FEW).map(|port| {
            let syn = packet(&format!("client>uplink 64 tcp 172.30.0.3:{port}>172.30.0.11:30080 S"));
            (port, run(xdp, &syn).1)
        });
        for (port, out) in opened.collect::<Vec<_>>() {
            let (action, back) = run(xdp, &answer(out));
            assert_eq!(action, 3, "XDP_TX of the answer to the client, port {port}");
            assert_eq!(back[PORTS + 2..PORTS + 4], port.to_be_bytes(), "the client's port");
        }
    });
}
