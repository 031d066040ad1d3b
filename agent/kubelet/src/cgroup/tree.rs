//! The cgroup directories of a node, in cgroup v1, v2 and hybrid layouts. Container cgroups below a pod's are made
//! by the OCI runtime; this file makes what is above them and removes all of it.
//!
//! Layout below each hierarchy: `<root>/kubepods/[burstable/|besteffort/]pod<uid>/<container id>`. In a hybrid
//! layout the same path exists in the unified hierarchy, because BPF cgroup programs attach to `<root>` there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::qos::{CPU_PERIOD_US, Limits, QosClass, weight};

/// v1 controllers in which pod cgroups are made ahead of the runtime. cpuset is not among them: a new cpuset is
/// empty until filled from its parent, and the runtime does that for every level it makes.
const V1_CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuacct"];

/// v1 hierarchies searched when a pod's cgroups are removed.
const V1_ALL: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpu,cpuacct",
    "cpuset",
    "memory",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "hugetlb",
    "systemd",
    "perf_event",
];

/// v2 controllers handed down to pods.
const V2_CONTROLLERS: &str = "+cpu +memory +pids";

/// How cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Only cgroup v2.
    Unified,
    /// Controllers on v1; `hybrid`: a v2 hierarchy without controllers beside them.
    Legacy {
        /// Whether `<mount>/unified` exists.
        hybrid: bool,
    },
}

/// One node's cgroup tree.
#[derive(Debug, Clone)]
pub struct CgroupTree {
    mount: PathBuf,
    layout: Layout,
    /// `<cgroup root>/kubepods`, without leading slash.
    kubepods: String,
}

impl CgroupTree {
    /// The tree of `cgroup_root` below `mount` (`/sys/fs/cgroup`).
    pub fn detect(mount: impl Into<PathBuf>, cgroup_root: &str) -> Self {
        let mount = mount.into();
        let layout = if mount.join("cgroup.controllers").exists() {
            Layout::Unified
        } else {
            Layout::Legacy { hybrid: mount.join("unified/cgroup.procs").exists() }
        };
        Self { mount, layout, kubepods: format!("{}/kubepods", cgroup_root.trim_matches('/')) }
    }

    /// How cgroups are mounted here.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Path of a pod's cgroup below each hierarchy, without leading slash.
    pub fn pod_path(&self, class: QosClass, uid: &str) -> String {
        match class.directory() {
            Some(directory) => format!("{}/{directory}/pod{uid}", self.kubepods),
            None => format!("{}/pod{uid}", self.kubepods),
        }
    }

    /// Makes `kubepods` and the QoS levels; limits the whole to `memory_bytes`.
    pub fn create_root(&self, memory_bytes: Option<u64>) -> io::Result<()> {
        self.create(&self.kubepods, Limits { memory_bytes, ..Limits::default() })?;
        for class in [QosClass::Burstable, QosClass::BestEffort] {
            let directory = class.directory().unwrap_or_default();
            let shares = Limits { cpu_shares: Some(2), ..Limits::default() };
            self.create(&format!("{}/{directory}", self.kubepods), shares)?;
        }
        Ok(())
    }

    /// Makes a cgroup in every hierarchy and sets its limits. What exists is only updated.
    pub fn create(&self, path: &str, limits: Limits) -> io::Result<()> {
        match self.layout {
            Layout::Unified => {
                self.create_delegated(path)?;
                write_all(&self.mount.join(path), &v2_files(limits))
            }
            Layout::Legacy { hybrid } => {
                for controller in V1_CONTROLLERS {
                    let directory = self.mount.join(controller).join(path);
                    if self.mount.join(controller).exists() {
                        fs::create_dir_all(&directory)?;
                        write_all(&directory, &v1_files(controller, limits))?;
                    }
                }
                if hybrid {
                    fs::create_dir_all(self.mount.join("unified").join(path))?;
                }
                Ok(())
            }
        }
    }

