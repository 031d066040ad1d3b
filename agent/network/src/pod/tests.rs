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
        pairs.iter().map(|(cidr, via)| (cidr.parse().unwrap(), via.parse().unwrap())).collect()
    };
    let namespace = Netns::open(&host.path()).unwrap();
    let sync = |pairs: &[(&str, &str)]| {
        namespace.run(|| routes::NodeRoutes::open().unwrap().sync(&desired(pairs)).unwrap()).unwrap();
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
