//! Processes of a cgroup: those whose sockets the data plane serves.

use std::fs;
use std::io;
use std::path::Path;

/// The processes in the cgroup directory `cgroup` and below it.
pub fn below(cgroup: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut directories = vec![cgroup.to_owned()];
    while let Some(directory) = directories.pop() {
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(processes) => found.extend(processes.lines().filter_map(|line| line.parse::<u32>().ok())),
            // A directory that goes while it is read is no fault, nor is one of threads (cgroup.type: EOPNOTSUPP).
            Err(_) if directory != cgroup => continue,
            Err(error) => return Err(error),
        }
        let below = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(below.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
    }
    Ok(found)
}
