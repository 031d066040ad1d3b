//! Streams and large datagrams on every path: bytes arrive as they were sent, frames carry good checksums, and no stack counts a bad one.

use std::net::SocketAddr;
use std::{iter, slice};

use serde_json::json;

use crate::capture::{Captures, Tally};
use crate::client::{Ask, Outcome, Transport};
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::fabric::open;
use crate::features;
use crate::server::PORT;
use crate::spec::{Address, Shape, shape};

/// Services of one backend each, in the order of [`Way`]'s index.
const SERVICES: [Shape; 4] = [
    shape("bulk-pod0", 30, [false, false], &[Backend::Pod(0)]),
    shape("bulk-pod1", 31, [false, false], &[Backend::Pod(1)]),
    shape("bulk-host1", 32, [false, false], &[Backend::Host(1)]),
    shape("bulk-outer", 33, [false, false], &[Backend::Outer]),
];

/// Where a stream goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// To this backend's own address.
    Direct(Backend),
    /// To an address of the Service with this index.
    Service(usize, Address),
}

/// Every path once: client, way.
const PATHS: [(Who, Hook, Way); 16] = [
    (Who::Pod(0), Hook::Packet, Way::Direct(Backend::Pod(0))),
    (Who::Pod(0), Hook::Packet, Way::Direct(Backend::Pod(1))),
    (Who::Pod(2), Hook::Packet, Way::Direct(Backend::Pod(0))),
    (Who::Pod(0), Hook::Socket, Way::Service(0, Address::Cluster)),
    (Who::Pod(0), Hook::Socket, Way::Service(1, Address::Cluster)),
    (Who::Pod(0), Hook::Packet, Way::Service(0, Address::Cluster)),
    (Who::Pod(0), Hook::Packet, Way::Service(1, Address::Cluster)),
    (Who::Backend(0), Hook::Packet, Way::Service(0, Address::Cluster)),
    (Who::Host(0), Hook::Socket, Way::Service(0, Address::Cluster)),
    (Who::Host(0), Hook::Socket, Way::Service(1, Address::Cluster)),
    (Who::Outside, Hook::Packet, Way::Service(0, Address::NodePort(0))),
    (Who::Outside, Hook::Packet, Way::Service(1, Address::NodePort(0))),
    (Who::Outside, Hook::Packet, Way::Service(1, Address::LoadBalancer)),
    (Who::Pod(2), Hook::Packet, Way::Service(1, Address::NodePort(0))),
    (Who::Pod(0), Hook::Packet, Way::Service(2, Address::Cluster)),
    (Who::Pod(0), Hook::Packet, Way::Service(3, Address::Cluster)),
];

fn target(cluster: &Cluster, way: Way, six: bool) -> SocketAddr {
    match way {
        Way::Direct(backend) => SocketAddr::new(cluster.backend_address(backend, six), PORT),
        Way::Service(index, address) => SERVICES[index].socket_address(cluster, address, six),
    }
}

/// Sends by every path, one after the other.
#[track_caller]
fn send(cluster: &mut Cluster, title: &str, transports: &[Transport]) {
    let mut wrong = Vec::new();
    for (who, hook, way) in PATHS {
        for (six, transport) in
            [false, true].iter().flat_map(|six| transports.iter().map(move |way| (*six, *way)))
        {
            let to = target(cluster, way, six);
            let client = cluster.clients.get_mut(&(who, hook)).unwrap();
            let ask = Ask { transport, to, want: 1, tries: 1, patience_ms: 1500, from: None };
            client.ask(slice::from_ref(&ask));
            let mut outcome = client.outcomes().remove(0);
            if six && matches!((transport, &outcome), (Transport::Echo(_), Outcome::Silent)) {
                // Nobody but the sender fragments in IPv6: the first datagram may only teach it the size of the way.
                client.ask(&[ask]);
                outcome = client.outcomes().remove(0);
            }
            match outcome {
                Outcome::Answered(sights) if sights.iter().all(|sight| sight.peer == to) => {}
                outcome => {
                    wrong.push(format!("{who:?} by {hook:?}, {way:?} {to}, {transport:?}: {outcome:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{title}: {wrong:#?}\ndrops: {}", cluster.drops());
}

fn publish(cluster: &mut Cluster) {
    for service in &SERVICES {
        features::publish(cluster, service, json!({}), json!({}));
    }
}

/// A little on every path, with every frame on the bridge judged.
pub fn captured(cluster: &mut Cluster, title: &str) {
    publish(cluster);
    let captures =
        Captures::start(&cluster.fabric.bridge(), &["n0", "n1", "n2", "cl"], cluster.fabric.directory.path());
    send(cluster, title, &[Transport::Stream(1), Transport::Echo(700), Transport::Echo(5000)]);
    let mut tally = Tally::default();
    for (port, file) in captures.stop().iter().enumerate() {
        tally.add(port, file);
    }
    let Tally { tcp, udp, icmp, fragments, wrong } = &tally;
    println!("{title}: {tcp} TCP, {udp} UDP, {icmp} ICMP, {fragments} fragments, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{title}: {} frames, like {:#?}", wrong.len(), &wrong[..wrong.len().min(8)]);
    assert!(*tcp > 10_000 && *udp > 50 && *fragments > 100, "{title}: little was captured");
    no_stack_has_seen_a_bad_checksum(cluster, title);
}

/// More on every path: 8 blocks of 256 KiB each way, and datagrams of these many bytes.
pub fn whole(cluster: &mut Cluster, title: &str, datagrams: &[u16]) {
    publish(cluster);
    let echoes = datagrams.iter().map(|length| Transport::Echo(*length));
    let transports: Vec<Transport> = iter::once(Transport::Stream(8)).chain(echoes).collect();
    send(cluster, title, &transports);
    no_stack_has_seen_a_bad_checksum(cluster, title);
    println!("ok: {title}: {} MiB on each of {} paths", 2 * 8 / 4, PATHS.len() * 2);
}

#[track_caller]
fn no_stack_has_seen_a_bad_checksum(cluster: &Cluster, title: &str) {
    for namespace in cluster.fabric.namespaces() {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
        let (four, six) = open(&namespace).run(|| (read("snmp"), read("snmp6"))).unwrap();
        let lines: Vec<&str> = four.lines().collect();
        let counters = lines.chunks_exact(2).flat_map(|pair| {
            let protocol = pair[0].split(':').next().unwrap_or_default().to_owned();
            pair[0]
                .split(' ')
                .zip(pair[1].split(' '))
                .map(move |(name, count)| (format!("{protocol}{name}"), count))
        });
        let six = six.lines().filter_map(|line| line.split_once(' '));
        let six = six.map(|(name, count)| (name.to_owned(), count.trim()));
        let bad: Vec<_> = counters
            .chain(six)
            .filter(|(name, count)| name.ends_with("InCsumErrors") && *count != "0")
            .collect();
        assert!(bad.is_empty(), "{title}: {namespace}: {bad:?}");
    }
}
