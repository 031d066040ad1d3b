//! The OCI runtime specification of one container, as JSON. Pure: paths and numbers come in, nothing is looked up.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};
use serde_json::{Value, json};

use super::image::ImageProcess;
use super::machine::{CAPABILITIES, Machine};
use super::seccomp;
use super::user::RunAs;
use crate::cgroup::qos::{CPU_PERIOD_US, Limits};
use crate::environment::expand::expand;
use crate::pods::state::spec as pod_spec;

/// Capabilities of an ordinary container.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A bind mount into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// `rprivate`, `rslave` or `rshared`.
    pub propagation: &'static str,
}

/// Namespaces of a container that are not its own; `None`: a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Pinned network namespace.
    pub network: Option<PathBuf>,
    /// Pinned IPC namespace.
    pub ipc: Option<PathBuf>,
    /// Pinned UTS namespace.
    pub uts: Option<PathBuf>,
    /// Share the node's process ids.
    pub host_pid: bool,
    /// Share the node's IPC objects.
    pub host_ipc: bool,
    /// A cgroup namespace of its own (only with cgroup v2).
    pub private_cgroup: bool,
}

/// Everything a specification is made from.
#[derive(Debug, Clone)]
pub struct SpecInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The image's defaults.
    pub image: &'a ImageProcess,
    /// Variables in order, as `environment::build` gives them.
    pub env: &'a [(String, String)],
    /// Host name of the pod.
    pub hostname: &'a str,
    /// Who runs it.
    pub run_as: RunAs,
    /// Volumes and files of the pod.
    pub mounts: &'a [Mount],
    /// cgroup path below each hierarchy, with leading slash.
    pub cgroups_path: &'a str,
    /// Shared namespaces.
    pub namespaces: &'a Namespaces,
    /// cpu and memory.
    pub limits: Limits,
    /// Before clamping.
    pub oom_score_adj: i32,
    /// What this agent can give.
    pub machine: &'a Machine,
}

/// Why no specification can be built; shown as CreateContainerError or CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Neither image nor spec says what to run.
    #[error("no command specified")]
    NoCommand,
    /// A seccomp profile that this node cannot apply.
    #[error("seccomp profile type \"{0}\" is not supported by this node")]
    Seccomp(String),
    /// A capability that does not exist.
    #[error("unknown capability \"{0}\"")]
    Capability(String),
}

/// Builds the specification.
pub fn build(input: &SpecInput<'_>) -> Result<Value, SpecError> {
    let context = input.container.security_context.clone().unwrap_or_default();
    let privileged = context.privileged == Some(true);
    let capabilities = capabilities(&context, input.machine)?;
    let unmasked = privileged || context.proc_mount.as_deref() == Some("Unmasked");
    let namespaces = namespaces(input.namespaces);
    let mut linux = json!({
        "cgroupsPath": input.cgroups_path,
        "namespaces": namespaces,
        "resources": resources(input.limits, privileged),
        "maskedPaths": if unmasked { json!([]) } else { json!(MASKED_PATHS) },
        "readonlyPaths": if unmasked { json!([]) } else { json!(READONLY_PATHS) },
    });
    if let Some(profile) = seccomp_profile(input.pod, &context, &capabilities)? {
        linux["seccomp"] = profile;
    }
    if input.mounts.iter().any(|mount| mount.propagation == "rshared") {
        linux["rootfsPropagation"] = json!("rshared");
    } else if input.mounts.iter().any(|mount| mount.propagation == "rslave") {
        linux["rootfsPropagation"] = json!("rslave");
    }
    let admin = capabilities.iter().any(|capability| capability == "CAP_SYS_ADMIN");
    let no_new_privileges = context.allow_privilege_escalation == Some(false) && !privileged && !admin;
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": input.container.tty == Some(true),
            "user": {"uid": input.run_as.uid, "gid": input.run_as.gid, "additionalGids": input.run_as.groups},
            "args": args(input)?,
            "env": env(input),
            "cwd": cwd(input),
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": no_new_privileges,
            "oomScoreAdj": input.oom_score_adj.max(input.machine.lowest_oom_score_adj),
        },
        "root": {"path": "rootfs", "readonly": context.read_only_root_filesystem == Some(true)},
        "mounts": mounts(input, privileged),
        "linux": linux,
    }))
}

/// The command line: the spec's command replaces the image's entrypoint and, with it, the image's cmd.
pub fn args(input: &SpecInput<'_>) -> Result<Vec<String>, SpecError> {
    let given = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    let expanded = |words: Vec<String>| -> Vec<String> {
        let lookup =
            |name: &str| input.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        words.iter().map(|word| expand(word, lookup)).collect()
    };
    let command = given(&input.container.command).map(&expanded);
    let arguments = given(&input.container.args).map(&expanded);
    let image_cmd = if command.is_none() && arguments.is_none() { given(&input.image.cmd) } else { None };
    let mut words = command.or_else(|| given(&input.image.entrypoint)).unwrap_or_default();
    words.extend(arguments.or(image_cmd).unwrap_or_default());
    if words.is_empty() { Err(SpecError::NoCommand) } else { Ok(words) }
}

