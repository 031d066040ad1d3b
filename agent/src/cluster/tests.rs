//! Events in, packets out: a node in network namespaces, with real programs and sockets; its pods are routed by somebody else's network
//! (role `proxy`) or by ours. Needs root and the BPF object.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use datapath::{NodeConfig, Options, Uplink, XdpChoice};
use network::{Netns, PodIdentity, PodNetwork};
use serde_json::json;

use super::*;
use crate::pods::Served;
use crate::segment::{ForeignNetwork, OwnNetwork};

/// The process is moved into the node's cgroup while a test makes sockets, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[track_caller]
fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A client, a node and a pod behind it: 172.31.66.2 - 172.31.66.1, 10.77.1.1 - 10.77.1.5, the pod routed by the kernel alone.
struct Place {
    name: String,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !datapath::has_programs() {
            println!("skipped: needs root and the BPF object");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = Self { name: format!("blag{}", std::process::id()), _alone: alone };
        let [client, node, pod] = ["c", "n", "p"].map(|it| place.namespace(it));
        for namespace in [&client, &node, &pod] {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        for (near, far, device, addresses) in [
            (&node, &client, "eth0", ["172.31.66.1/24", "172.31.66.2/24"]),
            (&node, &pod, "pod0", ["10.77.1.1/24", "10.77.1.5/24"]),
        ] {
            run(&format!("ip -n {near} link add {device} type veth peer name eth0 netns {far}"));
            for (namespace, device, address) in [(near, device, addresses[0]), (far, "eth0", addresses[1])] {
                run(&format!("ip netns exec {namespace} ethtool -K {device} tx off"));
                run(&format!("ip -n {namespace} address add {address} dev {device}"));
                run(&format!("ip -n {namespace} link set {device} up"));
            }
        }
        run(&format!("ip -n {pod} route add default via 10.77.1.1"));
        run(&format!("ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1"));
        Some(place)
    }

    fn namespace(&self, short: &str) -> String {
        format!("{}-{short}", self.name)
    }

    fn inside<T: Send>(&self, short: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from(format!("/run/netns/{}", self.namespace(short)));
        Netns::open(&path).unwrap().run(work).unwrap()
    }

    fn bpf_dir(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.bpf_dir());
        for short in ["c", "n", "p", "q"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(short)]).status();
        }
    }
}

/// This process in another cgroup, until dropped. Sockets belong to the cgroup of their making.
struct Moved {
    back: PathBuf,
    cgroup: PathBuf,
}

impl Moved {
    fn into(cgroup: &Path, name: &str) -> Self {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
        let tree = cgroup.to_str().unwrap().strip_suffix(name).unwrap();
        std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        Self { back: Path::new(tree).join(own).join("cgroup.procs"), cgroup: cgroup.to_owned() }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.back, std::process::id().to_string());
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

/// An agent without its watches and its kubelet. Made and used on a thread inside the node's namespace.
struct Agent {
    cluster: Cluster,
    view: View,
    /// In a network of our own.
    pods: Option<PodNetwork>,
}

fn open(place: &Place, own: bool) -> (Arc<Dataplane>, Uplink) {
    let device = device::find("eth0").unwrap();
    let uplink = Uplink {
        name: "eth0".into(),
        ifindex: device.index,
        mac: device.mac,
        mtu: device.mtu,
        veth: device.veth,
    };
    let options = Options {
        bpf_dir: place.bpf_dir(),
        cgroup: place.name.clone(),
        uplinks: vec![uplink.clone()],
        xdp: XdpChoice::Auto,
        flow_entries: Some(4096),
        ..Options::default()
    };
    let range = |text: &str, prefix| vec![(text.parse().unwrap(), prefix)];
    let config = NodeConfig {
        pod_cidrs: if own { range("10.77.2.0", 24) } else { Vec::new() },
        cluster_cidrs: range("10.77.0.0", 16),
        service_cidrs: range("10.96.0.0", 16),
        addresses: vec!["172.31.66.1".parse().unwrap()],
        masquerade: own,
        ..NodeConfig::default()
    };
    let (dataplane, _) = Dataplane::open(options, config).unwrap();
    (Arc::new(dataplane), uplink)
}

impl Agent {
    fn new(dataplane: Arc<Dataplane>, segment: Box<dyn Segment>, pods: Option<PodNetwork>) -> Self {
        let progress = Arc::new(Progress::default());
        let mut cluster = Cluster {
            node_name: "n".into(),
            node_ips: vec!["172.31.66.1".parse().unwrap()],
            uplinks: vec![device::find("eth0").unwrap().index],
            node_ports: NodePortAddresses::All,
            dead_sockets: DeadSockets::start(Arc::clone(&dataplane), Arc::clone(&progress)).unwrap(),
            checks: HealthChecks::new(Arc::clone(&progress), None),
            dataplane,
            segment,
            progress,
            pods: None,
        };
        let mut view = View::new("n", Learned::default(), false);
        cluster.service(&mut view, watcher::Event::InitDone);
        cluster.slice(&mut view, watcher::Event::InitDone);
        view.node(watcher::Event::InitApply(node("n", "172.31.66.1", "10.77.2.0/24")));
        view.node(watcher::Event::InitDone);
        cluster.publish_nodes(&mut view);
        let diff = view.start(cluster.dataplane.now_ms());
        cluster.write(Instant::now(), diff);
        Self { cluster, view, pods }
    }

