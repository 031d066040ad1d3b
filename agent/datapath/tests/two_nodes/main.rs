//! Two nodes, a client outside and real sockets: every way to a service, both families, TCP and UDP, and the death of the process that loaded
//! the programs. Each node is a network namespace on a bridge with an agent process of its own (`agent.rs`); pods are namespaces too.
//!
//! Needs root and a build with programs; otherwise it says so and passes. Not shown here: anything of Kubernetes but Services and
//! EndpointSlices as objects.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agent;
mod fabric;
mod peer;

use std::collections::BTreeSet;
use std::net::IpAddr;

use agent::Agent;
use fabric::Fabric;
use peer::{Peer, Place, ask};
use serde_json::{Value, json};

/// How often a client asks, so that a fair choice between two backends shows both (2 to the power of -19 that it does not).
const ASKS: usize = 20;
const VIP4: &str = "10.97.0.10";
const VIP6: &str = "fd00:10:97::10";
const NODE_PORT: u16 = 30_080;

/// Entry of the child processes: the test binary runs itself with a role in the environment.
#[test]
fn child_process() {
    match std::env::var("BEELINE_TEST_ROLE").as_deref() {
        Ok("agent") => agent::main(),
        Ok("peer") => peer::main(),
        _ => {}
    }
}

/// The service `echo`, with all its addresses.
fn service() -> Value {
    json!({
        "metadata": {"namespace": "default", "name": "echo"},
        "spec": {
            "type": "NodePort", "clusterIP": VIP4, "clusterIPs": [VIP4, VIP6],
            "ports": [
                {"name": "tcp", "protocol": "TCP", "port": 80, "nodePort": NODE_PORT},
                {"name": "udp", "protocol": "UDP", "port": 80, "nodePort": NODE_PORT}
            ]
        }
    })
}

/// A slice of one family with these endpoints: address and node.
fn slice(family: &str, endpoints: &[(IpAddr, &str)]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|(address, node)| json!({"addresses": [address], "nodeName": node})).collect();
    json!({
        "metadata": {"namespace": "default", "name": format!("echo-{family}"), "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": family,
        "ports": [{"name": "tcp", "protocol": "TCP", "port": 8080}, {"name": "udp", "protocol": "UDP", "port": 8080}],
        "endpoints": endpoints
    })
}

/// Publishes these pods (address pair, node) as the endpoints, everywhere.
fn publish(agents: &mut [&mut Agent], pods: &[(&[IpAddr], &str)]) {
    for family in ["IPv4", "IPv6"] {
        let of_family = |addresses: &[IpAddr]| *addresses.iter().find(|address| address.is_ipv4() == (family == "IPv4")).unwrap();
        let endpoints: Vec<(IpAddr, &str)> = pods.iter().map(|(addresses, node)| (of_family(addresses), *node)).collect();
        for agent in agents.iter_mut() {
            agent.tell(&format!("slice {}", slice(family, &endpoints)));
        }
    }
}

/// Asks again and again; all answers must come, and from exactly these backends.
#[track_caller]
fn check_spread(what: &str, place: &Place, protocol: &str, to: &str, port: u16, expected: &[&str]) {
    let mut names = BTreeSet::new();
    for _ in 0..ASKS {
        let answer = ask(place, protocol, to, port);
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {protocol} {to}:{port}: {error}"));
        names.insert(answer.backend);
    }
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names, expected, "{what}: {protocol} {to}:{port}");
    println!("ok: {what}: {protocol} {to}:{port}");
}

/// Asks again and again with both protocols at both addresses.
#[track_caller]
fn check_both(what: &str, place: &Place, addresses: [&str; 2], port: u16, expected: &[&str]) {
    for address in addresses {
        for protocol in ["tcp", "udp"] {
            check_spread(what, place, protocol, address, port, expected);
        }
    }
}

fn can_run() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return false;
    }
    if !datapath::has_programs() {
        println!("skipped: needs a build with BPF programs (cargo xtask build)");
        return false;
    }
    true
}