/// Image variables, HOSTNAME, then the spec's; later ones win.
pub fn env(input: &SpecInput<'_>) -> Vec<String> {
    let mut list: Vec<(String, String)> = vec![("PATH".into(), DEFAULT_PATH.into())];
    if input.container.tty == Some(true) {
        list.push(("TERM".into(), "xterm".into()));
    }
    list.push(("HOSTNAME".into(), input.hostname.into()));
    let image = input.image.env.iter().flatten().filter_map(|line| line.split_once('='));
    let image = image.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in image.chain(input.env.iter().cloned()) {
        match list.iter_mut().find(|(key, _)| *key == name) {
            Some(entry) => entry.1 = value,
            None => list.push((name, value)),
        }
    }
    list.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn cwd(input: &SpecInput<'_>) -> String {
    let own = input.container.working_dir.clone().filter(|path| !path.is_empty());
    own.or_else(|| Some(input.image.working_dir.clone()).filter(|path| !path.is_empty()))
        .unwrap_or("/".into())
}

/// What the container asks for, as far as the agent has it itself.
fn capabilities(context: &SecurityContext, machine: &Machine) -> Result<Vec<String>, SpecError> {
    let canonical = |name: &String| -> Result<&'static str, SpecError> {
        let wanted = name.to_uppercase();
        let wanted = wanted.strip_prefix("CAP_").unwrap_or(&wanted).to_owned();
        let known = CAPABILITIES.iter().find(|known| known.strip_prefix("CAP_") == Some(&wanted));
        known.copied().ok_or_else(|| SpecError::Capability(name.clone()))
    };
    let lists = context.capabilities.clone().unwrap_or_default();
    let (add, drop) = (lists.add.unwrap_or_default(), lists.drop.unwrap_or_default());
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: std::collections::BTreeSet<&'static str> = if context.privileged == Some(true) || all(&add) {
        CAPABILITIES.into()
    } else if all(&drop) {
        std::collections::BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.into()
    };
    if context.privileged != Some(true) {
        for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            set.remove(canonical(name)?);
        }
        for name in add.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
            set.insert(canonical(name)?);
        }
    }
    Ok(set.into_iter().filter(|name| machine.capabilities.contains(name)).map(str::to_owned).collect())
}

fn seccomp_profile(
    pod: &Pod,
    context: &SecurityContext,
    capabilities: &[String],
) -> Result<Option<Value>, SpecError> {
    if context.privileged == Some(true) {
        return Ok(None);
    }
    let pods = pod_spec(pod).security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    match context.seccomp_profile.as_ref().or(pods).map(|profile| profile.type_.as_str()) {
        None | Some("Unconfined") => Ok(None),
        Some("RuntimeDefault") => Ok(Some(seccomp::runtime_default(capabilities))),
        Some(other) => Err(SpecError::Seccomp(other.to_owned())),
    }
}

fn namespaces(shared: &Namespaces) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    if !shared.host_pid {
        list.push(json!({"type": "pid"}));
    }
    if shared.private_cgroup {
        list.push(json!({"type": "cgroup"}));
    }
    let mut pinned = |kind: &str, path: &Option<PathBuf>| match path {
        Some(path) => list.push(json!({"type": kind, "path": path})),
        None => list.push(json!({"type": kind})),
    };
    pinned("network", &shared.network);
    pinned("uts", &shared.uts);
    if !shared.host_ipc {
        pinned("ipc", &shared.ipc);
    }
    Value::Array(list)
}

fn resources(limits: Limits, privileged: bool) -> Value {
    let mut cpu = serde_json::Map::new();
    if let Some(shares) = limits.cpu_shares {
        cpu.insert("shares".into(), json!(shares));
    }
    if let Some(quota) = limits.cpu_quota_us {
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(CPU_PERIOD_US));
    }
    let mut resources = json!({"devices": devices_rules(privileged), "cpu": cpu});
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({"limit": bytes});
    }
    resources
}

/// Device cgroup rules: nothing but the harmless character devices and terminals.
fn devices_rules(privileged: bool) -> Value {
    if privileged {
        return json!([{"allow": true, "access": "rwm"}]);
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    // null, zero, full, random, urandom, tty, console, ptmx and every pts.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    Value::Array(rules)
}

fn mounts(input: &SpecInput<'_>, privileged: bool) -> Value {
    let access = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
    ];
    if privileged {
        list.push(json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rprivate", "rw"]}));
    } else {
        list.push(json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}));
        list.push(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}));
    }
    list.extend([
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
    ]);
    let mut bound: Vec<&Mount> = input.mounts.iter().collect();
    // A mount inside another must come after it.
    bound.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    for mount in bound {
        let access = if mount.read_only { "ro" } else { "rw" };
        list.push(json!({"destination": mount.destination, "type": "bind", "source": mount.source,
            "options": ["rbind", mount.propagation, access]}));
    }
    Value::Array(list)
}

