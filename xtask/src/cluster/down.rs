//! `cargo xtask down`: removes every process, mount, pin, namespace, link and cgroup of a cluster, however much of one
//! there is. Logs stay, for whoever looks for what went wrong, until the next `up`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::plan::{self, Plan};
use crate::cluster::{agent, cgroup, containerd, control, fabric, rules};
use crate::place::pin;
use crate::shell;

/// Takes the cluster down and says so.
pub(crate) fn run() -> Result<()> {
    remove(true)?;
    println!("nothing of the cluster is left");
    Ok(())
}

/// Takes the cluster down; without `logs` they stay.
pub(crate) fn remove(logs: bool) -> Result<()> {
    stop_processes()?;
    unmount_below(Path::new(plan::RUN))?;
    unmount_below(&plan::directory())?;
    remove_directory(Path::new(plan::BPF))?;
    for namespace in fabric::namespaces(plan::MAX_NODES).iter().filter(|name| pin(name).exists()) {
        shell::words(&format!("ip netns delete {namespace}"))?;
    }
    for group in plan::cgroups(plan::MAX_NODES) {
        cgroup::remove(&group)?;
    }
    // The parent goes with its last child; somebody else's stays.
    cgroup::remove_empty(plan::CGROUP)?;
    remove_directory(Path::new(plan::RUN))?;
    remove_state(logs)
}

/// Agents and the control plane end in order; whatever is left (containers, shims, etcd) is killed by its cgroup.
fn stop_processes() -> Result<()> {
    let grace = Duration::from_secs(5);
    rules::daemon().stop(grace)?;
    if let Ok(plan) = Plan::read() {
        for node in plan.nodes() {
            agent::daemon(&node).stop(grace)?;
        }
    }
    control::daemon().stop(grace)?;
    for group in plan::cgroups(plan::MAX_NODES) {
        cgroup::kill(&group)?;
    }
    containerd::daemon().stop(grace)
}

/// Unmounts what lies below `directory`, newest first.
fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for point in points.filter(|point| point.starts_with(directory)) {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

fn remove_state(logs: bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(plan::directory()) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path == plan::logs() && !logs {
            continue;
        }
        if entry.file_type()?.is_dir() {
            remove_directory(&path)?;
        } else {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
