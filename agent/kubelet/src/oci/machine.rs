//! What this agent may give to a container: its own capabilities and OOM score bound what runc can set. Read once.
//! On an unconfined node nothing is clamped.

use std::collections::BTreeSet;
use std::fs;

/// Linux capabilities by bit number (include/uapi/linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Bounds of what this agent can hand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Capabilities that the agent itself has.
    pub capabilities: BTreeSet<&'static str>,
    /// The lowest OOM score adjustment that can be set; -1000 when unbounded.
    pub lowest_oom_score_adj: i32,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
}

impl Machine {
    /// Asks the kernel.
    pub fn detect() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = parse_capabilities(&status);
        let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(0);
        let unbounded = capabilities.contains("CAP_SYS_RESOURCE");
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            capabilities,
            lowest_oom_score_adj: if unbounded { -1000 } else { own },
            memory_bytes: parse_memory(&meminfo),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        }
    }
}

/// The effective set of /proc/self/status; empty when it cannot be read.
fn parse_capabilities(status: &str) -> BTreeSet<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

fn parse_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_by_bit() {
        let set = parse_capabilities("CapPrm:\t0\nCapEff:\t000001fffeffffff\n");
        assert_eq!(set.len(), 40);
        assert!(!set.contains("CAP_SYS_RESOURCE") && set.contains("CAP_CHECKPOINT_RESTORE"));
        assert_eq!(parse_memory("MemTotal:       24000000 kB\n"), 24_576_000_000);
    }
}
