//! Two nodes, a client outside and real sockets: every way to a service, both families, TCP and UDP, and the death of the process that loaded
//! the programs. Each node is a network namespace on a bridge with an agent process of its own (`agent.rs`); pods are namespaces too.
//!
//! Needs root and a build with programs; otherwise it says so and passes. Not shown here: anything of Kubernetes but Services and
//! EndpointSlices as objects.
#![expect(clippy::unwrap_used, reason = "tests")]

mod affinity;
mod agent;
mod fabric;
mod peer;
mod reuse;

use std::collections::BTreeSet;
use std::net::IpAddr;

use agent::Agent;
use fabric::Fabric;
use network::Netns;
use peer::{Peer, Place, ask};
use serde_json::{Value, json};

/// How often a client asks, so that a fair choice between two backends shows both (2 to the power of -19 that it does not).
const ASKS: usize = 20;
const VIP4: &str = "10.97.0.10";
const VIP6: &str = "fd00:10:97::10";
const VIPS: [&str; 2] = [VIP4, VIP6];
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

/// The service with other fields in its spec.
fn service_with(fields: Value) -> Value {
    let mut service = service();
    service["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    service
}

/// A slice of one family with these endpoints: address and node.
fn slice(family: &str, endpoints: &[(IpAddr, String)], conditions: &Value) -> Value {
    let endpoint =
        |(address, node)| json!({"addresses": [address], "nodeName": node, "conditions": conditions});
    let endpoints: Vec<Value> = endpoints.iter().map(|(address, node)| endpoint((address, node))).collect();
    json!({
        "metadata": {"namespace": "default", "name": format!("echo-{family}"), "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": family,
        "ports": [{"name": "tcp", "protocol": "TCP", "port": 8080}, {"name": "udp", "protocol": "UDP", "port": 8080}],
        "endpoints": endpoints
    })
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

/// Two nodes with a backend each, and a pod without service on the first.
struct Cluster {
    fabric: Fabric,
    agents: [Option<Agent>; 2],
    /// Namespaces of the backends and of the third pod.
    pods: [String; 3],
    /// Addresses of the backends.
    backends: [Vec<IpAddr>; 2],
    _servers: [Peer; 2],
}

impl Cluster {
    fn start() -> Self {
        let fabric = Fabric::new();
        let (mut one, mut two) = (Agent::start(&fabric, 0), Agent::start(&fabric, 1));
        let pods = ["pa", "pb", "pc"].map(|name| fabric.namespace(name));
        let backends = [one.add_pod("uid-a", &pods[0]), two.add_pod("uid-b", &pods[1])];
        one.add_pod("uid-c", &pods[2]);
        let servers =
            [Peer::serve(&Place::outside(&pods[0]), "a"), Peer::serve(&Place::outside(&pods[1]), "b")];
        let mut cluster = Self { fabric, agents: [Some(one), Some(two)], pods, backends, _servers: servers };
        cluster.tell(&format!("service {}", service()));
        cluster
    }

    /// The third pod as a client whose sockets are served.
    fn by_socket(&self) -> Place {
        Place { namespace: self.pods[2].clone(), cgroup: Some(self.fabric.cgroup(0)) }
    }

    /// The third pod as a client of which only packets are seen.
    fn by_packet(&self) -> Place {
        Place::outside(&self.pods[2])
    }

    /// Publishes these backends as the endpoints, on every node whose agent lives.
    fn publish(&mut self, endpoints: &[usize]) {
        let all: Vec<_> =
            endpoints.iter().map(|backend| (self.backends[*backend].clone(), *backend)).collect();
        self.publish_slices(&all, &json!({}));
    }

    /// Publishes these addresses (of both families) on these nodes.
    fn publish_slices(&mut self, endpoints: &[(Vec<IpAddr>, usize)], conditions: &Value) {
        for family in ["IPv4", "IPv6"] {
            let of_family = |address: &&IpAddr| address.is_ipv4() == (family == "IPv4");
            let one = |(addresses, node): &(Vec<IpAddr>, usize)| {
                (*addresses.iter().find(of_family).unwrap(), format!("node{node}"))
            };
            let endpoints: Vec<(IpAddr, String)> = endpoints.iter().map(one).collect();
            let took = self.tell(&format!("slice {}", slice(family, &endpoints, conditions)));
            println!("slice to tables: {took} us");
        }
    }

    /// Gives an order to every agent that lives; what the first one says.
    fn tell(&mut self, order: &str) -> String {
        let answers: Vec<String> = self.agents.iter_mut().flatten().map(|agent| agent.tell(order)).collect();
        answers.into_iter().next().unwrap_or_default()
    }

    /// The first node itself, its sockets served.
    fn host(&self) -> Place {
        Place { namespace: self.fabric.node(0), cgroup: Some(self.fabric.cgroup(0)) }
    }

    fn outside(&self) -> Place {
        Place::outside(self.fabric.client())
    }

    fn node_addresses(&self, node: usize) -> [String; 2] {
        [self.fabric.address4(node), self.fabric.address6(node)]
    }
}

#[test]
fn services_answer_on_every_way_and_survive_their_loader() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::start();
    let refused = ask(&cluster.by_socket(), "tcp", VIP4, 80).unwrap_err();
    assert!(refused.contains("refused"), "no endpoints: {refused}");
    cluster.publish(&[0, 1]);
    pods_reach_pods(&cluster);
    pods_leave_the_cluster_under_their_nodes_address(&cluster);
    clients_inside_reach_services(&cluster);
    clients_outside_reach_node_ports(&cluster);
    cluster.publish(&[0]);
    check_both("a pod to itself by clusterIP", &Place::outside(&cluster.pods[0]), VIPS, 80, &["a"]);
    cluster.publish(&[0, 1]);
    a_dead_loader_is_not_missed(&mut cluster);
}

fn pods_reach_pods(cluster: &Cluster) {
    for (backend, name, what) in
        [(0, "a", "pod to the pod on its node"), (1, "b", "pod to the pod on the other node")]
    {
        let addresses = cluster.backends[backend].iter().map(IpAddr::to_string).collect::<Vec<_>>();
        check_both(what, &cluster.by_packet(), [&addresses[0], &addresses[1]], 8080, &[name]);
    }
}

fn pods_leave_the_cluster_under_their_nodes_address(cluster: &Cluster) {
    let _server = Peer::serve(&cluster.outside(), "c");
    let nodes = cluster.node_addresses(0).map(|address| address.parse::<IpAddr>().unwrap());
    for (address, node) in ["172.31.77.3", "fd31:77::3"].into_iter().zip(nodes) {
        for protocol in ["tcp", "udp"] {
            let answer = ask(&cluster.by_packet(), protocol, address, 8080).unwrap();
            assert_eq!(answer.seen, node, "{protocol}");
            println!("ok: pod to the outside: {protocol} {address}");
        }
    }
}

fn clients_inside_reach_services(cluster: &Cluster) {
    let host = cluster.host();
    check_both("pod to clusterIP at the socket", &cluster.by_socket(), VIPS, 80, &["a", "b"]);
    let answer = ask(&cluster.by_socket(), "tcp", VIP4, 80).unwrap();
    assert_eq!(answer.peer, format!("{VIP4}:80"), "getpeername gives the service address");
    check_both("pod to clusterIP on packets", &cluster.by_packet(), VIPS, 80, &["a", "b"]);
    check_both("host to clusterIP", &host, VIPS, 80, &["a", "b"]);
    let [four, six] = cluster.node_addresses(0);
    check_both("host to its node port", &host, [&four, &six], NODE_PORT, &["a", "b"]);
    check_both("host to the node port on loopback", &host, ["127.0.0.1", "::1"], NODE_PORT, &["a", "b"]);
    let [four, six] = cluster.node_addresses(1);
    check_both("pod to the other node's port", &cluster.by_socket(), [&four, &six], NODE_PORT, &["a", "b"]);
}

fn clients_outside_reach_node_ports(cluster: &Cluster) {
    for node in [0, 1] {
        let [four, six] = cluster.node_addresses(node);
        let outside = cluster.outside();
        check_both("outside to the node port", &outside, [&four, &six], NODE_PORT, &["a", "b"]);
    }
}

fn a_dead_loader_is_not_missed(cluster: &mut Cluster) {
    let outside = cluster.outside();
    let [four, six] = cluster.node_addresses(0);
    let held = [
        (cluster.by_socket(), VIP4, 80),
        (cluster.by_packet(), VIP6, 80),
        (outside.clone(), &*four, NODE_PORT),
    ];
    let mut held = held.map(|(place, address, port)| Peer::hold(&place, address, port));
    cluster.agents[0].take().unwrap().kill();
    held.iter_mut().for_each(|peer| peer.echo("while the agent is dead"));
    check_both("new connections while the agent is dead", &cluster.by_packet(), VIPS, 80, &["a", "b"]);
    check_both("new connections while the agent is dead", &outside, [&four, &six], NODE_PORT, &["a", "b"]);

    let mut one = Agent::start(&cluster.fabric, 0);
    held.iter_mut().for_each(|peer| peer.echo("before the new agent knows anything"));
    one.tell("recover uid-a uid-c");
    one.tell(&format!("service {}", service()));
    cluster.agents[0] = Some(one);
    cluster.publish(&[0, 1]);
    let one = cluster.agents[0].as_mut().unwrap();
    one.tell("start");
    held.iter_mut().for_each(|peer| peer.echo("after the new agent has taken over"));
    let flows: usize = one.tell("collect").parse().unwrap();
    assert!(flows > 0, "connections balanced on packets are in the flow table");
    held.iter_mut().for_each(|peer| peer.echo("after idle flows were looked for"));
    check_both("after the restart", &cluster.by_socket(), VIPS, 80, &["a", "b"]);
    check_both("after the restart", &outside, [&four, &six], NODE_PORT, &["a", "b"]);
}

#[test]
fn tables_of_other_layouts_and_sizes_hold_every_connection() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::start();
    cluster.publish(&[0, 1]);
    let outside = cluster.outside();
    let [four, six] = cluster.node_addresses(0);
    let places = [
        (cluster.by_socket(), VIP4, 80),
        (cluster.by_packet(), VIP4, 80),
        (cluster.by_packet(), VIP6, 80),
        (outside.clone(), &*four, NODE_PORT),
        (outside.clone(), &*six, NODE_PORT),
    ];
    let hold = || places.clone().map(|(place, address, port)| Peer::hold(&place, address, port));
    // Several each: backends on either node.
    let mut held: Vec<Peer> = (0..4).flat_map(|_| hold()).collect();
    for (build, salt) in [("an upgrade", 7), ("the way back", 0)] {
        cluster.agents[0].take().unwrap().kill();
        let mut one = Agent::of_build(&cluster.fabric, 0, salt);
        held.iter_mut().for_each(|peer| peer.echo("before the new build knows anything"));
        one.tell("recover uid-a uid-c");
        one.tell(&format!("service {}", service()));
        cluster.agents[0] = Some(one);
        cluster.publish(&[0, 1]);
        cluster.agents[0].as_mut().unwrap().tell("start");
        held.iter_mut().for_each(|peer| peer.echo("after the new build has taken over"));
        check_both(build, &outside, [&four, &six], NODE_PORT, &["a", "b"]);
        held.extend(hold());
    }
    for _ in 0..2 {
        let grown = cluster.agents[0].as_mut().unwrap().tell("grow");
        assert_eq!(grown, "true");
        held.iter_mut().for_each(|peer| peer.echo("after the tables have grown"));
        check_both("grown tables", &cluster.by_packet(), VIPS, 80, &["a", "b"]);
        held.extend(hold());
    }
    held.iter_mut().for_each(|peer| peer.echo("at the end"));
}

#[test]
fn policies_addresses_and_host_backends_are_honoured() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::start();
    cluster.publish(&[0, 1]);
    clients_keep_their_address_inside_the_cluster(&cluster);
    external_addresses_are_served(&mut cluster);
    external_traffic_policy_local_stays_on_the_node(&mut cluster);
    internal_traffic_policy_local_stays_on_the_node(&mut cluster);
    cluster.tell(&format!("service {}", service()));
    affinity::clients_stay_with_their_backend(&mut cluster);
    terminating_endpoints_serve_when_nothing_else_does(&mut cluster);
    backends_on_the_host_network_are_reached(&mut cluster);
    udp_flows_move_when_their_backend_goes(&mut cluster);
}

