//! Network, IPC and UTS namespaces without a process: a thread leaves the node's namespaces, sets the host name and
//! sysctls, and bind-mounts what it is in onto files. The thread ends; the namespaces stay until unpinned.
//!
//! Must run in the same mount namespace as containerd's shims, or they do not see the pins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// Magic number of nsfs, the file system of pinned namespaces (include/uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The namespaces that are pinned, as named in /proc/<pid>/ns.
const KINDS: [&str; 3] = ["net", "ipc", "uts"];

/// Pins of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The pins in `directory`, which need not exist.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Path of the pinned network namespace.
    pub fn net(&self) -> PathBuf {
        self.directory.join("net")
    }

    /// Path of the pinned IPC namespace.
    pub fn ipc(&self) -> PathBuf {
        self.directory.join("ipc")
    }

    /// Path of the pinned UTS namespace.
    pub fn uts(&self) -> PathBuf {
        self.directory.join("uts")
    }

    /// Whether all namespaces are pinned: false after a boot, or before the first start. `network`: whether a network
    /// namespace belongs to it.
    pub fn present(&self, network: bool) -> bool {
        KINDS
            .iter()
            .filter(|kind| network || **kind != "net")
            .all(|kind| is_pinned(&self.directory.join(kind)))
    }

    /// Makes and pins new namespaces. `network`: with a network namespace of its own. Anything pinned before is
    /// replaced.
    pub fn create(&self, hostname: &str, network: bool, sysctls: &[(String, String)]) -> io::Result<()> {
        self.remove()?;
        fs::create_dir_all(&self.directory)?;
        let directory = self.directory.clone();
        let (hostname, sysctls) = (hostname.to_owned(), sysctls.to_vec());
        let thread = std::thread::Builder::new().name("sandbox".into()).spawn(move || {
            let flags = UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
            let flags = if network { flags | UnshareFlags::NEWNET } else { flags };
            leave_namespaces(flags)?;
            rustix::system::sethostname(hostname.as_bytes())?;
            for (name, value) in &sysctls {
                let path = Path::new("/proc/sys").join(name.replace('.', "/"));
                fs::write(&path, value)
                    .map_err(|error| io::Error::new(error.kind(), format!("sysctl {name}: {error}")))?;
            }
            for kind in KINDS.iter().filter(|kind| network || **kind != "net") {
                let target = directory.join(kind);
                fs::File::create(&target)?;
                rustix::mount::mount_bind(format!("/proc/thread-self/ns/{kind}"), &target)?;
            }
            Ok(())
        })?;
        thread.join().map_err(|_| io::Error::other("namespace thread panicked"))?
    }

    /// Unpins. What is not there is a success.
    pub fn remove(&self) -> io::Result<()> {
        for kind in KINDS {
            unpin(&self.directory.join(kind))?;
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[expect(
    deprecated,
    reason = "unshare is unsafe only with UnshareFlags::FILES, which no caller here passes; its replacement asks for an unsafe block"
)]
fn leave_namespaces(flags: UnshareFlags) -> io::Result<()> {
    rustix::thread::unshare(flags).map_err(Into::into)
}

/// Pins the network namespace that this agent runs in: hostNetwork pods join it, since containerd may live in another.
pub fn pin_own_network(target: &Path) -> io::Result<()> {
    unpin(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(target)?;
    rustix::mount::mount_bind("/proc/self/ns/net", target)?;
    Ok(())
}

fn unpin(target: &Path) -> io::Result<()> {
    while is_pinned(target) {
        rustix::mount::unmount(target, UnmountFlags::DETACH)?;
    }
    match fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_pinned(target: &Path) -> bool {
    rustix::fs::statfs(target).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
}

/// Mounts the pod's /dev/shm: 64 MiB of memory that its containers share. A second call finds it mounted.
pub fn mount_shm(target: &Path) -> io::Result<()> {
    mount_tmpfs(target, "mode=1777,size=65536k")
}

/// Mounts a tmpfs with `options`, unless one is there.
pub fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    if is_tmpfs_mount(target) {
        return Ok(());
    }
    let options =
        std::ffi::CString::new(options).map_err(|_| io::Error::other("mount options contain a NUL"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))?;
    Ok(())
}

/// Whether a file system of its own is mounted at `target`.
pub fn is_mount_point(target: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
    target.parent().is_some_and(|parent| device(target).is_some() && device(target) != device(parent))
}

fn is_tmpfs_mount(target: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    is_mount_point(target) && rustix::fs::statfs(target).is_ok_and(|stat| stat.f_type as u64 == TMPFS_MAGIC)
}

/// Unmounts everything mounted at or below `directory`, the innermost first.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    for target in mount_points_below(&table, directory).into_iter().rev() {
        match rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Mount points of a mountinfo table below a directory, in the order they were mounted.
fn mount_points_below(table: &str, directory: &Path) -> Vec<PathBuf> {
    let fields = table.lines().filter_map(|line| line.split(' ').nth(4));
    fields.map(|field| PathBuf::from(unescape(field))).filter(|path| path.starts_with(directory)).collect()
}

/// mountinfo writes blanks, tabs, newlines and backslashes as octal escapes.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mount_points_are_found_by_directory() {
        let table = "22 1 0:20 / /a rw - tmpfs t rw\n23 1 0:21 / /a/b\\040c rw - tmpfs t rw\n24 1 0:22 / /ab rw - tmpfs t rw\n";
        assert_eq!(mount_points_below(table, Path::new("/a")), [Path::new("/a"), Path::new("/a/b c")]);
    }

    #[test]
    fn namespaces_outlive_their_thread_and_end_when_unpinned() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::new(directory.path().join("pod"));
        assert!(!pins.present(true));
        let sysctl = ("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned());
        pins.create("web-0", true, &[sysctl]).unwrap();
        assert!(pins.present(true));
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        let pinned = fs::metadata(pins.net()).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_ne!(own.ino(), pinned.ino());
        pins.create("again", true, &[]).unwrap();
        pins.remove().unwrap();
        assert!(!pins.present(true) && !directory.path().join("pod").exists());
        pins.remove().unwrap();
    }
}
