//! Images without a registry: a root directory becomes an OCI image layout in one tar file.
//!
//! One uncompressed layer (the layer's digest is then its diff id, and nothing is unpacked twice), owners root, times
//! zero: the same files give the same bytes. It builds no images from recipes.
//!
//! # See
//! OCI image format: image layout, image manifest, image configuration.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What the image's configuration says besides its layer.
#[derive(Default)]
pub(crate) struct Config {
    /// The program that a container runs when its pod names none.
    pub(crate) entrypoint: Vec<String>,
}

/// Writes the image of `rootfs` under the full reference `name` (see [`full_name`]) to the tar file `output`.
pub(crate) fn write(name: &str, rootfs: &Path, config: &Config, output: &Path) -> Result<()> {
    let layer = layer(rootfs).with_context(|| format!("pack {}", rootfs.display()))?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": config.entrypoint, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
    });
    let manifest = serde_json::to_vec(&manifest)?;
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

    let mut tar =
        tar::Builder::new(File::create(output).with_context(|| format!("create {}", output.display()))?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for blob in [&layer, &config, &manifest] {
        append(&mut tar, &format!("blobs/sha256/{}", hex(blob)), blob)?;
    }
    append(&mut tar, "index.json", &index)?;
    tar.into_inner()?.flush().context("flush the image")
}

/// The full reference of a short image name, as container clients complete it.
pub(crate) fn full_name(name: &str) -> String {
    let tagged = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.contains(':') || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
    };
    match name.split_once('/') {
        None => format!("docker.io/library/{}", tagged(name)),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tagged(name),
        Some(_) => format!("docker.io/{}", tagged(name)),
    }
}

fn layer(rootfs: &Path) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    tar.append_dir_all(".", rootfs)?;
    Ok(tar.into_inner()?)
}

fn append(tar: &mut tar::Builder<File>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("append {path}"))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The machine's architecture in OCI's (Go's) words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_container_clients_do() {
        for (short, full) in [
            ("echo", "docker.io/library/echo:latest"),
            ("echo:1", "docker.io/library/echo:1"),
            ("team/echo", "docker.io/team/echo:latest"),
            ("registry.example:5000/echo", "registry.example:5000/echo:latest"),
            ("localhost/echo:2", "localhost/echo:2"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }

    #[test]
    fn the_same_files_give_the_same_image() {
        let directory = std::env::temp_dir().join(format!("beeline-image-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("root/bin")).expect("a directory");
        std::fs::write(directory.join("root/bin/x"), "x").expect("a file");
        let image = |file: &str| {
            let output = directory.join(file);
            write("docker.io/library/x:latest", &directory.join("root"), &Config::default(), &output)
                .expect("an image");
            std::fs::read(output).expect("its bytes")
        };
        assert!(image("a.tar") == image("b.tar"));
        std::fs::remove_dir_all(directory).expect("clean up");
    }
}
