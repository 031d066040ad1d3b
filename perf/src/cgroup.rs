//! Control groups (version 2): which sockets a hook sees is decided by the group of the process that made them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// This process is in the group while it lives.
pub(crate) struct Entered {
    before: PathBuf,
}

impl Entered {
    /// Moves this process into the group at `path`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).context("no line of cgroup v2")?;
        let before = unified()?.join(own.trim_start_matches('/'));
        move_to(path)?;
        Ok(Self { before })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(error) = move_to(&self.before) {
            eprintln!("perf: {error:#}");
        }
    }
}

fn move_to(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("enter {}", group.display()))
}

/// The mount of version 2.
pub(crate) fn unified() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = words.find(|words| words.get(2) == Some(&"cgroup2")).context("cgroup v2 is not mounted")?;
    Ok(PathBuf::from(mount[1]))
}