    /// Role `proxy`.
    fn of_foreign_network(place: &Place) -> Self {
        let (dataplane, _) = open(place, false);
        Self::new(dataplane, Box::new(ForeignNetwork), None)
    }

    /// Role `run`.
    fn of_own_network(place: &Place, state: &Path) -> Self {
        let (dataplane, uplink) = open(place, true);
        let config = network::Config { state_dir: state.to_owned(), uplink: uplink.name.clone() };
        let pods = PodNetwork::new(config, Arc::new(Served(Arc::clone(&dataplane)))).unwrap();
        pods.set_pod_cidrs(&["10.77.2.0/24".parse().unwrap()]).unwrap();
        let own = Some("172.31.66.1".parse().unwrap());
        let segment =
            OwnNetwork::open(&uplink.name, uplink.mtu, own, Some(&dataplane), pods.clone()).unwrap();
        Self::new(dataplane, Box::new(segment), Some(pods))
    }

    fn service(&mut self, event: watcher::Event<Service>) {
        self.cluster.service(&mut self.view, event);
    }

    fn slice(&mut self, event: watcher::Event<EndpointSlice>) {
        self.cluster.slice(&mut self.view, event);
    }

    fn node(&mut self, event: watcher::Event<Node>) {
        let changes = self.view.node(event);
        self.cluster.apply(Instant::now(), &mut self.view, changes);
    }
}

fn node(name: &str, address: &str, pod_cidr: &str) -> Node {
    let json = json!({
        "metadata": {"name": name}, "spec": {"podCIDRs": [pod_cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    });
    serde_json::from_value(json).unwrap()
}

fn service(protocol: &str, policy: &str) -> watcher::Event<Service> {
    let json = json!({
        "metadata": {"namespace": "ns", "name": "web"},
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "nodePort": 30080, "protocol": protocol}],
        },
    });
    watcher::Event::Apply(serde_json::from_value(json).unwrap())
}

fn slice(protocol: &str, endpoints: &[&str]) -> watcher::Event<EndpointSlice> {
    let endpoints: Vec<_> =
        endpoints.iter().map(|address| json!({"addresses": [address], "nodeName": "n"})).collect();
    let json = json!({
        "metadata": {"namespace": "ns", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": protocol}], "endpoints": endpoints,
    });
    watcher::Event::Apply(serde_json::from_value(json).unwrap())
}

/// Asks the service at `target` from a namespace; whom the server saw, and what the client got.
fn ask(place: &Place, from: &str, listener: &TcpListener, target: SocketAddr) -> (SocketAddr, String) {
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            peer
        });
        let mut answer = String::new();
        let mut stream =
            place.inside(from, || TcpStream::connect_timeout(&target, Duration::from_secs(5))).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        (server.join().unwrap(), answer)
    })
}

#[test]
fn a_pod_of_another_network_is_reached_through_the_stack_and_sees_its_client() {
    let Some(place) = Place::new() else { return };
    let mut agent = place.inside("n", || Agent::of_foreign_network(&place));
    let listener = place.inside("p", || TcpListener::bind("10.77.1.5:8080").unwrap());
    for policy in ["Cluster", "Local"] {
        place.inside("n", || {
            agent.service(service("TCP", policy));
            agent.slice(slice("TCP", &["10.77.1.5"]));
        });
        let (seen, answer) = ask(&place, "c", &listener, "172.31.66.1:30080".parse().unwrap());
        assert_eq!(seen.ip().to_string(), "172.31.66.2", "policy {policy}");
        assert_eq!(answer, "hello");
    }
    let cgroup = agent.cluster.dataplane.cgroup_path().to_owned();
    let moved = Moved::into(&cgroup, &place.name);
    let (seen, answer) = ask(&place, "n", &listener, "10.96.0.9:80".parse().unwrap());
    drop(moved);
    assert_eq!(
        (seen.ip().to_string().as_str(), answer.as_str()),
        ("10.77.1.1", "hello"),
        "a process of the node"
    );
}

