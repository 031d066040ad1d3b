//! Namespaces joined by a bridge: two nodes and a client, dual stack. Gone when the value is dropped.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The test network: node i is 172.31.77.1i / fd31:77::1i, the client .3.
pub struct Fabric {
    prefix: String,
    namespaces: std::cell::RefCell<Vec<String>>,
    pub directory: tempfile::TempDir,
}

impl Fabric {
    pub fn new() -> Self {
        // Tests of one process run at the same time.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("bldp{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let fabric = Self { prefix, namespaces: Default::default(), directory: tempfile::tempdir().unwrap() };
        let bridge = fabric.namespace("f");
        run(&format!("ip -n {bridge} link add br0 type bridge"));
        run(&format!("ip -n {bridge} link set br0 up"));
        for (name, host) in [("n0", "10"), ("n1", "11"), ("cl", "3")] {
            let namespace = fabric.namespace(name);
            run(&format!("ip -n {bridge} link add {name} type veth peer name eth0 netns {namespace}"));
            run(&format!("ip -n {bridge} link set {name} master br0 up"));
            // What a real NIC needs not (see the development cluster): checksums for XDP, and a far end that polls.
            run(&format!("ip netns exec {namespace} ethtool -K eth0 tx off"));
            run(&format!("ip netns exec {bridge} ethtool -K {name} gro on"));
            run(&format!("ip -n {namespace} address add 172.31.77.{host}/24 dev eth0"));
            run(&format!("ip -n {namespace} address add fd31:77::{host}/64 dev eth0 nodad"));
            run(&format!("ip -n {namespace} link set eth0 up"));
        }
        fabric
    }

    /// A new namespace with this short name; gives its full name.
    pub fn namespace(&self, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        run(&format!("ip netns add {full}"));
        self.namespaces.borrow_mut().push(full.clone());
        run(&format!("ip -n {full} link set lo up"));
        full
    }

    pub fn node(&self, index: usize) -> String {
        format!("{}-n{index}", self.prefix)
    }

    pub fn client(&self) -> String {
        format!("{}-cl", self.prefix)
    }

    pub fn address4(&self, node: usize) -> String {
        format!("172.31.77.1{node}")
    }

    pub fn address6(&self, node: usize) -> String {
        format!("fd31:77::1{node}")
    }

    /// The node's subtree of the cgroup v2 tree.
    pub fn cgroup(&self, node: usize) -> String {
        format!("{}/n{node}", self.prefix)
    }

    pub fn bpf_directory(&self, node: usize) -> String {
        format!("/sys/fs/bpf/{}/n{node}", self.prefix)
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
        let _ = std::fs::remove_dir_all(format!("/sys/fs/bpf/{}", self.prefix));
        for node in ["n0", "n1", ""] {
            let _ = std::fs::remove_dir(cgroup_path(&format!("{}/{node}", self.prefix)));
        }
    }
}

/// Where a subtree of the v2 tree is mounted, in both layouts.
pub fn cgroup_path(name: &str) -> std::path::PathBuf {
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() { hybrid.join(name) } else { std::path::Path::new("/sys/fs/cgroup").join(name) }
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
