//! Namespaces and links of a cluster of three nodes and a client outside, dual stack. Gone when the value is dropped.
//!
//! All stand on one bridge, unless the third node is put behind a router. Hardware addresses are fixed and the client's neighbours
//! written down, so that no row waits for an address to be resolved.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use network::Netns;

use crate::pass::PassAll;

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// What the fabric's parts are called in names of namespaces and ports of the bridge.
const MEMBERS: [&str; 4] = ["n0", "n1", "n2", "cl"];
/// Where the client stands in [`MEMBERS`].
const CLIENT: usize = 3;

/// How the fabric is built.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Every far end of an uplink runs a program that passes all, so that frames of native XDP wake it (docs/decisions/0001).
    pub far_ends_run_xdp: bool,
    /// The third node is on a segment of its own, behind a router.
    pub routed: bool,
    /// Checksums and segmentation are left to the receiver, as within one machine.
    pub offloads: bool,
    /// Ports of the bridge put segments together, as a machine's network card does.
    pub coalescing: bool,
    /// MTU of all links.
    pub mtu: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { far_ends_run_xdp: false, routed: false, offloads: false, coalescing: true, mtu: 1500 }
    }
}

/// The test network.
pub struct Fabric {
    prefix: String,
    namespaces: RefCell<Vec<String>>,
    _far_ends: Vec<PassAll>,
    plan: Plan,
    pub directory: tempfile::TempDir,
}

impl Fabric {
    pub fn new(plan: Plan) -> Self {
        // Tests of one process run at the same time.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("bl3n{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let namespaces = RefCell::default();
        let directory = tempfile::tempdir().unwrap();
        let mut fabric = Self { prefix, namespaces, _far_ends: Vec::new(), plan, directory };
        let bridge = fabric.namespace("f");
        for name in if plan.routed { &["br0", "br1"][..] } else { &["br0"] } {
            run(&format!("ip -n {bridge} link add {name} mtu {} type bridge", plan.mtu));
            run(&format!("ip -n {bridge} link set {name} up"));
        }
        for member in 0..MEMBERS.len() {
            fabric.join(&bridge, member);
        }
        if plan.routed {
            fabric.add_router(&bridge);
        }
        for member in 0..MEMBERS.len() {
            fabric.introduce(member);
        }
        if plan.far_ends_run_xdp {
            fabric._far_ends = MEMBERS.map(|name| PassAll::attach(&bridge, name)).into();
        }
        // Afterwards, since a veth that gets an XDP program turns it on.
        let gro = if plan.coalescing { "on" } else { "off" };
        for name in MEMBERS {
            run(&format!("ip netns exec {bridge} ethtool -K {name} gro {gro}"));
        }
        fabric
    }

    /// Gives a member its namespace and its link to the bridge.
    fn join(&self, bridge: &str, member: usize) {
        let (name, mtu) = (MEMBERS[member], self.plan.mtu);
        let namespace = self.namespace(name);
        let segment = if self.behind_router(member) { "br1" } else { "br0" };
        let mac = mac(member);
        run(&format!(
            "ip -n {bridge} link add {name} mtu {mtu} type veth peer name eth0 address {mac} mtu {mtu} netns {namespace}"
        ));
        run(&format!("ip -n {bridge} link set {name} master {segment} up"));
        if !self.plan.offloads {
            // What a real NIC needs not: a veth hands packets over without the checksum that XDP wants to find, and so does a port that
            // cuts up what another has put together.
            run(&format!("ip netns exec {namespace} ethtool -K eth0 tx off"));
            run(&format!("ip netns exec {bridge} ethtool -K {name} tx off"));
        }
        for (address, length) in [(self.address4(member), 24), (self.address6(member), 64)] {
            run(&format!("ip -n {namespace} address add {address}/{length} dev eth0 nodad"));
        }
        run(&format!("ip -n {namespace} link set eth0 up"));
        // The stack of a machine says "port unreachable" once a second and peer, by default.
        run(&format!(
            "ip netns exec {namespace} sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"
        ));
    }