#[test]
fn a_connected_udp_socket_ends_with_its_backend_and_one_that_went_there_itself_stays() {
    let Some(place) = Place::new() else { return };
    let mut agent = place.inside("n", || Agent::of_foreign_network(&place));
    place.inside("n", || {
        agent.service(service("UDP", "Cluster"));
        agent.slice(slice("UDP", &["10.77.1.5"]));
    });
    let cgroup = agent.cluster.dataplane.cgroup_path().to_owned();
    let _moved = Moved::into(&cgroup, &place.name);
    let server = place.inside("p", || UdpSocket::bind("10.77.1.5:8080").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let connect = |target: &str| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    };
    let (by_service, by_address) = place.inside("n", || (connect("10.96.0.9:80"), connect("10.77.1.5:8080")));
    for socket in [&by_service, &by_address] {
        socket.send(b"x").unwrap();
        let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"y", peer).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
    }
    assert_eq!(by_service.peer_addr().unwrap().to_string(), "10.96.0.9:80", "translated");
    place.inside("n", || agent.slice(slice("UDP", &[])));
    let ended = (0..20).any(|_| {
        by_service.recv(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted)
    });
    assert!(ended, "the socket ends with its backend");
    assert_eq!(by_address.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock, "this one stays");
    assert_eq!(agent.cluster.progress.sockets_destroyed.get(), 1);
    place.inside("n", || agent.slice(slice("UDP", &["10.77.1.5"])));
}

/// A VXLAN packet's network identifier, and source and destination of the IPv4 packet inside.
fn unwrap_vxlan(packet: &[u8]) -> (u32, String, String) {
    let address = |at: usize| packet[at..at + 4].iter().map(u8::to_string).collect::<Vec<_>>().join(".");
    // VXLAN 8, Ethernet 14; addresses of IPv4 lie at 12 and 16.
    let vni = u32::from_be_bytes([0, packet[4], packet[5], packet[6]]);
    (vni, address(8 + 14 + 12), address(8 + 14 + 16))
}

#[test]
fn a_node_behind_a_router_gets_packets_in_vxlan_from_pods_and_from_the_node() {
    let Some(place) = Place::new() else { return };
    let state = tempfile::tempdir().unwrap();
    run(&format!("ip netns add {}", place.namespace("q")));
    // The client plays the router and the far node behind it.
    run(&format!("ip -n {} address add 172.31.99.5/32 dev lo", place.namespace("c")));
    run(&format!("ip -n {} route add 172.31.99.0/24 via 172.31.66.2", place.namespace("n")));
    let far_end = place.inside("c", || UdpSocket::bind("172.31.99.5:4789").unwrap());
    far_end.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut agent = place.inside("n", || Agent::of_own_network(&place, state.path()));
    place.inside("n", || agent.node(watcher::Event::Apply(node("far", "172.31.99.5", "10.77.9.0/24"))));
    assert!(agent.cluster.dataplane.node_config().vxlan.is_some());
    let pod = place.inside("n", || {
        let identity = PodIdentity { uid: "u".into(), namespace: "ns".into(), name: "p".into() };
        let netns = PathBuf::from(format!("/run/netns/{}", place.namespace("q")));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agent.pods.as_ref().unwrap().setup(&identity, &netns)).unwrap()
    });
    // The first packets may go while the router's hardware address is being asked for.
    let arrives = |from: &str, source: &str| {
        let knock = || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "10.77.9.7:9").unwrap();
        let seen: Vec<_> = (0..40)
            .filter_map(|_| {
                place.inside(from, knock);
                let mut packet = [0; 2048];
                far_end.recv(&mut packet).ok().map(|length| unwrap_vxlan(&packet[..length]))
            })
            .take(2)
            .collect();
        let expected = (1, source.to_owned(), "10.77.9.7".to_owned());
        assert!(seen.contains(&expected), "from {from}: {seen:?}");
    };
    arrives("q", &pod.addresses[0].to_string());
    arrives("n", "172.31.66.1");
    let text = place.inside("q", || Command::new("ip").args(["link", "show", "eth0"]).output().unwrap());
    assert!(String::from_utf8_lossy(&text.stdout).contains("mtu 1450"), "room for the outer headers");
}
