//! Network namespaces by path: a thread enters one, and the sockets that it opens from then on live there.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An open namespace, cheap to enter again and again.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Opens the namespace pinned at `path`, for example `/run/netns/client`, or `/proc/PID/ns/net`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        File::open(path).map(Self).with_context(|| format!("open network namespace {}", path.display()))
    }

    /// Moves the calling thread into it.
    pub(crate) fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("enter a network namespace (this needs root)")
    }
}