#[test]
fn source_ports_may_be_used_again() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::start();
    cluster.publish(&[0, 1]);
    reuse::source_ports_are_free_again(&cluster);
}

/// The client's address that a backend of this name sees.
#[track_caller]
fn seen_by(name: &str, place: &Place, to: &str, port: u16) -> IpAddr {
    let answers = (0..ASKS).map(|_| ask(place, "tcp", to, port).unwrap());
    answers.into_iter().find(|answer| answer.backend == name).unwrap().seen
}

fn clients_keep_their_address_inside_the_cluster(cluster: &Cluster) {
    let client = Netns::open(format!("/run/netns/{}", cluster.pods[2]).as_ref()).unwrap();
    let own = client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.97.9.9:9").unwrap();
        socket.local_addr().unwrap().ip()
    });
    let own = own.unwrap();
    for place in [cluster.by_socket(), cluster.by_packet()] {
        assert_eq!([seen_by("a", &place, VIP4, 80), seen_by("b", &place, VIP4, 80)], [own, own]);
    }
    let node: IpAddr = cluster.fabric.address4(0).parse().unwrap();
    let seen = seen_by("b", &cluster.outside(), &cluster.fabric.address4(0), NODE_PORT);
    assert_eq!(seen, node, "to another node, a client outside comes from the node that it asked");
    println!("ok: client addresses");
}

