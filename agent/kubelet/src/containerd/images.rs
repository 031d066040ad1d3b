//! Images in containerd's store: finding one by name, reading its configuration and account files. Fetching from a
//! registry is not done here, nor is unpacking: whoever imports an image unpacks it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::services::v1::{GetImageRequest, ListImagesRequest, ReadContentRequest};
use containerd_client::types::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::de::DeserializeOwned;

use super::client::{Containerd, RuntimeError, at};
use super::image_name::repository;
use crate::oci::image::{ImageConfig, ImageProcess, ManifestOrIndex, architecture, chain_id};
use crate::oci::user::Accounts;

/// The snapshotter that images are unpacked with.
pub const SNAPSHOTTER: &str = "overlayfs";

/// Largest account file that is read from an image.
const MAX_ACCOUNT_BYTES: u64 = 1 << 20;

/// An image ready to run.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full name.
    pub name: String,
    /// `repository@digest`, as status.imageID shows it.
    pub id: String,
    /// Process defaults.
    pub process: ImageProcess,
    /// Snapshot that containers start from.
    pub chain_id: String,
}

/// An image of the node, for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Full name.
    pub name: String,
    /// Digest of the manifest or index.
    pub digest: String,
    /// Size of configuration and layers as stored, in bytes.
    pub size_bytes: i64,
}

impl Containerd {
    /// The image of that full name; `None` when it is not in the store.
    pub async fn image(&self, name: &str) -> Result<Option<Arc<Image>>, RuntimeError> {
        let request = self.request(GetImageRequest { name: name.to_owned() });
        let answer = match ImagesClient::new(self.channel.clone()).get(request).await.map_err(at("get image"))
        {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?.into_inner(),
        };
        let target = answer.image.and_then(|image| image.target).unwrap_or_default();
        if let Some(known) = lock(&self.image_cache).get(&target.digest)
            && known.name == name
        {
            return Ok(Some(known.clone()));
        }
        let manifest = self.manifest(&target.digest).await?;
        let config_digest = manifest.config.map(|config| config.digest).unwrap_or_default();
        let config: ImageConfig = self.read_json(&config_digest).await?;
        let chain_id = chain_id(&config.rootfs.diff_ids).ok_or_else(|| RuntimeError::Malformed {
            what: format!("image {name}"),
            message: "no layers".into(),
        })?;
        let image = Arc::new(Image {
            name: name.to_owned(),
            id: format!("{}@{}", repository(name), target.digest),
            process: config.config,
            chain_id,
        });
        lock(&self.image_cache).insert(target.digest, image.clone());
        Ok(Some(image))
    }

    /// All images with a name, for the node's status.
    pub async fn images(&self) -> Result<Vec<StoredImage>, RuntimeError> {
        let request = self.request(ListImagesRequest { filters: Vec::new() });
        let answer =
            ImagesClient::new(self.channel.clone()).list(request).await.map_err(at("list images"))?;
        let mut list = Vec::new();
        for image in answer.into_inner().images {
            let digest = image.target.unwrap_or_default().digest;
            // An image that is half gone must not hide the others.
            let Ok(manifest) = self.manifest(&digest).await else { continue };
            let config_size = manifest.config.as_ref().map_or(0, |config| config.size);
            let size_bytes = config_size + manifest.layers.iter().map(|layer| layer.size).sum::<i64>();
            list.push(StoredImage { name: image.name, digest, size_bytes });
        }
        Ok(list)
    }

    /// The manifest behind a digest, through an index if it is one.
    async fn manifest(&self, digest: &str) -> Result<ManifestOrIndex, RuntimeError> {
        let document: ManifestOrIndex = self.read_json(digest).await?;
        if document.manifests.is_empty() {
            return Ok(document);
        }
        let chosen = document.choose(architecture()).ok_or_else(|| RuntimeError::Malformed {
            what: format!("image index {digest}"),
            message: format!("no manifest for linux/{}", architecture()),
        })?;
        self.read_json(&chosen.digest).await
    }

    async fn read_json<T: DeserializeOwned>(&self, digest: &str) -> Result<T, RuntimeError> {
        let request = self.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let answer =
            ContentClient::new(self.channel.clone()).read(request).await.map_err(at("read content"))?;
        let mut stream = answer.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(at("read content"))? {
            bytes.extend_from_slice(&part.data);
        }
        serde_json::from_slice(&bytes).map_err(|error| RuntimeError::Malformed {
            what: format!("content {digest}"),
            message: error.to_string(),
        })
    }

    /// passwd and group of an image, read from its layers without mounting them; read once per image.
    pub async fn accounts(&self, image: &Image) -> Result<Arc<Accounts>, RuntimeError> {
        let mut cache = self.accounts_cache.lock().await;
        if let Some(known) = cache.get(&image.chain_id) {
            return Ok(known.clone());
        }
        let key = format!("accounts-{}", image.chain_id);
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.clone() };
        // One may be left over from an agent that died here.
        let _ = snapshots.remove(self.request(remove.clone())).await;
        let view = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key,
            parent: image.chain_id.clone(),
            ..ViewSnapshotRequest::default()
        };
        let mounts = snapshots.view(self.request(view)).await.map_err(at("view image"))?.into_inner().mounts;
        let layers = layer_directories(&mounts);
        let accounts = Arc::new(Accounts {
            passwd: read_layered(&layers, "etc/passwd"),
            group: read_layered(&layers, "etc/group"),
        });
        let _ = snapshots.remove(self.request(remove)).await;
        cache.insert(image.chain_id.clone(), accounts.clone());
        Ok(accounts)
    }
}

/// Locks a mutex of this agent; a panic elsewhere leaves plain maps intact.
pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Directories of a snapshot's layers, the topmost first: from a bind mount or from overlayfs options.
fn layer_directories(mounts: &[Mount]) -> Vec<PathBuf> {
    mounts
        .iter()
        .flat_map(|mount| {
            let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
            match lower {
                Some(list) => list.split(':').map(PathBuf::from).collect(),
                None => vec![PathBuf::from(&mount.source)],
            }
        })
        .collect()
}

/// The file as the topmost layer that has it shows it; links cannot lead out of the layer.
fn read_layered(layers: &[PathBuf], file: &str) -> String {
    layers.iter().find_map(|layer| read_beneath(layer, file)).unwrap_or_default()
}

fn read_beneath(root: &Path, file: &str) -> Option<String> {
    use std::io::Read;
    let directory =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let opened =
        openat2(&directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
            .ok()?;
    let mut bytes = Vec::new();
    std::fs::File::from(opened).take(MAX_ACCOUNT_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn account_files_come_from_the_topmost_layer_and_stay_inside_it() {
        let directory = tempfile::tempdir().unwrap();
        let (top, low) = (directory.path().join("top"), directory.path().join("low"));
        for layer in [&top, &low] {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        std::fs::write(low.join("etc/passwd"), "low").unwrap();
        std::os::unix::fs::symlink("/etc/shadow-of-the-node", top.join("etc/group")).unwrap();
        let overlay = Mount {
            options: vec![format!("lowerdir={}:{}", top.display(), low.display())],
            ..Mount::default()
        };
        let layers = layer_directories(&[overlay]);
        assert_eq!(layers, [top.clone(), low]);
        assert_eq!(read_layered(&layers, "etc/passwd"), "low");
        assert_eq!(read_layered(&layers, "etc/group"), "");
        std::fs::write(top.join("etc/passwd"), "top").unwrap();
        assert_eq!(read_layered(&layers, "etc/passwd"), "top");
    }
}