    /// v2 children have only the controllers that every level above hands down.
    fn create_delegated(&self, path: &str) -> io::Result<()> {
        let mut level = self.mount.clone();
        for part in path.split('/') {
            fs::write(level.join("cgroup.subtree_control"), V2_CONTROLLERS).or_else(|error| {
                // The root of a container has processes of its own and cannot hand controllers down.
                if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
            level.push(part);
            fs::create_dir_all(&level)?;
        }
        fs::write(level.join("cgroup.subtree_control"), V2_CONTROLLERS)
    }

    /// Removes a cgroup and everything below it from every hierarchy, waiting a little for processes that are
    /// already dying. A cgroup that is not there is a success.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_secs(2);
        for directory in self.directories(path) {
            loop {
                match remove_tree(&directory) {
                    Err(error)
                        if error.kind() == io::ErrorKind::ResourceBusy
                            && std::time::Instant::now() < deadline =>
                    {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    outcome => break outcome?,
                }
            }
        }
        Ok(())
    }

    /// Process ids below a path, from the hierarchy that the runtime is sure to use.
    pub fn processes(&self, path: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let top = match self.layout {
            Layout::Unified => self.mount.join(path),
            Layout::Legacy { .. } => self.mount.join("memory").join(path),
        };
        collect_processes(&top, &mut found);
        found
    }

    /// Whether the kernel killed a process of this cgroup for want of memory. Ask before the runtime removes it.
    pub fn oom_killed(&self, path: &str) -> bool {
        let file = match self.layout {
            Layout::Unified => self.mount.join(path).join("memory.events"),
            Layout::Legacy { .. } => self.mount.join("memory").join(path).join("memory.oom_control"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    }

    /// cpu time in nanoseconds and working set in bytes (usage less inactive file pages).
    pub fn usage(&self, path: &str) -> (Option<u64>, Option<u64>) {
        let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        let field = |file: PathBuf, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let (cpu, used, inactive) = match self.layout {
            Layout::Unified => {
                let directory = self.mount.join(path);
                let micros = field(directory.join("cpu.stat"), "usage_usec ");
                let inactive = field(directory.join("memory.stat"), "inactive_file ");
                (micros.map(|micros| micros * 1000), number(directory.join("memory.current")), inactive)
            }
            Layout::Legacy { .. } => {
                let memory = self.mount.join("memory").join(path);
                let inactive = field(memory.join("memory.stat"), "total_inactive_file ");
                let cpu = number(self.mount.join("cpuacct").join(path).join("cpuacct.usage"));
                (cpu, number(memory.join("memory.usage_in_bytes")), inactive)
            }
        };
        (cpu, used.map(|used| used.saturating_sub(inactive.unwrap_or(0))))
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let mut list: Vec<PathBuf> = match self.layout {
            Layout::Unified => vec![self.mount.join(path)],
            Layout::Legacy { .. } => {
                V1_ALL.iter().map(|controller| self.mount.join(controller).join(path)).collect()
            }
        };
        if self.layout == (Layout::Legacy { hybrid: true }) {
            list.push(self.mount.join("unified").join(path));
        }
        list.retain(|directory| directory.exists());
        list
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), found);
        }
    }
}

/// cgroup directories are removed leaves first, by rmdir: their files cannot be unlinked.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_all(directory: &Path, files: &[(&str, String)]) -> io::Result<()> {
    for (file, value) in files {
        fs::write(directory.join(file), value).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", directory.join(file).display()))
        })?;
    }
    Ok(())
}

fn v1_files(controller: &str, limits: Limits) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    match controller {
        "cpu" => {
            files.extend(limits.cpu_shares.map(|shares| ("cpu.shares", shares.to_string())));
            if let Some(quota) = limits.cpu_quota_us {
                files.push(("cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                files.push(("cpu.cfs_quota_us", quota.to_string()));
            }
        }
        "memory" => {
            files.extend(limits.memory_bytes.map(|bytes| ("memory.limit_in_bytes", bytes.to_string())));
        }
        _ => {}
    }
    files
}

fn v2_files(limits: Limits) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    files.extend(limits.cpu_shares.map(|shares| ("cpu.weight", weight(shares).to_string())));
    files.extend(limits.cpu_quota_us.map(|quota| ("cpu.max", format!("{quota} {CPU_PERIOD_US}"))));
    files.extend(limits.memory_bytes.map(|bytes| ("memory.max", bytes.to_string())));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { cpu_shares: Some(256), cpu_quota_us: Some(50_000), memory_bytes: Some(64 << 20) };

    #[test]
    fn the_same_limits_are_written_in_both_versions() {
        let v1: Vec<_> = V1_CONTROLLERS.iter().flat_map(|controller| v1_files(controller, LIMITS)).collect();
        let expected = [
            ("cpu.shares", "256"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("memory.limit_in_bytes", "67108864"),
        ];
        assert_eq!(v1, expected.map(|(file, value)| (file, value.to_owned())));
        let expected = [("cpu.weight", "10"), ("cpu.max", "50000 100000"), ("memory.max", "67108864")];
        assert_eq!(v2_files(LIMITS), expected.map(|(file, value)| (file, value.to_owned())));
    }

    #[test]
    fn pods_sit_by_class_below_the_nodes_root() {
        let tree = CgroupTree::detect("/nonexistent", "/beeline/node1/");
        assert_eq!(tree.pod_path(QosClass::Guaranteed, "u"), "beeline/node1/kubepods/podu");
        assert_eq!(tree.pod_path(QosClass::BestEffort, "u"), "beeline/node1/kubepods/besteffort/podu");
        assert_eq!(tree.layout(), Layout::Legacy { hybrid: false });
    }
}
