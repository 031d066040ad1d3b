//! Ids and labels of containers: the durable index from which a restarted agent knows what runs. Pure.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest, Sha256};

use crate::pods::state::{RunAs, name, namespace, spec_hash, uid};

/// metadata.uid of the pod.
pub const POD_UID: &str = "beeline.io/pod-uid";
const POD_NAMESPACE: &str = "beeline.io/pod-namespace";
const POD_NAME: &str = "beeline.io/pod-name";
const CONTAINER: &str = "beeline.io/container";
const ATTEMPT: &str = "beeline.io/attempt";
const SPEC_HASH: &str = "beeline.io/spec-hash";
const IMAGE: &str = "beeline.io/image";
const IMAGE_ID: &str = "beeline.io/image-id";
const RUN_AS: &str = "beeline.io/run-as";
const LOG_PATH: &str = "beeline.io/log-path";
const CGROUP: &str = "beeline.io/cgroup";
const TERMINAL: &str = "beeline.io/terminal";
const STDIN: &str = "beeline.io/stdin";

/// Longest id that containerd accepts.
const MAX_ID: usize = 76;

/// What the labels of a container say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// metadata.uid of the pod.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Container name.
    pub container: String,
    /// 0 for the first run.
    pub attempt: u32,
    /// Hash of the container's spec.
    pub spec_hash: String,
    /// Resolved image name.
    pub image: String,
    /// `name@digest`.
    pub image_id: String,
    /// Who runs it.
    pub run_as: RunAs,
    /// Its log file.
    pub log_path: String,
    /// Its cgroup below each hierarchy.
    pub cgroup: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input is kept open.
    pub stdin: bool,
}

impl Identity {
    /// The identity of one run of `container`, without what is only known later (image, user, paths).
    pub fn new(pod: &Pod, container: &Container, attempt: u32) -> Self {
        Self {
            pod_uid: uid(pod).into(),
            pod_namespace: namespace(pod).into(),
            pod_name: name(pod).into(),
            container: container.name.clone(),
            attempt,
            spec_hash: spec_hash(container),
            image: String::new(),
            image_id: String::new(),
            run_as: RunAs::default(),
            log_path: String::new(),
            cgroup: String::new(),
            terminal: container.tty == Some(true),
            stdin: container.stdin == Some(true),
        }
    }

    /// The runtime id: the same for the same pod, container and attempt, so that a repeated start finds the first.
    pub fn id(&self) -> String {
        container_id(&self.pod_uid, &self.container, self.attempt)
    }

    /// As containerd labels.
    pub fn to_labels(&self) -> HashMap<String, String> {
        let run_as = serde_json::to_string(&self.run_as).unwrap_or_default();
        [
            (POD_UID, self.pod_uid.clone()),
            (POD_NAMESPACE, self.pod_namespace.clone()),
            (POD_NAME, self.pod_name.clone()),
            (CONTAINER, self.container.clone()),
            (ATTEMPT, self.attempt.to_string()),
            (SPEC_HASH, self.spec_hash.clone()),
            (IMAGE, self.image.clone()),
            (IMAGE_ID, self.image_id.clone()),
            (RUN_AS, run_as),
            (LOG_PATH, self.log_path.clone()),
            (CGROUP, self.cgroup.clone()),
            (TERMINAL, self.terminal.to_string()),
            (STDIN, self.stdin.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// From containerd labels; `None` when the container is not one of ours.
    pub fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        let text = |key: &str| labels.get(key).cloned();
        Some(Self {
            pod_uid: text(POD_UID)?,
            pod_namespace: text(POD_NAMESPACE)?,
            pod_name: text(POD_NAME)?,
            container: text(CONTAINER)?,
            attempt: text(ATTEMPT)?.parse().ok()?,
            spec_hash: text(SPEC_HASH)?,
            image: text(IMAGE)?,
            image_id: text(IMAGE_ID)?,
            run_as: serde_json::from_str(&text(RUN_AS)?).ok()?,
            log_path: text(LOG_PATH)?,
            cgroup: text(CGROUP)?,
            terminal: text(TERMINAL)?.parse().ok()?,
            stdin: text(STDIN)?.parse().ok()?,
        })
    }
}

/// `<first 8 of uid>-<container>-<attempt>`, or a hash where containerd's grammar does not allow that.
pub fn container_id(pod_uid: &str, container: &str, attempt: u32) -> String {
    let readable = format!("{}-{container}-{attempt}", pod_uid.get(..8).unwrap_or(pod_uid));
    // containerd: alphanumeric runs joined by single separators.
    let plain =
        readable.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if plain && readable.len() <= MAX_ID {
        return readable;
    }
    let digest = Sha256::digest(format!("{pod_uid}/{container}/{attempt}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_round_trip_and_foreign_ones_are_refused() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "0123456789"},
            "spec": {"containers": [{"name": "c", "image": "echo", "tty": true}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let identity = Identity { log_path: "/l".into(), ..Identity::new(&pod, container, 3) };
        assert_eq!(Identity::from_labels(&identity.to_labels()), Some(identity.clone()));
        assert_eq!(identity.id(), "01234567-c-3");
        assert_eq!(Identity::from_labels(&HashMap::new()), None);
    }

    #[test]
    fn names_that_containerd_refuses_are_hashed() {
        for name in ["a--b", &"x".repeat(63)] {
            let id = container_id("0123456789abcdef", name, 1000);
            assert!(id.len() <= MAX_ID && !id.contains("--"), "{id}");
        }
    }
}