fn external_addresses_are_served(cluster: &mut Cluster) {
    cluster
        .tell(&format!("service {}", service_with(json!({"externalIPs": ["203.0.113.7", "2001:db8::7"]}))));
    for place in [cluster.by_socket(), cluster.by_packet(), cluster.host()] {
        check_both("external address", &place, ["203.0.113.7", "2001:db8::7"], 80, &["a", "b"]);
    }
}

fn external_traffic_policy_local_stays_on_the_node(cluster: &mut Cluster) {
    cluster.tell(&format!("service {}", service_with(json!({"externalTrafficPolicy": "Local"}))));
    for (node, name) in [(0, "a"), (1, "b")] {
        let [four, six] = cluster.node_addresses(node);
        check_both(
            "outside, externalTrafficPolicy=Local",
            &cluster.outside(),
            [&four, &six],
            NODE_PORT,
            &[name],
        );
        let client: IpAddr = "172.31.77.3".parse().unwrap();
        assert_eq!(
            seen_by(name, &cluster.outside(), &four, NODE_PORT),
            client,
            "the client keeps its address"
        );
    }
    cluster.publish(&[1]);
    let [four, six] = cluster.node_addresses(0);
    for (protocol, address) in [("tcp", &four), ("udp", &six)] {
        assert!(ask(&cluster.outside(), protocol, address, NODE_PORT).is_err(), "no endpoint on the node");
    }
    check_both("inside, externalTrafficPolicy=Local", &cluster.by_socket(), VIPS, 80, &["b"]);
    check_both("a pod to its own node's port", &cluster.by_socket(), [&four, &six], NODE_PORT, &["b"]);
}