#[test]
fn services_answer_on_every_way_and_survive_their_loader() {
    if !can_run() {
        return;
    }
    let fabric = Fabric::new();
    let (mut one, mut two) = (Agent::start(&fabric, 0), Agent::start(&fabric, 1));
    let (pod_a, pod_b, pod_c) = (fabric.namespace("pa"), fabric.namespace("pb"), fabric.namespace("pc"));
    let a = one.add_pod("uid-a", &pod_a);
    let b = two.add_pod("uid-b", &pod_b);
    one.add_pod("uid-c", &pod_c);
    let _servers = [Peer::serve(&Place::outside(&pod_a), "a"), Peer::serve(&Place::outside(&pod_b), "b")];
    for agent in [&mut one, &mut two] {
        agent.tell(&format!("service {}", service()));
    }

    let pod_by_socket = Place { namespace: pod_c.clone(), cgroup: Some(fabric.cgroup(0)) };
    let pod_by_packet = Place::outside(&pod_c);
    let host = Place { namespace: fabric.node(0).to_owned(), cgroup: Some(fabric.cgroup(0)) };
    let outside = Place::outside(fabric.client());

    let refused = ask(&pod_by_socket, "tcp", VIP4, 80).unwrap_err();
    assert!(refused.contains("refused"), "no endpoints: {refused}");

    publish(&mut [&mut one, &mut two], &[(&a, "node0"), (&b, "node1")]);
    check_both("pod to the pod on its node", &pod_by_packet, [&a[0].to_string(), &a[1].to_string()], 8080, &["a"]);
    check_both("pod to the pod on the other node", &pod_by_packet, [&b[0].to_string(), &b[1].to_string()], 8080, &["b"]);
    check_both("pod to clusterIP at the socket", &pod_by_socket, [VIP4, VIP6], 80, &["a", "b"]);
    let answer = ask(&pod_by_socket, "tcp", VIP4, 80).unwrap();
    assert_eq!(answer.peer, format!("{VIP4}:80"), "getpeername gives the service address");
    check_both("pod to clusterIP on packets", &pod_by_packet, [VIP4, VIP6], 80, &["a", "b"]);
    check_both("host to clusterIP", &host, [VIP4, VIP6], 80, &["a", "b"]);
    check_both("host to its node port", &host, [&fabric.address4(0), &fabric.address6(0)], NODE_PORT, &["a", "b"]);
    check_both("host to the node port on loopback", &host, ["127.0.0.1", "::1"], NODE_PORT, &["a", "b"]);
    for node in [0, 1] {
        let addresses = [&*fabric.address4(node), &*fabric.address6(node)];
        check_both("outside to the node port", &outside, addresses, NODE_PORT, &["a", "b"]);
    }

    publish(&mut [&mut one, &mut two], &[(&a, "node0")]);
    check_both("a pod to itself by clusterIP", &Place::outside(&pod_a), [VIP4, VIP6], 80, &["a"]);
    publish(&mut [&mut one, &mut two], &[(&a, "node0"), (&b, "node1")]);

    let mut held: Vec<Peer> = [(&pod_by_socket, VIP4, 80), (&pod_by_packet, VIP6, 80), (&outside, &*fabric.address4(0), NODE_PORT)]
        .into_iter()
        .map(|(place, address, port)| Peer::hold(place, address, port))
        .collect();
    one.kill();
    held.iter_mut().for_each(|peer| peer.echo("while the agent is dead"));
    check_both("new connections while the agent is dead", &pod_by_packet, [VIP4, VIP6], 80, &["a", "b"]);
    check_both("new node port connections while the agent is dead", &outside, [&fabric.address4(0), &fabric.address6(0)], NODE_PORT, &["a", "b"]);

    let mut one = Agent::start(&fabric, 0);
    held.iter_mut().for_each(|peer| peer.echo("before the new agent knows anything"));
    one.tell("recover uid-a uid-c");
    one.tell(&format!("service {}", service()));
    publish(&mut [&mut one], &[(&a, "node0"), (&b, "node1")]);
    one.tell("start");
    held.iter_mut().for_each(|peer| peer.echo("after the new agent has taken over"));
    check_both("after the restart", &pod_by_socket, [VIP4, VIP6], 80, &["a", "b"]);
    check_both("after the restart", &outside, [&fabric.address4(0), &fabric.address6(0)], NODE_PORT, &["a", "b"]);
}
