//! Root tests: real namespaces, real links. Each test has its own names and cleans up.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use super::*;

/// A namespace that is gone when dropped.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let full = format!("blnet{}-{name}", std::process::id());
        run(&format!("ip netns add {full}"));
        Self(full)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.0))
    }

    /// Output of a command inside.
    #[track_caller]
    fn output(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.0))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// A node: a namespace with an uplink whose far end is in the namespace, too.
fn node(name: &str) -> Namespace {
    let node = Namespace::new(name);
    node.output("ip link set lo up");
    node.output("ip link add eth0 type veth peer name far");
    node.output("ip address add 172.31.88.2/24 dev eth0");
    node.output("ip address add fd31:88::2/64 dev eth0 nodad");
    node.output("ip link set eth0 up mtu 1400");
    node.output("ip link set far up");
    node
}

/// Sends datagrams from one namespace to an address and port 9 until one arrives there. The kernel finishes an IPv6 address and a link that
/// came up in its own time (work queues), so the first may be lost.
fn send(from: &Namespace, to: &Namespace, address: &str) -> std::io::Result<()> {
    use std::net::UdpSocket;
    let inside = |namespace: &Namespace| Netns::open(&namespace.path()).unwrap();
    let receiver = inside(to).run(|| UdpSocket::bind("[::]:9").unwrap()).unwrap();
    receiver.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let target: IpAddr = address.parse().unwrap();
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = inside(from).run(|| UdpSocket::bind(any).unwrap()).unwrap();
    sender.connect((target, 9))?;
    let attempt = || sender.send(b"x").and_then(|_| receiver.recv(&mut [0; 8]));
    (0..20).map(|_| attempt()).find(Result::is_ok).unwrap_or_else(attempt).map(drop)
}

fn identity(uid: &str) -> PodIdentity {
    PodIdentity { uid: uid.into(), namespace: "default".into(), name: uid.into() }
}

/// Counts what the data plane is told.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Wiring for Recorder {
    fn wire(&self, interface: &PodInterface) -> Result<(), BoxError> {
        lock(&self.0).push(format!("wire {}", interface.uid));
        Ok(())
    }

    fn unwire(&self, interface: &PodInterface) {
        lock(&self.0).push(format!("unwire {}", interface.uid));
    }
}

/// Runs asynchronous work in the node's namespace: threads that the runtime starts are born there.
fn in_node<T: Send>(node: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    let inside = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work());
    Netns::open(&node.path()).unwrap().run(inside).unwrap()
}

fn network(state: &Path, wiring: Arc<dyn Wiring>) -> PodNetwork {
    let network =
        PodNetwork::new(Config { state_dir: state.to_owned(), uplink: "eth0".into() }, wiring).unwrap();
    network.set_pod_cidrs(&["10.246.0.0/24".parse().unwrap(), "fd00:10:246::/64".parse().unwrap()]).unwrap();
    network
}