fn internal_traffic_policy_local_stays_on_the_node(cluster: &mut Cluster) {
    cluster.tell(&format!("service {}", service_with(json!({"internalTrafficPolicy": "Local"}))));
    for place in [cluster.by_socket(), cluster.by_packet()] {
        for address in VIPS {
            assert!(ask(&place, "tcp", address, 80).is_err(), "no endpoint on the node");
        }
    }
    cluster.publish(&[0, 1]);
    check_both("internalTrafficPolicy=Local at the socket", &cluster.by_socket(), VIPS, 80, &["a"]);
    check_both("internalTrafficPolicy=Local on packets", &cluster.by_packet(), VIPS, 80, &["a"]);
    check_both("internalTrafficPolicy=Local from the host", &cluster.host(), VIPS, 80, &["a"]);
}

fn terminating_endpoints_serve_when_nothing_else_does(cluster: &mut Cluster) {
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let all = [(cluster.backends[0].clone(), 0), (cluster.backends[1].clone(), 1)];
    cluster.publish_slices(&all, &terminating);
    check_both("terminating endpoints", &cluster.by_socket(), VIPS, 80, &["a", "b"]);
    cluster.publish_slices(&all, &json!({"ready": false, "serving": false, "terminating": true}));
    let refused = ask(&cluster.by_socket(), "tcp", VIP4, 80).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let refused = ask(&cluster.by_packet(), "tcp", VIP6, 80).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let [four, _] = cluster.node_addresses(1);
    let refused = ask(&cluster.outside(), "tcp", &four, NODE_PORT).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
}

