//! Binds volumes into a container: volumeMounts with subPath resolved so that no link in the volume can lead out of
//! it, and the files that every container gets.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

use super::setup::volume_path;
use crate::environment::expand::expand;
use crate::oci::spec::Mount;
use crate::pods::state::spec;

/// Why a container's mounts cannot be made; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// volumeMounts names a volume that the pod does not have.
    #[error("volume \"{0}\" not found in the pod")]
    NoVolume(String),
    /// subPath cannot be prepared.
    #[error("failed to prepare subPath for volumeMount \"{mount}\" of container \"{container}\": {source}")]
    SubPath {
        /// Volume name.
        mount: String,
        /// Container name.
        container: String,
        /// The cause.
        source: io::Error,
    },
}

/// The volumeMounts of `container`, its variables expanded in subPathExpr.
pub fn volume_mounts(
    pod: &Pod,
    container: &Container,
    pod_dir: &Path,
    env: &[(String, String)],
) -> Result<Vec<Mount>, MountError> {
    let mut list = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volumes = spec(pod).volumes.as_deref().unwrap_or_default();
        let volume = volumes
            .iter()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
        let base = volume_path(pod_dir, volume).ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
        let source = match sub_path(mount, env) {
            None => base,
            Some(sub) => {
                let target = pod_dir
                    .join("volume-subpaths")
                    .join(&mount.name)
                    .join(&container.name)
                    .join(index.to_string());
                bind_sub_path(&base, &sub, &target).map_err(|source| MountError::SubPath {
                    mount: mount.name.clone(),
                    container: container.name.clone(),
                    source,
                })?;
                target
            }
        };
        list.push(Mount {
            source,
            destination: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => "rslave",
                Some("Bidirectional") => "rshared",
                _ => "rprivate",
            },
        });
    }
    Ok(list)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let expanded =
        mount.sub_path_expr.as_deref().filter(|sub| !sub.is_empty()).map(|sub| expand(sub, lookup));
    expanded.or_else(|| mount.sub_path.clone()).filter(|sub| !sub.is_empty())
}

/// Binds `base`/`sub` onto `target`, making missing directories. Links are followed only inside `base`.
fn bind_sub_path(base: &Path, sub: &str, target: &Path) -> io::Result<()> {
    let root = rustix::fs::open(base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let found = open_inside(&root, sub)?;
    super::super::sandbox::namespaces::unmount_below(target)?;
    let is_directory = rustix::fs::fstat(&found)?.st_mode & 0o170_000 == 0o040_000;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_directory {
        fs::create_dir_all(target)?;
    } else {
        fs::File::create(target)?;
    }
    // The descriptor pins what was checked, whatever becomes of the names in between.
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), target)?;
    Ok(())
}

fn open_inside(root: &OwnedFd, sub: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if Path::new(sub).is_absolute() || sub.split('/').any(|part| part == "..") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("\"{sub}\" must stay inside the volume"),
        ));
    }
    match openat2(root, sub, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => {}
        found => return Ok(found?),
    }
    let mut prefix = PathBuf::new();
    for part in Path::new(sub) {
        let parent = if prefix.as_os_str().is_empty() {
            openat2(root, ".", flags, Mode::empty(), resolve)?
        } else {
            openat2(root, &prefix, flags, Mode::empty(), resolve)?
        };
        match mkdirat(&parent, part, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        prefix.push(part);
    }
    Ok(openat2(root, sub, flags, Mode::empty(), resolve)?)
}

/// Adds a file of the pod at `destination`, unless the container mounts something there itself.
pub fn add_file(mounts: &mut Vec<Mount>, source: PathBuf, destination: &str, read_only: bool) {
    if !mounts.iter().any(|mount| mount.destination.trim_end_matches('/') == destination) {
        mounts.push(Mount {
            source,
            destination: destination.to_owned(),
            read_only,
            propagation: "rprivate",
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sub_paths_stay_inside_their_volume() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", directory.path().join("escape")).unwrap();
        let root =
            rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(open_inside(&root, "real").is_ok());
        assert!(open_inside(&root, "new/deep").is_ok());
        assert!(directory.path().join("new/deep").is_dir());
        for bad in ["../x", "/etc", "a/../../b"] {
            assert_eq!(open_inside(&root, bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
        // The link points to /etc of the volume, which does not exist; it is never the node's.
        assert!(open_inside(&root, "escape/passwd").is_err());
    }

    #[test]
    fn a_containers_own_mount_wins_over_the_pods_file() {
        let own = Mount {
            source: "/v".into(),
            destination: "/etc/hosts".into(),
            read_only: false,
            propagation: "rprivate",
        };
        let mut mounts = vec![own];
        add_file(&mut mounts, "/pods/u/etc-hosts".into(), "/etc/hosts", false);
        add_file(&mut mounts, "/pods/u/resolv.conf".into(), "/etc/resolv.conf", false);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].source, Path::new("/v"));
    }
}
