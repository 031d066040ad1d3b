//! A network namespace as a value: opened from where it is pinned, entered by threads made for that.
//!
//! A thread that entered a namespace is never reused: it ends with its task, so no other work can run in the wrong namespace.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An open network namespace.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// The namespace pinned (bind-mounted) at `path`, or named by a `/proc/PID/ns/net` link.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespaces of these processes' threads, each once. What ends meanwhile is left out.
    pub fn of_processes(processes: &[u32]) -> Vec<Self> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for process in processes {
            for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let path = thread.path().join("ns/net");
                // The link's text names the namespace: one that is known need not be opened.
                let is_new = fs::read_link(&path).is_ok_and(|name| seen.insert(name));
                found.extend(is_new.then(|| Self::open(&path).ok()).flatten());
            }
        }
        found
    }

    /// Runs `work` inside the namespace on a thread of its own and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
                move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
