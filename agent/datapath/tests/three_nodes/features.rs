//! What Services may ask for beyond the matrix: each rule with a Service of its own.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::client::{Outcome, Sight, Transport};
use crate::cluster::{Backend, Cluster, Hook, Who};
use crate::ping;
use crate::server::PORT;
use crate::spec::{Address, PODS, Shape, shape};

/// Both ways to ask that hear of refusals.
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::UdpConnected];

/// Publishes a Service with further fields in its spec, and annotations.
pub fn publish(cluster: &mut Cluster, shape: &Shape, fields: Value, annotations: Value) {
    let mut service = shape.service(fields);
    service["metadata"]["annotations"] = annotations;
    cluster.tell(&format!("service {service}"));
    cluster.publish(shape.name, shape.endpoints);
}

/// The only backend that has answered.
#[track_caller]
pub fn sight(outcome: &Outcome) -> &Sight {
    match outcome {
        Outcome::Answered(sights) if sights.len() == 1 => sights.first().unwrap(),
        other => panic!("no answer: {other:?}"),
    }
}

pub fn once(
    cluster: &mut Cluster,
    client: (Who, Hook),
    transport: Transport,
    to: SocketAddr,
    from: Option<u16>,
) -> Outcome {
    cluster.clients.get_mut(&client).unwrap().once(transport, to, from)
}

/// Needs the Services of the matrix.
pub fn service_addresses_answer_pings(cluster: &Cluster) {
    let service = &crate::spec::SHAPES[0];
    let inside = [(Who::Pod(0), Hook::Packet), (Who::Pod(2), Hook::Packet)];
    let mut wrong = Vec::new();
    for six in [false, true] {
        let mut check = |who: Who, hook: Hook, address: Address, expected: bool| {
            let to = service.socket_address(cluster, address, six).ip();
            if ping::answers(&cluster.place(who, hook).namespace, to) != expected {
                wrong.push(format!("{who:?} to {address:?} {to}: expected {expected}"));
            }
        };
        for (who, hook) in inside {
            check(who, hook, Address::Cluster, true);
            check(who, hook, Address::External, true);
            check(who, hook, Address::LoadBalancer, true);
            check(who, hook, Address::Unallocated, false);
        }
        check(Who::Outside, Hook::Packet, Address::External, true);
        check(Who::Outside, Hook::Packet, Address::LoadBalancer, true);
        check(Who::Outside, Hook::Packet, Address::NodePort(1), true);
    }
    assert!(wrong.is_empty(), "pings: {wrong:#?}");
    println!("ok: pings");
}

/// A pod that asks outside, without any Service: the node's address is seen.
pub fn pods_leave_the_cluster_under_their_nodes_address(cluster: &mut Cluster) {
    for (node, six) in [0, 2].into_iter().flat_map(|node| [(node, false), (node, true)]) {
        let to = SocketAddr::new(cluster.backend_address(Backend::Outer, six), PORT);
        for transport in [Transport::Tcp, Transport::Udp] {
            let outcome = once(cluster, (Who::Pod(node), Hook::Packet), transport, to, None);
            assert_eq!(sight(&outcome).seen, cluster.node_address(node, six), "{transport:?} {to}");
        }
    }
    println!("ok: pods to the outside");
}