#[test]
fn a_pod_reaches_its_node_and_another_pod_in_both_families() {
    if !is_root() {
        return;
    }
    let (host, a, b) = (node("reach"), Namespace::new("ra"), Namespace::new("rb"));
    let state = tempfile::tempdir().unwrap();
    let first = in_node(&host, async || {
        let network = network(state.path(), Arc::new(Unwired));
        let first = network.setup(&identity("uid-a"), &a.path()).await.unwrap();
        network.setup(&identity("uid-b"), &b.path()).await.unwrap();
        first
    });
    for (target, address) in
        [(&host, "172.31.88.2"), (&b, "10.246.0.3"), (&host, "fd31:88::2"), (&b, "fd00:10:246::3")]
    {
        send(&a, target, address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    for address in first.addresses {
        send(&host, &a, &address.to_string()).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
    assert!(a.output("ip link show eth0").contains("mtu 1400"), "the uplink's MTU");
    send(&a, &b, "10.246.0.99").unwrap_err();
    assert!(
        host.output("ip route").contains("unreachable 10.246.0.0/24"),
        "packets to unused addresses end here"
    );
}

#[test]
fn setup_again_changes_nothing_and_teardown_frees_everything() {
    if !is_root() {
        return;
    }
    let (host, pod) = (node("again"), Namespace::new("aa"));
    let state = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    in_node(&host, async || {
        let network = network(state.path(), Arc::clone(&recorder) as Arc<dyn Wiring>);
        let first = network.setup(&identity("uid-a"), &pod.path()).await.unwrap();
        assert_eq!(network.setup(&identity("uid-a"), &pod.path()).await.unwrap(), first);
        network.teardown("uid-a").await.unwrap();
        network.teardown("uid-a").await.unwrap();
        network.teardown("never seen").await.unwrap();
    });
    assert_eq!(*lock(&recorder.0), ["wire uid-a", "wire uid-a", "unwire uid-a"]);
    assert!(!host.output("ip route").contains("10.246.0.2 "), "no route is left");
    assert_eq!(std::fs::read_dir(state.path().join("addresses")).unwrap().count(), 0);
    drop(pod);
    let gone = || !host.output("ip -o link").contains(HOST_PREFIX);
    let waited = (0..200).any(|_| {
        gone() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }
    });
    assert!(waited, "the veth goes with the pod's namespace");
}

#[test]
fn a_restart_takes_over_living_pods_and_removes_the_others() {
    if !is_root() {
        return;
    }
    let (host, a, b) = (node("restart"), Namespace::new("sa"), Namespace::new("sb"));
    let state = tempfile::tempdir().unwrap();
    let before = in_node(&host, async || {
        let network = network(state.path(), Arc::new(Unwired));
        network.setup(&identity("uid-b"), &b.path()).await.unwrap();
        network.setup(&identity("uid-a"), &a.path()).await.unwrap()
    });
    let recorder = Arc::new(Recorder::default());
    let found = in_node(&host, async || {
        let network = network(state.path(), Arc::clone(&recorder) as Arc<dyn Wiring>);
        network.recover(&[identity("uid-a"), identity("uid-lost")]).await.unwrap()
    });
    assert_eq!(found, [before]);
    assert_eq!(*lock(&recorder.0), ["wire uid-a"]);
    send(&a, &host, "172.31.88.2").unwrap();
    assert_eq!(host.output("ip -o link").matches(HOST_PREFIX).count(), 1, "the other pod's veth is gone");
}

#[test]
fn routes_to_other_nodes_follow_and_foreign_routes_stay() {
    if !is_root() {
        return;
    }
    let host = node("routes");
    host.output("ip route add 10.99.0.0/24 via 172.31.88.9");
    let desired = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(cidr, via)| (cidr.parse().unwrap(), routes::Via::Node(via.parse().unwrap())))
            .collect()
    };
    let namespace = Netns::open(&host.path()).unwrap();
    let sync = |pairs: &[(&str, &str)]| {
        namespace.run(|| routes::NodeRoutes::open().unwrap().sync(&desired(pairs), None).unwrap()).unwrap();
    };
    sync(&[
        ("10.246.1.0/24", "172.31.88.3"),
        ("10.246.2.0/24", "172.31.88.4"),
        ("fd00:10:246:1::/64", "fd31:88::3"),
    ]);
    sync(&[("10.246.1.0/24", "172.31.88.5"), ("fd00:10:246:1::/64", "fd31:88::3")]);
    let four = host.output("ip route");
    assert!(four.contains("10.246.1.0/24 via 172.31.88.5"), "{four}");
    assert!(!four.contains("10.246.2.0/24"), "{four}");
    assert!(four.contains("10.99.0.0/24"), "{four}");
    assert!(host.output("ip -6 route").contains("fd00:10:246:1::/64 via fd31:88::3"));
}

