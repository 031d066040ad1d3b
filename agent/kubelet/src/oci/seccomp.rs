//! The RuntimeDefault seccomp profile, as a deny list: system calls that common container runtimes' default profiles
//! refuse, unless the container has the capability that they need anyway. Localhost profiles are not read here.

use serde_json::{Value, json};

/// (capability that allows them, system calls). An empty capability: never allowed.
const DENIED: &[(&str, &[&str])] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "swapoff",
            "swapon",
            "umount",
            "umount2",
            "unshare",
            "perf_event_open",
            "bpf",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module", "create_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["process_madvise"]),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64", "clock_adjtime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "move_pages", "migrate_pages"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "",
        &[
            "add_key",
            "keyctl",
            "request_key",
            "userfaultfd",
            "get_kernel_syms",
            "query_module",
            "nfsservctl",
            "uselib",
            "ustat",
            "sysfs",
            "_sysctl",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "vm86",
            "vm86old",
        ],
    ),
];

/// `linux.seccomp` of a container with `capabilities`.
pub fn runtime_default(capabilities: &[String]) -> Value {
    let names: Vec<&str> = DENIED
        .iter()
        .filter(|(capability, _)| !capabilities.iter().any(|own| own == capability))
        .flat_map(|(_, calls)| calls.iter().copied())
        .collect();
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_lifts_its_own_calls_only() {
        let text =
            |capabilities: &[String]| runtime_default(capabilities)["syscalls"][0]["names"].to_string();
        assert!(text(&[]).contains("\"mount\""));
        let admin = text(&["CAP_SYS_ADMIN".into()]);
        assert!(!admin.contains("\"mount\"") && admin.contains("\"reboot\"") && admin.contains("\"keyctl\""));
    }
}
