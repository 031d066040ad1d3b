//! Host ports of this node's pods.

use super::*;
use crate::{HostPort, Protocol};

fn port(host_ip: Option<&str>, number: u16, protocol: Protocol, pod_ips: &[&str]) -> HostPort {
    HostPort {
        host_ip: host_ip.map(|address| address.parse().unwrap()),
        port: number,
        protocol,
        container_port: 8080,
        pod_ips: pod_ips.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn set(fixture: &mut Fixture, pod: &str, ports: &[HostPort]) -> usize {
    let diff = fixture.tables.set_host_ports(ObjectKey::new("ns", pod), ports.to_vec(), fixture.now);
    fixture.take(diff)
}

const BOTH: &[&str] = &["10.244.0.5", "fd00:10:244::5"];

#[test]
fn a_port_is_served_where_its_host_ip_says() {
    let mut fixture = Fixture::started();
    let ports = [
        port(None, 8080, Protocol::Tcp, BOTH),
        port(Some("0.0.0.0"), 8081, Protocol::Udp, BOTH),
        port(Some("::"), 8082, Protocol::Sctp, BOTH),
        port(Some("127.0.0.1"), 8083, Protocol::Tcp, BOTH),
        port(Some("172.30.0.11"), 8083, Protocol::Tcp, BOTH),
    ];
    set(&mut fixture, "web", &ports);
    fixture.check(expect![[r#"
        127.0.0.1:8083/TCP -> [10.244.0.5:8080(local)] external
        172.30.0.11:8083/TCP -> [10.244.0.5:8080(local)] external
        nodePort:8080/TCP -> [10.244.0.5:8080(local)] external
        nodePort:8081/UDP -> [10.244.0.5:8080(local)] external
        nodePort6:8080/TCP -> [fd00:10:244::5:8080(local)] external
        nodePort6:8082/SCTP -> [fd00:10:244::5:8080(local)] external
    "#]]);
    assert!(fixture.model.vips.is_empty());
    assert_eq!(set(&mut fixture, "web", &ports), 0, "nothing changed");
    set(&mut fixture, "web", &ports[3..]);
    fixture.check(expect![[r#"
        127.0.0.1:8083/TCP -> [10.244.0.5:8080(local)] external
        172.30.0.11:8083/TCP -> [10.244.0.5:8080(local)] external
    "#]]);
    set(&mut fixture, "web", &[]);
    assert!(fixture.model.is_empty());
}

#[test]
fn the_first_pod_has_a_port_and_the_next_one_gets_it_when_it_is_free() {
    let mut fixture = Fixture::started();
    fixture.service("a", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80, "nodePort": 30080}]}));
    set(&mut fixture, "one", &[port(Some("0.0.0.0"), 8080, Protocol::Tcp, &["10.244.0.5"])]);
    set(
        &mut fixture,
        "two",
        &[
            port(Some("0.0.0.0"), 8080, Protocol::Tcp, &["10.244.0.6"]),
            port(None, 30080, Protocol::Tcp, &["10.244.0.6"]),
        ],
    );
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> []
        nodePort:8080/TCP -> [10.244.0.5:8080(local)] external
        nodePort:30080/TCP -> [] external node-port
        ! ns/two: spec: nodePort:8080/TCP belongs to pod ns/one
        ! ns/two: spec: nodePort:30080/TCP belongs to service ns/a
    "#]]);
    fixture.model.problems.clear();
    set(&mut fixture, "one", &[]);
    fixture.delete("a");
    fixture.check(expect![[r#"
        nodePort:8080/TCP -> [10.244.0.6:8080(local)] external
        nodePort:30080/TCP -> [10.244.0.6:8080(local)] external
    "#]]);
}

#[test]
fn a_pod_without_an_address_of_the_family_is_named() {
    let mut fixture = Fixture::started();
    set(&mut fixture, "web", &[port(Some("::"), 8080, Protocol::Tcp, &["10.244.0.5"])]);
    fixture.check(expect![[r#"
        ! ns/web: spec.containers.ports.hostPort: 8080: the pod has no address of hostIP's family
    "#]]);
}

#[test]
fn ports_that_are_told_before_the_start_survive_a_restart() {
    let mut before = Fixture::started();
    set(&mut before, "web", &[port(None, 8080, Protocol::Tcp, BOTH)]);
    set(&mut before, "gone", &[port(None, 8081, Protocol::Udp, BOTH)]);
    let model = before.model;
    let mut after = Fixture::new();
    after.tables.adopt(model.learned());
    after.model = Model { adopted: true, ..model.clone() };
    assert_eq!(set(&mut after, "web", &[port(None, 8080, Protocol::Tcp, BOTH)]), 0);
    let diff = after.tables.start(0);
    after.take(diff);
    assert_eq!((after.model.services.len(), after.model.frontends.len()), (2, 2));
    assert!(after.model.frontends.iter().all(|(key, row)| model.frontends[key] == *row));
    assert!(after.model.backends.iter().all(|(key, row)| model.backends[key] == *row));
}
