//! A network namespace with one uplink, a place for pins and a cgroup. Gone when the value is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use network::Netns;

use crate::Failure;

/// The uplink.
pub const DEVICE: &str = "eth0";

/// The node.
pub struct Node {
    name: String,
}

impl Node {
    pub fn new() -> Result<Self, Failure> {
        let node = Self { name: format!("bldp-scale-{}", std::process::id()) };
        let name = &node.name;
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))?;
        // The far end stays in the same namespace: nothing is sent.
        ip(&format!("-n {name} link add {DEVICE} type veth peer name far0"))?;
        ip(&format!("-n {name} address add 172.30.0.11/16 dev {DEVICE}"))?;
        ip(&format!("-n {name} address add fd30::11/64 dev {DEVICE} nodad"))?;
        for device in [DEVICE, "far0"] {
            ip(&format!("-n {name} link set {device} up"))?;
        }
        Ok(node)
    }

    pub fn bpf_dir(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    pub fn cgroup(&self) -> &str {
        &self.name
    }

    /// Calls `work` in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        Ok(Netns::open(&Path::new("/run/netns").join(&self.name))?.run(work)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The links in the directory go with it, and with them the programs.
        drop(std::fs::remove_dir_all(self.bpf_dir()));
        if let Err(error) = ip(&format!("netns del {}", self.name)) {
            eprintln!("scale: {error}");
        }
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            drop(std::fs::remove_dir(Path::new(mount).join(&self.name)));
        }
    }
}

fn ip(line: &str) -> Result<(), Failure> {
    let output = Command::new("ip").args(line.split(' ')).output()?;
    if !output.status.success() {
        return Err(format!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(())
}
