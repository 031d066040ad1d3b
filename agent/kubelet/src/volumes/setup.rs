//! Puts a pod's volumes on disk, keeps API-backed ones fresh, and takes them away.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, Pod, ProjectedVolumeSource, Volume,
};

use super::atomic_writer::{self, Files};
use super::payload::{PayloadError, Source, downward_files, insert, object_files};
use crate::environment::NodeFacts;
use crate::objects::{ObjectError, Objects, TOKEN_SECONDS};
use crate::pods::state::{namespace, spec};
use crate::quantity;
use crate::sandbox::namespaces::{mount_tmpfs, unmount_below};

/// Why a pod's volumes are not ready; shown in a FailedMount event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
pub struct VolumeError {
    volume: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Payload(#[from] PayloadError),
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPath { path: String, wanted: &'static str },
    #[error("this kind of volume is not supported by this node")]
    Unsupported,
}

/// What filling a volume needs besides the pod.
pub struct Context<'a> {
    /// `<root>/pods/<uid>`.
    pub pod_dir: &'a Path,
    /// The API.
    pub objects: &'a Objects,
    /// For the downward API.
    pub node: &'a NodeFacts,
    /// Now.
    pub now: Timestamp,
}

/// Makes or refreshes all volumes of a pod. Repeating it changes only what the API changed.
pub async fn set_up(pod: &Pod, context: &Context<'_>) -> Result<(), VolumeError> {
    for volume in spec(pod).volumes.iter().flatten() {
        one(pod, volume, context)
            .await
            .map_err(|cause| VolumeError { volume: volume.name.clone(), cause })?;
    }
    Ok(())
}

/// Unmounts and removes everything below a pod's directory that volumes have put there.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    unmount_below(pod_dir)?;
    for part in ["volumes", "volume-subpaths"] {
        match fs::remove_dir_all(pod_dir.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Where a volume is on the node; `None` for kinds that this node does not have.
pub fn volume_path(pod_dir: &Path, volume: &Volume) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    Some(pod_dir.join("volumes").join(plugin(volume)?).join(&volume.name))
}

/// Directory name of a volume's plugin, as upstream escapes it.
fn plugin(volume: &Volume) -> Option<&'static str> {
    Some(if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.projected.is_some() {
        "kubernetes.io~projected"
    } else {
        return None;
    })
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

async fn one(pod: &Pod, volume: &Volume, context: &Context<'_>) -> Result<(), Cause> {
    if let Some(host) = &volume.host_path {
        return host_path(host);
    }
    let directory = volume_path(context.pod_dir, volume).ok_or(Cause::Unsupported)?;
    if let Some(source) = &volume.empty_dir {
        return empty_dir(source, &directory, fs_group(pod));
    }
    let secret = volume.secret.is_some() || volume.projected.is_some();
    let files = files(pod, volume, context).await?;
    fs::create_dir_all(&directory)?;
    if secret {
        mount_tmpfs(&directory, "mode=0755")?;
    }
    atomic_writer::write(&directory, &files, fs_group(pod), context.now)?;
    Ok(())
}

/// The files of an API-backed volume.
async fn files(pod: &Pod, volume: &Volume, context: &Context<'_>) -> Result<Files, Cause> {
    let mut files = Files::new();
    let objects = context.objects;
    if let Some(source) = &volume.config_map {
        let data = objects.config_map(namespace(pod), &source.name).await?;
        let items = source.items.as_deref();
        let from =
            Source { kind: "configmap", name: &source.name, items, optional: source.optional == Some(true) };
        object_files(&mut files, &from, data.as_ref(), source.default_mode)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let data = objects.secret(namespace(pod), name).await?;
        let items = source.items.as_deref();
        let from = Source { kind: "secret", name, items, optional: source.optional == Some(true) };
        object_files(&mut files, &from, data.as_ref(), source.default_mode)?;
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        downward_files(&mut files, pod, items, context.node, source.default_mode)?;
    } else if let Some(source) = &volume.projected {
        projected(&mut files, pod, source, context).await?;
    }
    Ok(files)
}

async fn projected(
    files: &mut Files,
    pod: &Pod,
    volume: &ProjectedVolumeSource,
    context: &Context<'_>,
) -> Result<(), Cause> {
    let mode = volume.default_mode;
    for source in volume.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let data = context.objects.config_map(namespace(pod), &map.name).await?;
            let items = map.items.as_deref();
            let from =
                Source { kind: "configmap", name: &map.name, items, optional: map.optional == Some(true) };
            object_files(files, &from, data.as_ref(), mode)?;
        } else if let Some(secret) = &source.secret {
            let data = context.objects.secret(namespace(pod), &secret.name).await?;
            let items = secret.items.as_deref();
            let from =
                Source { kind: "secret", name: &secret.name, items, optional: secret.optional == Some(true) };
            object_files(files, &from, data.as_ref(), mode)?;
        } else if let Some(downward) = &source.downward_api {
            downward_files(files, pod, downward.items.as_deref().unwrap_or_default(), context.node, mode)?;
        } else if let Some(token) = &source.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS);
            let text = context.objects.token(pod, token.audience.as_deref(), seconds, context.now).await?;
            insert(files, &token.path, text.into_bytes(), Some(token_mode(pod, mode)))?;
        } else {
            return Err(Cause::Unsupported);
        }
    }
    Ok(())
}

