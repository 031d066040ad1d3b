//! The parts of an OCI image that a container is made from (OCI image specification, "config").

use std::collections::BTreeMap;

use serde::Deserialize;

/// `config` of an image: defaults for the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageProcess {
    /// `user[:group]`, by name or number; empty: root.
    pub user: String,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// First words of the command line.
    pub entrypoint: Option<Vec<String>>,
    /// The words after them.
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: String,
    /// Signal that asks for an orderly end, by name or number.
    pub stop_signal: String,
}

/// An image configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    /// Process defaults.
    #[serde(default)]
    pub config: ImageProcess,
    /// Layers.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// Layers of an image, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// A manifest or an index: the two documents an image name may lead to.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ManifestOrIndex {
    /// Manifest: the configuration.
    pub config: Option<Descriptor>,
    /// Manifest: layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Index: one manifest a platform.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// A reference to content.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Which bytes.
    pub digest: String,
    /// How many.
    #[serde(default)]
    pub size: i64,
    /// For which machine.
    pub platform: Option<Platform>,
    /// Free text.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// GOARCH.
    pub architecture: String,
    /// GOOS.
    pub os: String,
}

impl ManifestOrIndex {
    /// The manifest for `architecture` on Linux, in an index.
    pub fn choose(&self, architecture: &str) -> Option<&Descriptor> {
        let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
        let matching = self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(fits));
        matching.or_else(|| self.manifests.iter().find(|entry| entry.platform.is_none()))
    }
}

/// GOARCH of this machine.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Chain id of the topmost layer: the name of the snapshot that a container starts from (OCI image specification,
/// "Layer ChainID").
pub fn chain_id(diff_ids: &[String]) -> Option<String> {
    use sha2::{Digest, Sha256};
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, diff| {
        let digest = Sha256::digest(format!("{chain} {diff}"));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_id_of_one_layer_is_its_diff_id() {
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&["sha256:a".into()]).as_deref(), Some("sha256:a"));
        // printf 'sha256:a sha256:b' | sha256sum
        assert_eq!(
            chain_id(&["sha256:a".into(), "sha256:b".into()]).as_deref(),
            Some("sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8")
        );
    }
}
