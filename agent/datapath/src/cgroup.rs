//! Where the cgroup v2 tree is, and the node's own subtree in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Why the node's cgroup is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 tree is mounted.
    #[error("no cgroup v2 filesystem is mounted (looked in /proc/self/mountinfo)")]
    NoUnified,
    /// Reading or creating failed.
    #[error("cgroup {path}: {source}")]
    Io {
        /// Which directory or file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The node's own subtree.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens the subtree `name` (like `beeline/node1`) of the v2 tree, made if missing. Works with a pure v2 layout and with the hybrid one,
/// where the v2 tree is an extra mount without controllers.
pub fn open(name: &str) -> Result<(Cgroup, File), CgroupError> {
    let mountinfo = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(mountinfo)
        .map_err(|source| CgroupError::Io { path: mountinfo.to_owned(), source })?;
    let path = unified(&text).ok_or(CgroupError::NoUnified)?.join(name);
    let failed = |source| CgroupError::Io { path: path.clone(), source };
    fs::create_dir_all(&path).map_err(failed)?;
    let file = File::open(&path).map_err(failed)?;
    Ok((Cgroup { path }, file))
}

/// The mount point of the v2 tree in the text of a mountinfo file (proc(5)): fields up to the separator `-`, then the filesystem type.
fn unified(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        (kind == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_tree_is_found_in_both_layouts() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                      40 25 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(unified(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let pure = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(unified(pure), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(unified("22 1 0:20 / /proc rw - proc proc rw\n"), None);
    }
}
