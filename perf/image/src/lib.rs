//! Images without a builder or a registry: files become an OCI image layout in one tar file, which `ctr images import`, `kind load
//! image-archive`, `docker load` and `cargo xtask image load` take.
//!
//! One uncompressed layer (the layer's digest is then its diff id, and nothing is unpacked twice), owners root, times zero: the same files
//! give the same bytes. It builds no images from recipes.
//!
//! # See
//! OCI image format: image layout, image manifest, image configuration; `manifest.json` is docker's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Everything below a directory, as it is there.
    Root(&'a Path),
    /// Programs: where they are, and their paths in the image without the first slash. Of two with the same path the first counts.
    Programs(&'a [(PathBuf, PathBuf)]),
}

/// What the image's configuration says besides its layer.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The program that a container runs when its pod names none.
    pub entrypoint: Vec<String>,
    /// Directories in which programs are looked for, separated by colons; the usual ones if not given.
    pub path: Option<String>,
}

/// Writes the image under the full reference `name` (see [`full_name`]) to the tar file `output`.
///
/// # Errors
/// A file that cannot be read or written, by its name.
pub fn write(name: &str, source: Source<'_>, config: &Config, output: &Path) -> Result<()> {
    let layer = source.layer()?;
    let config = serde_json::to_vec(&config.json(&layer))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
    }))?;
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
    let docker = json!([{"Config": blob(&config), "RepoTags": [name], "Layers": [blob(&layer)]}]);

    let file = File::create(output).with_context(|| format!("create {}", output.display()))?;
    let mut tar = tar::Builder::new(file);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    for bytes in [&layer, &config, &manifest] {
        append(&mut tar, &blob(bytes), bytes, 0o644)?;
    }
    append(&mut tar, "index.json", &index, 0o644)?;
    append(&mut tar, "manifest.json", &serde_json::to_vec(&docker)?, 0o644)?;
    tar.into_inner()?.flush().context("flush the image")
}

/// The full reference of a short image name, as container clients complete it.
pub fn full_name(name: &str) -> String {
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

impl Source<'_> {
    /// The layer: an uncompressed tar file.
    fn layer(self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        match self {
            Self::Root(directory) => {
                tar.mode(tar::HeaderMode::Deterministic);
                tar.follow_symlinks(false);
                tar.append_dir_all(".", directory)
                    .with_context(|| format!("pack {}", directory.display()))?;
            }
            Self::Programs(programs) => {
                let mut seen = BTreeSet::new();
                for (from, to) in programs.iter().filter(|(_, to)| seen.insert(to)) {
                    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
                    append(&mut tar, &to.to_string_lossy(), &bytes, 0o755)?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }
}

impl Config {
    fn json(&self, layer: &[u8]) -> Value {
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = self.path.as_deref().unwrap_or(usual);
        json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": [format!("PATH={path}")]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        })
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("append {path}"))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// Where a blob is in the layout.
fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
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
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A directory of its own; gone when the value is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("oci-image-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("root/bin")).unwrap();
            fs::write(path.join("root/bin/x"), "x").unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut tar = tar::Archive::new(tar);
        let entries = tar.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn short_names_are_completed_as_container_clients_do() {
        for (short, full) in [
            ("echo", "docker.io/library/echo:latest"),
            ("echo:1", "docker.io/library/echo:1"),
            ("team/echo", "docker.io/team/echo:latest"),
            ("registry.example:5000/echo", "registry.example:5000/echo:latest"),
            ("registry.example:5000/perf:1", "registry.example:5000/perf:1"),
            ("registry.example/echo@sha256:0", "registry.example/echo@sha256:0"),
            ("localhost/echo:2", "localhost/echo:2"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }

    #[test]
    fn the_same_files_give_the_same_image() {
        let scratch = Scratch::new("same");
        let image = |file: &str| {
            let (root, output) = (scratch.0.join("root"), scratch.0.join(file));
            write("docker.io/library/x:latest", Source::Root(&root), &Config::default(), &output).unwrap();
            fs::read(output).unwrap()
        };
        assert!(image("a.tar") == image("b.tar"));
    }

    #[test]
    fn an_image_holds_its_blobs_and_both_indexes() {
        let scratch = Scratch::new("layout");
        let program = scratch.0.join("root/bin/x");
        let twice = [(program.clone(), "x".into()), (program, "x".into())];
        let source = Source::Programs(&twice);
        let layer = source.layer().unwrap();
        assert_eq!(names(&layer), ["x"]);
        let output = scratch.0.join("image.tar");
        write("docker.io/library/x:latest", source, &Config::default(), &output).unwrap();
        let names = names(&fs::read(output).unwrap());
        for name in ["oci-layout", "index.json", "manifest.json", &blob(&layer)] {
            assert!(names.iter().any(|seen| seen == name), "{name}: {names:?}");
        }
    }
}