#[test]
fn neighbours_are_resolved_and_kept_without_being_used() {
    if !is_root() {
        return;
    }
    let (host, other) = (node("neigh"), Namespace::new("no"));
    host.output(&format!("ip link set far netns {}", other.0));
    other.output("ip address add 172.31.88.3/24 dev far");
    other.output("ip link set far up");
    let mac = Netns::open(&host.path()).unwrap().run(|| {
        let mut neighbours = crate::neighbours::Neighbours::open("eth0").unwrap();
        let mut watch = neighbours.watch().unwrap();
        neighbours.manage(&["172.31.88.3".parse().unwrap()]).unwrap();
        loop {
            let found = watch.changes().unwrap().into_iter().find_map(|neighbour| neighbour.mac);
            if let Some(mac) = found.or_else(|| neighbours.known().unwrap().into_values().next()) {
                break mac;
            }
        }
    });
    let text = mac.unwrap().map(|byte| format!("{byte:02x}")).join(":");
    assert!(other.output("ip link show far").contains(&text));
    assert!(host.output("ip neigh").contains("managed"));
    let forget = || {
        let mut neighbours = crate::neighbours::Neighbours::open("eth0").unwrap();
        neighbours.forget(&["172.31.88.3".parse().unwrap(), "172.31.88.4".parse().unwrap()]).unwrap();
    };
    Netns::open(&host.path()).unwrap().run(forget).unwrap();
    assert!(!host.output("ip neigh").contains("managed"));
}

/// Two nodes whose segments are joined by a router: `eth0` of each leads to it.
fn routed_nodes(name: &str) -> (Namespace, Namespace, Namespace) {
    let router = Namespace::new(&format!("{name}r"));
    router.output("sysctl -qw net.ipv4.ip_forward=1");
    let node = |number: u8| {
        let node = Namespace::new(&format!("{name}{number}"));
        node.output("ip link set lo up");
        node.output(&format!("ip link add eth0 type veth peer name n{number} netns {}", router.0));
        node.output(&format!("ip address add 172.31.{number}.2/24 dev eth0"));
        node.output("ip link set eth0 up");
        router.output(&format!("ip address add 172.31.{number}.1/24 dev n{number}"));
        router.output(&format!("ip link set n{number} up"));
        node.output(&format!("ip route add default via 172.31.{number}.1"));
        node
    };
    let (first, second) = (node(1), node(2));
    (router, first, second)
}

#[test]
fn a_node_on_another_segment_is_recognized_and_its_pods_have_a_route_through_the_tunnel() {
    if !is_root() {
        return;
    }
    let (router, first, second) = routed_nodes("seg");
    let way = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let look = || routes::NodeRoutes::open().unwrap().way_to(address).unwrap();
        Netns::open(&first.path()).unwrap().run(look).unwrap()
    };
    assert_eq!(way("172.31.1.9"), Some(routes::Way::OnLink));
    assert_eq!(way("172.31.2.2"), Some(routes::Way::Router("172.31.1.1".parse().unwrap())));
    assert_eq!(way("fd31:2::2"), None, "no IPv6 here");
    let connect = |own: &Namespace, number: u8, cidrs: [&str; 2], other: &str| {
        let own_address = std::net::Ipv4Addr::new(172, 31, number, 2);
        let via = routes::Via::Tunnel(other.parse().unwrap());
        let desired = cidrs.iter().map(|cidr| (cidr.parse().unwrap(), via)).collect();
        let work = || {
            let made = crate::tunnel::ensure(own_address, 1500).unwrap();
            assert_eq!(crate::tunnel::ensure(own_address, 1500).unwrap(), made, "found again as it is");
            let mut table = routes::NodeRoutes::open().unwrap();
            table.sync(&desired, Some(made.index)).unwrap();
            assert_eq!(table.current().unwrap(), desired, "read back as written");
        };
        Netns::open(&own.path()).unwrap().run(work).unwrap();
    };
    connect(&first, 1, ["10.246.2.0/24", "fd00:10:246:2::/64"], "172.31.2.2");
    connect(&second, 2, ["10.246.1.0/24", "fd00:10:246:1::/64"], "172.31.1.2");
    assert!(first.output("ip link show blvx0").contains("mtu 1450"), "room for the outer headers");
    // The data plane's program takes frames there; without it the stack sees the sender's own hardware address as destination and drops.
    let before = received(&second);
    let knock = || std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "10.246.2.7:9").unwrap();
    let arrived = (0..100).any(|_| {
        Netns::open(&first.path()).unwrap().run(knock).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        received(&second) > before
    });
    assert!(arrived, "packets come out of the far tunnel device");
    let gone = || {
        routes::NodeRoutes::open().unwrap().sync(&Default::default(), None).unwrap();
        crate::tunnel::remove().unwrap();
        crate::tunnel::remove().unwrap();
    };
    Netns::open(&first.path()).unwrap().run(gone).unwrap();
    assert!(!first.output("ip route").contains("10.246.2.0/24"));
    drop(router);
}

