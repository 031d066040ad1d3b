//! Where a result comes from: machine, kernel, mitigations, revisions. A figure without it says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    /// Hypervisor, if the CPU names one.
    pub(crate) virtual_machine: bool,
    /// By vulnerability, what the kernel does about it (only what is vulnerable or mitigated).
    pub(crate) mitigations: BTreeMap<String, String>,
    /// Settings that change what is measured, by name.
    pub(crate) settings: BTreeMap<String, String>,
    /// Versions of programs that take part, by name.
    pub(crate) versions: BTreeMap<String, String>,
    /// Offloads of the device that traffic leaves by (on or off, by feature), if one was named.
    pub(crate) offloads: BTreeMap<String, String>,
    /// The commit of the checkout this ran in, if it is one.
    pub(crate) revision: String,
    /// How it was called.
    pub(crate) command: String,
    /// The load average of the minute before: other work on the machine.
    pub(crate) load_before: String,
}

/// Kernel settings that are recorded, below /proc/sys.
const SETTINGS: &[&str] = &[
    "net/core/bpf_jit_enable",
    "kernel/bpf_stats_enabled",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
];

/// Programs whose versions are recorded, and how they are asked.
const PROGRAMS: &[(&str, &[&str])] =
    &[("iptables", &["--version"]), ("nft", &["--version"]), ("haproxy", &["-v"]), ("nginx", &["-v"])];

/// Offloads that change the path of a packet.
const OFFLOADS: &[&str] = &[
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
];

impl Environment {
    /// This machine now. What cannot be found out stays empty.
    pub(crate) fn record() -> Self {
        let uname = rustix::system::uname();
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            kernel: format!("{} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy()),
            cpu: field(&cpuinfo, "model name"),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .split_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            virtual_machine: field(&cpuinfo, "flags").split_whitespace().any(|flag| flag == "hypervisor"),
            mitigations: mitigations(),
            settings: SETTINGS.iter().map(|name| (name.replace('/', "."), setting(name))).collect(),
            versions: PROGRAMS
                .iter()
                .filter_map(|(name, ask)| Some(((*name).to_owned(), version(name, ask)?)))
                .collect(),
            offloads: BTreeMap::new(),
            revision: first_line("git", &["describe", "--always", "--dirty", "--abbrev=12"])
                .unwrap_or_default(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            load_before: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }

    /// The same with the offloads of `device`, in the namespace that the thread is in.
    pub(crate) fn with_offloads(mut self, device: &str) -> Self {
        let output = Command::new("ethtool").args(["-k", device]).output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        self.offloads = offloads(&text);
        self
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// `name : value` of the first line that has that name.
fn field(text: &str, name: &str) -> String {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn setting(name: &str) -> String {
    read(&format!("/proc/sys/{name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mitigations() -> BTreeMap<String, String> {
    let directory = fs::read_dir(Path::new("/sys/devices/system/cpu/vulnerabilities"));
    let files = directory.into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let state = fs::read_to_string(file.path()).ok()?.trim().to_owned();
            (state != "Not affected").then(|| (file.file_name().to_string_lossy().into_owned(), state))
        })
        .collect()
}

fn version(program: &str, ask: &[&str]) -> Option<String> {
    first_line(program, ask)
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    // nginx says its version on the error stream.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let line = String::from_utf8_lossy(&text).lines().next()?.trim().to_owned();
    output.status.success().then_some(line)
}

fn offloads(text: &str) -> BTreeMap<String, String> {
    OFFLOADS
        .iter()
        .filter_map(|name| {
            let state = field(text, name).split_whitespace().next()?.to_owned();
            Some(((*name).to_owned(), state))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_names_its_kernel_and_cpus() {
        let environment = Environment::record();
        assert!(!environment.kernel.is_empty() && environment.cpus > 0 && environment.memory_mib > 0);
        assert!(environment.settings.contains_key("net.core.bpf_jit_enable"));
    }

    #[test]
    fn offloads_are_read_from_ethtools_words() {
        let text = "Features for eth0:\ntx-checksumming: on\n\ttx-checksum-ipv4: off [fixed]\ngeneric-receive-offload: off [fixed]\n";
        let read = offloads(text);
        assert_eq!(read.get("tx-checksumming").map(String::as_str), Some("on"));
        assert_eq!(read.get("generic-receive-offload").map(String::as_str), Some("off"));
        assert_eq!(read.len(), 2);
    }
}
