//! What `Tables` cost: memory for many endpoints, time of the first publication and of one change, time of filling Maglev tables.
//! `cargo bench -p service` prints the figures; nothing is decided by them.

#![expect(clippy::unwrap_used, reason = "a bench ends at the first surprise")]

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use service::maglev::{self, Member};
use service::{NodeFacts, Tables};

const NODES: u32 = 500;
/// Variable that tells a child which footprint to take: services and endpoints of each.
const FOOTPRINT: &str = "BEELINE_BENCH_FOOTPRINT";

fn service(number: u32) -> Service {
    let address = format!("10.{}.{}.{}", 96 + (number >> 16), number >> 8 & 255, number & 255);
    Service {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(format!("service-{number}")),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![ServicePort { name: Some("http".into()), port: 80, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One slice with `count` ready endpoints, each on one of [`NODES`] nodes.
fn slice(service: u32, count: u32) -> EndpointSlice {
    let endpoint = |number: u32| {
        let pod = service * 50 + number;
        Endpoint {
            addresses: vec![format!("10.{}.{}.{}", 128 + (pod >> 16), pod >> 8 & 255, pod & 255)],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            node_name: Some(format!("node-{}", pod % NODES)),
            zone: Some("zone-a".into()),
            ..Endpoint::default()
        }
    };
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some(format!("service-{service}-abcde")),
            labels: Some([("kubernetes.io/service-name".to_owned(), format!("service-{service}"))].into()),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        endpoints: (0..count).map(endpoint).collect(),
        ports: Some(vec![EndpointPort {
            name: Some("http".into()),
            port: Some(8080),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
    }
}

fn nodes() -> Vec<NodeFacts> {
    let node = |number: u32| NodeFacts {
        name: format!("node-{number}"),
        number: number as u16 + 1,
        addresses: vec![[172, 30, (number >> 8) as u8, number as u8].into()],
    };
    (0..NODES).map(node).collect()
}

fn filled(services: u32, endpoints: u32) -> (Tables, Duration, Duration) {
    let mut tables = Tables::new("node-0");
    tables.set_nodes(&nodes(), "zone-a", 0);
    let mut reading = Duration::ZERO;
    for number in 0..services {
        let (service, slice) = (service(number), slice(number, endpoints));
        let begun = Instant::now();
        tables.service_applied(&service, 0);
        tables.slice_applied(&slice, 0);
        reading += begun.elapsed();
    }
    let begun = Instant::now();
    let diff = tables.start(0);
    let publishing = begun.elapsed();
    assert_eq!(diff.backends.len() as u32, services * endpoints);
    (tables, reading, publishing)
}

/// Resident bytes of this process, from the second field of `/proc/self/statm` (pages).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn footprint(services: u32, endpoints: u32) {
    let before = resident();
    let (tables, reading, publishing) = filled(services, endpoints);
    let grown = resident().saturating_sub(before);
    let count = tables.counts().1;
    println!(
        "{services} services x {endpoints}: {:.1} MB resident, {} bytes an endpoint; read in {reading:.0?}, published in {publishing:.0?}",
        grown as f64 / 1e6,
        grown / count.max(1),
    );
    drop(black_box(tables));
}

/// One endpoint of one service comes and goes, again and again.
fn one_change(services: u32, endpoints: u32, of: u32) {
    let mut tables = filled(services, endpoints).0;
    tables.service_applied(&service(services), 0);
    let (with, without) = (slice(services, of), slice(services, of - 1));
    tables.slice_applied(&with, 0);
    let mut times = Vec::new();
    for round in 0..2_000 {
        let object = if round % 2 == 0 { &without } else { &with };
        let begun = Instant::now();
        let diff = tables.slice_applied(object, round * 2_000);
        times.push(begun.elapsed());
        assert_eq!((diff.backends.len(), diff.services.len(), diff.frontends.len()), (1, 1, 0));
    }
    times.sort();
    println!(
        "one endpoint of {of} changes among {services} services x {endpoints}: p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
    );
}

/// A node without endpoints comes and goes.
fn node_change(services: u32, endpoints: u32) {
    let mut tables = filled(services, endpoints).0;
    let mut nodes = nodes();
    nodes.push(NodeFacts { name: "new".into(), number: 9_999, addresses: vec![[192, 0, 2, 1].into()] });
    let rounds = 20;
    let begun = Instant::now();
    for round in 0..rounds {
        let count = nodes.len() - round as usize % 2;
        assert!(tables.set_nodes(&nodes[..count], "zone-a", 0).is_empty());
    }
    println!("a node comes or goes, {services} services x {endpoints}: {:.0?}", begun.elapsed() / rounds);
}

/// Filling a table of the size that the number of members asks for.
fn maglev_table(count: u16) {
    let member = |number: u16| Member {
        address: [10, 244, (number >> 8) as u8, number as u8].into(),
        port: 8080,
        weight: 1,
    };
    let members: Vec<Member> = (0..count).map(member).collect();
    let cells = maglev::size(members.len(), 0, None);
    let rounds = 50;
    let begun = Instant::now();
    for _ in 0..rounds {
        black_box(maglev::table(black_box(&members), cells));
    }
    println!("Maglev table of {cells} cells for {count} members: {:.0?}", begun.elapsed() / rounds);
}

fn main() {
    // What a process has freed stays resident: each footprint is taken in a process of its own.
    if let Ok(which) = std::env::var(FOOTPRINT) {
        let (services, endpoints) = which.split_once(' ').unwrap();
        return footprint(services.parse().unwrap(), endpoints.parse().unwrap());
    }
    for which in ["5000 50", "10000 3"] {
        let status = Command::new(std::env::current_exe().unwrap()).env(FOOTPRINT, which).status();
        assert!(status.unwrap().success());
    }
    one_change(10_000, 3, 50);
    one_change(5_000, 50, 50);
    node_change(5_000, 50);
    for count in [3, 10, 40, 50, 160, 1_000] {
        maglev_table(count);
    }
}
