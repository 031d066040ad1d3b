//! Where a program runs: a network namespace and a cgroup.
//!
//! A process enters a namespace by setns(NET) alone, on the thread that spawns it: `ip netns exec` would make a mount
//! namespace of its own, in which pins and mounts are invisible to others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace (by its pin's name) and a cgroup v2 group (relative to the mount), both optional.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) namespace: Option<String>,
    pub(crate) cgroup: Option<String>,
}

/// The pin of network namespace `name`.
pub(crate) fn pin(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Calls `work` on a thread of its own that lives in network namespace `name`.
pub(crate) fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace =
        std::fs::File::open(pin(name)).with_context(|| format!("open network namespace {name}"))?;
    let enter = || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter network namespace {name}"))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join())
        .map_err(|_| anyhow!("the thread in namespace {name} panicked"))?
}

impl Place {
    /// A command for `program` that joins the cgroup before it becomes the program; give it to [`Place::run`].
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let Some(cgroup) = &self.cgroup else { return Ok(Command::new(program)) };
        let directory = crate::cluster::cgroup::unified()?.join(cgroup);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("make cgroup {}", directory.display()))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(directory).arg(program);
        Ok(command)
    }

    /// Calls `work` (which spawns a command) in the namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.namespace {
            Some(name) => in_namespace(name, work),
            None => work(),
        }
    }
}