/// The process of an exec: the container's own with other words and terminal.
pub fn exec_process(spec: &Value, args: &[String], terminal: bool) -> Value {
    let mut process = spec["process"].clone();
    process["args"] = json!(args);
    process["terminal"] = json!(terminal);
    if let Some(env) = process["env"].as_array_mut()
        && terminal
        && !env.iter().any(|line| line.as_str().is_some_and(|line| line.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    process
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::qos;

    fn with(container: &Value, then: impl FnOnce(Result<Value, SpecError>)) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}}))
                .unwrap();
        let container = &pod_spec(&pod).containers[0];
        let image = ImageProcess {
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["serve".into()]),
            env: Some(vec!["PATH=/bin".into(), "X=image".into()]),
            ..ImageProcess::default()
        };
        let machine = Machine {
            capabilities: CAPABILITIES.into_iter().filter(|name| *name != "CAP_SYS_RESOURCE").collect(),
            lowest_oom_score_adj: 0,
            memory_bytes: 1 << 30,
            cpus: 2,
        };
        let env = [("X".to_owned(), "spec".to_owned())];
        let mounts = [
            Mount {
                source: "/a".into(),
                destination: "/data/inner".into(),
                read_only: true,
                propagation: "rprivate",
            },
            Mount {
                source: "/b".into(),
                destination: "/data".into(),
                read_only: false,
                propagation: "rslave",
            },
        ];
        then(build(&SpecInput {
            pod: &pod,
            container,
            image: &image,
            env: &env,
            hostname: "p",
            run_as: RunAs::default(),
            mounts: &mounts,
            cgroups_path: "/root/podx/c",
            namespaces: &Namespaces { network: Some("/ns/net".into()), ..Namespaces::default() },
            limits: qos::container_limits(container),
            oom_score_adj: -997,
            machine: &machine,
        }));
    }

    #[test]
    fn words_come_from_spec_before_image() {
        let check = |container: Value, expected: Value| {
            with(&container, |spec| assert_eq!(spec.unwrap()["process"]["args"], expected, "{container}"));
        };
        check(json!({"name": "c"}), json!(["/entry", "serve"]));
        check(json!({"name": "c", "args": ["x"]}), json!(["/entry", "x"]));
        check(json!({"name": "c", "command": ["sh"]}), json!(["sh"]));
        check(
            json!({"name": "c", "command": ["sh"], "args": ["-c", "echo $(X) $(Y)"]}),
            json!(["sh", "-c", "echo spec $(Y)"]),
        );
    }

    #[test]
    fn capabilities_are_bounded_by_the_agents_own() {
        let count = |context: Value, expected: usize| {
            with(&json!({"name": "c", "securityContext": context}), |spec| {
                let spec = spec.unwrap();
                let list = spec["process"]["capabilities"]["bounding"].as_array().unwrap();
                assert_eq!(list.len(), expected, "{context}");
                assert!(!list.contains(&json!("CAP_SYS_RESOURCE")));
            });
        };
        count(json!({}), 14);
        count(json!({"privileged": true}), 40);
        count(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}), 1);
        count(json!({"capabilities": {"add": ["ALL"], "drop": ["chown"]}}), 39);
        with(&json!({"name": "c", "securityContext": {"capabilities": {"add": ["FLY"]}}}), |spec| {
            assert_eq!(spec, Err(SpecError::Capability("FLY".into())));
        });
    }

    #[test]
    fn the_rest_of_the_specification_follows_the_spec() {
        let container = json!({"name": "c", "workingDir": "/w", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "RuntimeDefault"}}});
        with(&container, |spec| {
            let spec = spec.unwrap();
            assert_eq!(spec["process"]["cwd"], "/w");
            assert_eq!(spec["process"]["noNewPrivileges"], true);
            assert_eq!(spec["process"]["oomScoreAdj"], 0, "clamped");
            assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOSTNAME=p", "X=spec"]));
            assert_eq!(spec["root"]["readonly"], true);
            assert_eq!(spec["linux"]["resources"]["memory"], json!({"limit": 64 << 20}));
            assert_eq!(
                spec["linux"]["resources"]["cpu"],
                json!({"shares": 512, "quota": 50_000, "period": 100_000})
            );
            assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
            assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
            let mounts = spec["mounts"].as_array().unwrap();
            let order: Vec<_> =
                mounts.iter().rev().take(2).map(|mount| mount["destination"].clone()).collect();
            assert_eq!(order, ["/data/inner", "/data"], "the inner mount comes last");
            assert!(
                spec["linux"]["namespaces"]
                    .as_array()
                    .unwrap()
                    .contains(&json!({"type": "network", "path": "/ns/net"}))
            );
        });
    }

    #[test]
    fn an_exec_keeps_everything_but_the_words() {
        with(&json!({"name": "c"}), |spec| {
            let process = exec_process(&spec.unwrap(), &["ls".into()], true);
            assert_eq!(process["args"], json!(["ls"]));
            assert_eq!(process["cwd"], "/");
            assert!(process["env"].as_array().unwrap().contains(&json!("TERM=xterm")));
        });
    }
}