    /// A router with a leg on both segments, and the way by it.
    fn add_router(&self, bridge: &str) {
        let (router, mtu) = (self.namespace("r"), self.plan.mtu);
        for leg in [0, 1] {
            run(&format!(
                "ip -n {bridge} link add r{leg} mtu {mtu} type veth peer name leg{leg} mtu {mtu} netns {router}"
            ));
            run(&format!("ip -n {bridge} link set r{leg} master br{leg} up"));
            run(&format!("ip -n {router} address add 172.31.{}.254/24 dev leg{leg}", 78 + leg));
            run(&format!("ip -n {router} address add fd31:{}::fe/64 dev leg{leg} nodad", 78 + leg));
            run(&format!("ip -n {router} link set leg{leg} up"));
        }
        run(&format!(
            "ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        ));
        for (member, name) in MEMBERS.iter().enumerate() {
            let (other, own) = if self.behind_router(member) { (78, 79) } else { (79, 78) };
            let namespace = self.full(name);
            run(&format!("ip -n {namespace} route add 172.31.{other}.0/24 via 172.31.{own}.254"));
            run(&format!("ip -n {namespace} route add fd31:{other}::/64 via fd31:{own}::fe"));
        }
    }

    /// Writes down the hardware addresses between the client and the nodes of its segment.
    fn introduce(&self, member: usize) {
        for other in (0..MEMBERS.len()).filter(|other| *other != member) {
            let strangers = self.behind_router(member) || self.behind_router(other);
            if strangers || (member != CLIENT && other != CLIENT) {
                continue;
            }
            let (namespace, mac) = (self.full(MEMBERS[member]), mac(other));
            for address in [self.address4(other), self.address6(other)] {
                run(&format!(
                    "ip -n {namespace} neigh replace {address} lladdr {mac} dev eth0 nud permanent"
                ));
            }
        }
    }

    /// The client's way to a range, by a node of this address; by the router to the node behind it.
    pub fn route_from_client(&self, range: &str, node: usize, address: &str) {
        let client = self.client();
        if self.behind_router(node) {
            let router = if range.contains(':') { "fd31:78::fe" } else { "172.31.78.254" };
            run(&format!("ip -n {client} route replace {range} via {router}"));
            run(&format!("ip -n {} route replace {range} via {address}", self.full("r")));
        } else {
            run(&format!("ip -n {client} route replace {range} via {address}"));
        }
    }

    fn behind_router(&self, member: usize) -> bool {
        self.plan.routed && member == 2
    }

    /// A new namespace with this short name; gives its full name.
    pub fn namespace(&self, name: &str) -> String {
        let full = self.full(name);
        run(&format!("ip netns add {full}"));
        self.namespaces.borrow_mut().push(full.clone());
        run(&format!("ip -n {full} link set lo up"));
        full
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Namespaces made so far.
    pub fn namespaces(&self) -> Vec<String> {
        self.namespaces.borrow().clone()
    }

    pub fn node(&self, index: usize) -> String {
        self.full(MEMBERS[index])
    }

    /// Where the bridge is.
    pub fn bridge(&self) -> String {
        self.full("f")
    }

    pub fn client(&self) -> String {
        self.full(MEMBERS[CLIENT])
    }

    /// IPv4 address of a node, or with [`NODES`] of the client.
    pub fn address4(&self, member: usize) -> String {
        let segment = if self.behind_router(member) { 79 } else { 78 };
        format!("172.31.{segment}.{}", host(member))
    }

    /// IPv6 address of a node, or with [`NODES`] of the client.
    pub fn address6(&self, member: usize) -> String {
        let segment = if self.behind_router(member) { 79 } else { 78 };
        format!("fd31:{segment}::{}", host(member))
    }

    /// The node's subtree of the cgroup v2 tree.
    pub fn cgroup(&self, node: usize) -> String {
        format!("{}/n{node}", self.prefix)
    }

    pub fn bpf_directory(&self, node: usize) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.prefix).join(MEMBERS[node])
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        // To look at the nodes of a failed run: BEELINE_TEST_HOLD=SECONDS.
        let seconds = std::env::var("BEELINE_TEST_HOLD").ok().and_then(|text| text.parse().ok());
        if let Some(seconds) = seconds.filter(|_| std::thread::panicking()) {
            std::thread::sleep(std::time::Duration::from_secs(seconds));
        }
        for namespace in self.namespaces.borrow().iter() {
            run(&format!("ip netns del {namespace}"));
        }
        let _ = std::fs::remove_dir_all(Path::new("/sys/fs/bpf").join(&self.prefix));
        for node in 0..NODES {
            let _ = std::fs::remove_dir(cgroup_path(&self.cgroup(node)));
        }
        let _ = std::fs::remove_dir(cgroup_path(&self.prefix));
    }
}

/// Last part of a member's addresses: 10 and on for nodes, 3 for the client.
fn host(member: usize) -> usize {
    if member == CLIENT { 3 } else { 10 + member }
}

/// Hardware address of a member's uplink.
pub fn mac(member: usize) -> String {
    format!("02:00:00:31:78:{:02}", host(member))
}

/// Where a subtree of the v2 tree is mounted, in both layouts.
pub fn cgroup_path(name: &str) -> PathBuf {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() { hybrid.join(name) } else { Path::new("/sys/fs/cgroup").join(name) }
}

/// A namespace by its full name.
pub fn open(namespace: &str) -> Netns {
    Netns::open(Path::new(&format!("/run/netns/{namespace}"))).unwrap()
}

/// Runs a command line; one that fails fails the test.
#[track_caller]
pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    if !output.status.success() && !std::thread::panicking() {
        panic!("{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