/// `loadBalancerSourceRanges` binds the balancer's address and nothing else.
pub fn source_ranges_bind_the_balancers_address(cluster: &mut Cluster) {
    let service = shape("source-ranges", 20, [false, false], PODS);
    let ranges = json!(["172.31.78.3/32", "fd31:78::3/128", "10.246.2.0/24", "fd00:10:246:2::/64"]);
    publish(cluster, &service, json!({"loadBalancerSourceRanges": ranges}), json!({}));
    let mut wrong = Vec::new();
    for (client, allowed) in [
        ((Who::Outside, Hook::Packet), true),
        ((Who::Pod(2), Hook::Packet), true),
        ((Who::Pod(2), Hook::Socket), true),
        ((Who::Pod(0), Hook::Packet), false),
        ((Who::Pod(0), Hook::Socket), false),
        ((Who::Host(0), Hook::Socket), false),
    ] {
        for (six, transport) in [false, true].into_iter().flat_map(|six| TRANSPORTS.map(|way| (six, way))) {
            for (address, allowed) in
                [(Address::LoadBalancer, allowed), (Address::External, true), (Address::NodePort(0), true)]
            {
                let to = service.socket_address(cluster, address, six);
                let outcome = once(cluster, client, transport, to, None);
                let answered = matches!(outcome, Outcome::Answered(_));
                if answered != allowed || outcome == Outcome::Refused {
                    wrong.push(format!(
                        "{client:?} {transport:?} {to}: allowed is {allowed}, but {outcome:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "source ranges: {wrong:#?}");
    println!("ok: source ranges");
}

/// A client's connection goes to the same backend by whichever node it comes in.
pub fn maglev_is_the_same_on_all_nodes(cluster: &mut Cluster) {
    const BACKENDS: &[Backend] =
        &[Backend::Pod(0), Backend::Pod(1), Backend::Host(0), Backend::Host(1), Backend::Outer];
    let service = shape("maglev", 21, [false, false], BACKENDS);
    publish(cluster, &service, json!({}), json!({"beeline.io/algorithm": "maglev"}));
    for (six, transport) in [(false, Transport::Tcp), (true, Transport::Tcp), (false, Transport::Udp)] {
        let to = service.socket_address(cluster, Address::LoadBalancer, six);
        let by_node = [0, 1, 2].map(|node| {
            let range = [false, true].map(|six| service.balancer_ip(six));
            cluster.route_from_outside([&range[0], &range[1]], node);
            let ask = |port| once(cluster, (Who::Outside, Hook::Packet), transport, to, Some(port));
            (50_000..50_016).map(ask).map(|outcome| sight(&outcome).backend.clone()).collect::<Vec<_>>()
        });
        assert_eq!(by_node[0], by_node[1], "{transport:?} {to} by nodes 0 and 1");
        assert_eq!(by_node[0], by_node[2], "{transport:?} {to} by nodes 0 and 2");
        let seen: BTreeSet<&String> = by_node[0].iter().collect();
        assert!(seen.len() >= 3, "sixteen connections over five backends: {seen:?}");
    }
    println!("ok: Maglev");
}

/// A hostPort with a hostIP is served there and nowhere else.
pub fn host_ports_may_have_an_address(cluster: &mut Cluster) {
    let (port, own) = (8090, cluster.node_address(1, false));
    let pod = [false, true].map(|six| cluster.backend_address(Backend::Pod(1), six).to_string());
    cluster.agents[1].tell(&format!("hostport uid-b1 {port} {own} {}", pod.join(",")));
    for transport in TRANSPORTS {
        for (node, six, expected) in [(1, false, true), (1, true, false), (0, false, false)] {
            let to = SocketAddr::new(cluster.node_address(node, six), port);
            for client in
                [(Who::Outside, Hook::Packet), (Who::Pod(0), Hook::Packet), (Who::Pod(2), Hook::Socket)]
            {
                let outcome = once(cluster, client, transport, to, None);
                let right = if expected {
                    matches!(&outcome, Outcome::Answered(sights) if sights.iter().all(|sight| sight.backend == "pod1"))
                } else {
                    outcome == Outcome::Refused
                };
                assert!(right, "{client:?} {transport:?} {to}: {outcome:?}");
            }
        }
    }
    println!("ok: hostPort with hostIP");
}

/// Nothing on a node takes a port that packets would never reach. Needs the Services of the matrix.
pub fn node_ports_cannot_be_bound(cluster: &mut Cluster) {
    let taken = crate::spec::SHAPES[0].node_port();
    let any = |six: bool| -> IpAddr { if six { "::" } else { "0.0.0.0" }.parse().unwrap() };
    for six in [false, true] {
        let client = (Who::Host(0), Hook::Socket);
        let outcome = once(cluster, client, Transport::Bind, SocketAddr::new(any(six), taken), None);
        assert_eq!(outcome, Outcome::Refused, "a node port on the node, IPv6 {six}");
        let outcome = once(cluster, client, Transport::Bind, SocketAddr::new(any(six), 30_999), None);
        assert!(matches!(outcome, Outcome::Answered(_)), "a free port on the node: {outcome:?}");
        let client = (Who::Pod(0), Hook::Socket);
        let outcome = once(cluster, client, Transport::Bind, SocketAddr::new(any(six), taken), None);
        assert!(matches!(outcome, Outcome::Answered(_)), "the same port in a pod: {outcome:?}");
    }
    println!("ok: node ports are not bound");
}