/// Tokens are for their owner alone when every container runs as one user, else for the pod's group or for all.
fn token_mode(pod: &Pod, default_mode: Option<i32>) -> i32 {
    if fs_group(pod).is_some() { 0o640 } else { default_mode.unwrap_or(0o644) }
}

/// Owner and mode are set once: the directory belongs to the containers from then on.
fn empty_dir(source: &EmptyDirVolumeSource, directory: &Path, group: Option<u32>) -> Result<(), Cause> {
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    match source.medium.as_deref() {
        None | Some("") => {}
        Some("Memory") => {
            let size = source.size_limit.as_ref().and_then(quantity::units).filter(|bytes| *bytes > 0);
            let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let owner = group.map(|group| format!(",gid={group}")).unwrap_or_default();
            return Ok(mount_tmpfs(directory, &format!("mode={mode:o}{size}{owner}"))?);
        }
        Some(_) => return Err(Cause::Unsupported),
    }
    if directory.exists() {
        return Ok(());
    }
    // Made under another name, so that an agent that dies here leaves no half-made volume.
    let fresh = directory.with_extension("new");
    fs::create_dir_all(&fresh)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(&fresh, None, Some(group))?;
    }
    // umask does not apply to chmod.
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    Ok(fs::rename(&fresh, directory)?)
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), Cause> {
    let path = Path::new(&source.path);
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    let require = |wanted: &'static str, fits: fn(&fs::FileType) -> bool| match &kind {
        Ok(kind) if fits(kind) => Ok(()),
        _ => Err(Cause::HostPath { path: source.path.clone(), wanted }),
    };
    match source.type_.as_deref().unwrap_or_default() {
        "" => Ok(()),
        "DirectoryOrCreate" if kind.is_err() => Ok(fs::create_dir_all(path)?),
        "DirectoryOrCreate" | "Directory" => require("directory", fs::FileType::is_dir),
        "FileOrCreate" if kind.is_err() => {
            fs::File::create(path)?;
            Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
        }
        "FileOrCreate" | "File" => require("file", fs::FileType::is_file),
        "Socket" => require("socket", FileTypeExt::is_socket),
        "CharDevice" => require("character device", FileTypeExt::is_char_device),
        "BlockDevice" => require("block device", FileTypeExt::is_block_device),
        _ => Err(Cause::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_dir_is_made_open_once_and_then_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volumes/v");
        let mode = || fs::metadata(&volume).unwrap().permissions().mode() & 0o7777;
        empty_dir(&EmptyDirVolumeSource::default(), &volume, None).unwrap();
        assert_eq!(mode(), 0o777);
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).unwrap();
        empty_dir(&EmptyDirVolumeSource::default(), &volume, None).unwrap();
        assert_eq!(mode(), 0o700, "what a container chose stays");
        let pages = EmptyDirVolumeSource { medium: Some("HugePages".into()), size_limit: None };
        assert!(matches!(empty_dir(&pages, &volume, None), Err(Cause::Unsupported)));
    }

    #[test]
    fn host_paths_are_checked_and_made_by_type() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display().to_string();
        let check = |path: &str, kind: &str| {
            let source = HostPathVolumeSource { path: format!("{root}/{path}"), type_: Some(kind.into()) };
            host_path(&source).map_err(|error| error.to_string().replace(&root, ""))
        };
        assert_eq!(check("none", ""), Ok(()));
        assert_eq!(check("dir", "DirectoryOrCreate"), Ok(()));
        assert_eq!(check("dir", "Directory"), Ok(()));
        assert_eq!(check("file", "FileOrCreate"), Ok(()));
        assert_eq!(check("file", "File"), Ok(()));
        assert_eq!(check("dir", "File"), Err("hostPath type check failed: /dir is not a file".into()));
        assert_eq!(
            check("none", "Directory"),
            Err("hostPath type check failed: /none is not a directory".into())
        );
        assert_eq!(check("dir", "Socket"), Err("hostPath type check failed: /dir is not a socket".into()));
    }
}