fn backends_on_the_host_network_are_reached(cluster: &mut Cluster) {
    let _servers =
        [0, 1].map(|node| Peer::serve(&Place::outside(cluster.fabric.node(node)), &format!("host{node}")));
    let addresses = |node| cluster.node_addresses(node).map(|address| address.parse().unwrap()).to_vec();
    let all = [(addresses(0), 0), (addresses(1), 1)];
    cluster.publish_slices(&all, &json!({}));
    let both = &["host0", "host1"];
    check_both("host-network backends at the socket", &cluster.by_socket(), VIPS, 80, both);
    check_both("host-network backends on packets", &cluster.by_packet(), VIPS, 80, both);
    check_both("host-network backends from the host", &cluster.host(), VIPS, 80, both);
    for node in [0, 1] {
        let [four, six] = cluster.node_addresses(node);
        check_both("host-network backends from outside", &cluster.outside(), [&four, &six], NODE_PORT, both);
    }
}

/// One client port, busy all the time: it must never be stuck with a backend that is gone.
fn udp_flows_move_when_their_backend_goes(cluster: &mut Cluster) {
    let node = cluster.fabric.address4(0);
    let clients = [
        ("at the socket", cluster.by_socket(), VIP4, 80),
        ("on packets", cluster.by_packet(), VIP4, 80),
        ("on packets, IPv6", cluster.by_packet(), VIP6, 80),
        ("from the host", cluster.host(), VIP6, 80),
        ("from outside", cluster.outside(), &*node, NODE_PORT),
    ];
    let mut clients = clients.map(|(what, place, to, port)| (what, Peer::keep_asking(&place, to, port)));
    for (endpoints, expected) in [(&[0][..], "a"), (&[1], "b"), (&[], "error"), (&[0], "a"), (&[1], "b")] {
        cluster.publish(endpoints);
        for (what, client) in &mut clients {
            // The datagram that meets a refusal tells the socket; the next one is judged anew.
            let answers = [client.once_more(), client.once_more()];
            assert!(answers[1].starts_with(expected), "{what}, endpoints {endpoints:?}: {answers:?}");
        }
    }
    println!("ok: UDP flows move");
}
