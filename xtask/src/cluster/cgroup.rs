//! The cluster's cgroups: where the hierarchies are mounted, and emptying and removing what runs in them.
//!
//! Two layouts exist: v2 alone at `/sys/fs/cgroup`, and v1 controllers beside a v2 mount at `/sys/fs/cgroup/unified`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The mount of the v2 hierarchy.
pub(crate) fn unified() -> Result<PathBuf> {
    let mounts = hierarchies()?;
    let unified = mounts.into_iter().find(|(kind, _)| kind == "cgroup2");
    unified.map(|(_, path)| path).context("no cgroup v2 hierarchy is mounted")
}

/// Every mounted hierarchy: its file system type and mount point.
fn hierarchies() -> Result<Vec<(String, PathBuf)>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|fields| fields.len() > 2 && fields[2].starts_with("cgroup"))
        .map(|fields| (fields[2].to_owned(), PathBuf::from(fields[1])))
        .collect())
}

/// Kills every process below cgroup `name` of the v2 hierarchy and waits until it is empty.
pub(crate) fn kill(name: &str) -> Result<()> {
    let directory = unified()?.join(name);
    if !directory.exists() {
        return Ok(());
    }
    std::fs::write(directory.join("cgroup.kill"), "1").with_context(|| format!("kill cgroup {name}"))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while populated(&directory) {
        if Instant::now() > deadline {
            bail!("cgroup {name} still holds processes 10 s after they were killed");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn populated(directory: &Path) -> bool {
    std::fs::read_to_string(directory.join("cgroup.events"))
        .is_ok_and(|events| events.contains("populated 1"))
}

/// A process that runs in a cgroup below `name` whose path contains `part`.
pub(crate) fn member(name: &str, part: &str) -> Result<i32> {
    let mut open = vec![unified()?.join(name)];
    while let Some(directory) = open.pop() {
        let members = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        if directory.to_string_lossy().contains(part)
            && let Some(pid) = members.lines().next()
        {
            return Ok(pid.parse()?);
        }
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    bail!("no process runs in {part} below {name}")
}

/// Removes the empty cgroup `name` and all below it, in every hierarchy.
pub(crate) fn remove(name: &str) -> Result<()> {
    for (_, mount) in hierarchies()? {
        remove_tree(&mount.join(name));
    }
    Ok(())
}

/// Removes cgroup `name` itself where nothing is left below it.
pub(crate) fn remove_empty(name: &str) -> Result<()> {
    for (_, mount) in hierarchies()? {
        // The kernel refuses to remove a group that has children.
        drop(std::fs::remove_dir(mount.join(name)));
    }
    Ok(())
}

/// Deepest first; what the kernel refuses (a process that is still dying) is left.
fn remove_tree(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    drop(std::fs::remove_dir(directory));
}