#[test]
fn a_thread_in_a_namespace_of_its_own_is_found() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new("th");
    let count = || Netns::of_processes(&[std::process::id(), u32::MAX]).len();
    // Other tests' threads come and go in namespaces of theirs; this one's is there for sure.
    let inside = Netns::open(&namespace.path()).unwrap().run(|| {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let found = Netns::of_processes(&[std::process::id()]);
        let names = found.iter().map(|it| std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(it)));
        let mut names = names.map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
        names.any(|name| name == own)
    });
    assert!(inside.unwrap());
    assert!(count() >= 1, "the process's own");
}

/// Packets that the tunnel device of a namespace received.
fn received(namespace: &Namespace) -> u64 {
    let text = namespace.output("ip -s -o link show blvx0");
    let after = text.split("RX:").nth(1).unwrap();
    let numbers = after.split('\\').nth(1).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn pods_made_while_tunnels_are_in_use_leave_room_for_them() {
    if !is_root() {
        return;
    }
    let (host, pod) = (node("room"), Namespace::new("rm"));
    let state = tempfile::tempdir().unwrap();
    in_node(&host, async || {
        let network = network(state.path(), Arc::new(Unwired));
        network.set_overhead(crate::tunnel::OVERHEAD);
        network.setup(&identity("uid-a"), &pod.path()).await.unwrap();
    });
    assert!(pod.output("ip link show eth0").contains("mtu 1350"));
}

#[test]
fn namespaces_are_found_by_the_processes_of_a_cgroup() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new("cg");
    let tree = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().map(Path::new);
    let Some(tree) = tree.into_iter().find(|path| path.join("cgroup.procs").exists()) else {
        println!("skipped: needs a cgroup v2 tree");
        return;
    };
    let cgroup = tree.join(format!("blnet-{}", std::process::id()));
    std::fs::create_dir_all(cgroup.join("below")).unwrap();
    let start = || Command::new("ip").args(["netns", "exec", &namespace.0, "sleep", "30"]).spawn().unwrap();
    let mut processes = [start(), start()];
    for process in &processes {
        std::fs::write(cgroup.join("below/cgroup.procs"), process.id().to_string()).unwrap();
    }
    let wanted = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(namespace.path()).unwrap());
    let inode = |found: &Netns| {
        let file = std::fs::File::from(std::os::fd::AsFd::as_fd(found).try_clone_to_owned().unwrap());
        std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap())
    };
    // `ip` enters the namespace a moment after it starts.
    let found = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let processes = crate::processes::below(&cgroup).unwrap();
        let found: Vec<u64> = Netns::of_processes(&processes).iter().map(inode).collect();
        (found == [wanted]).then_some(found)
    });
    for process in &mut processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let _ = std::fs::remove_dir(cgroup.join("below"));
    let _ = std::fs::remove_dir(&cgroup);
    assert_eq!(found, Some(vec![wanted]), "two processes, one namespace");
}

#[test]
fn addresses_of_all_devices_are_listed_with_their_device_and_without_those_of_a_link() {
    if !is_root() {
        return;
    }
    let host = node("addr");
    let (found, device) = Netns::open(&host.path())
        .unwrap()
        .run(|| (crate::device::addresses().unwrap(), crate::device::find("eth0").unwrap()))
        .unwrap();
    let mut texts: Vec<String> = found.iter().map(|(_, address)| address.to_string()).collect();
    texts.sort();
    assert_eq!(texts, ["172.31.88.2", "fd31:88::2"], "no loopback, no link-local address");
    assert!(found.iter().all(|(index, _)| *index == device.index));
}
