//! What is known about one pod: the desired object, and what has been observed of its sandbox, volumes and
//! containers. Only the pod's actor changes it; `decide` and `status` read it. No I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backoff::{Backoff, later};

/// Everything that a decision about a pod depends on.
#[derive(Debug, Clone)]
pub struct PodState {
    /// The newest object from the API (or from disk, before the first sync).
    pub pod: Arc<Pod>,
    /// When this node first saw the pod: status.startTime.
    pub start_time: Timestamp,
    /// Set when the node refused the pod at first sight.
    pub rejection: Option<Verdict>,
    /// Set once the pod must end; never unset.
    pub termination: Option<Termination>,
    /// Namespaces and network.
    pub sandbox: Step<Sandbox>,
    /// Volumes on disk.
    pub volumes: Step<()>,
    /// Containers by name, init containers included.
    pub containers: BTreeMap<String, Slot>,
    /// Unmounting, network and cgroup removal after the last container.
    pub cleanup: Step<()>,
    /// The final DELETE.
    pub deletion: Step<()>,
    /// Longest pause between two restarts.
    pub crash_loop_max: Duration,
    /// The API has the pod as Succeeded or Failed and this node knows nothing of its containers: nothing is started
    /// and its status is left as it is.
    pub ended: bool,
}

/// Reason and message of a phase `Failed` that no container caused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// status.reason, e.g. `OutOfcpu`.
    pub reason: String,
    /// status.message.
    pub message: String,
}

/// The order to end a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// When this node learned of it.
    pub since: Timestamp,
    /// Time between then and SIGKILL.
    pub grace: Duration,
    /// What for.
    pub cause: Cause,
}

impl Termination {
    /// When the containers are killed.
    pub fn deadline(&self) -> Timestamp {
        later(self.since, self.grace)
    }
}

/// Why a pod ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// metadata.deletionTimestamp is set: the object goes away when the node is done.
    Deleted,
    /// The object is gone already (forced deletion, or deleted while the agent was down).
    Removed,
    /// The node ends it and the object stays, as Failed.
    Failed(Verdict),
}

/// A piece of work that must be done once and may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Step<T> {
    /// Not begun.
    #[default]
    Absent,
    /// An effect is at it.
    Running {
        /// How often it failed in a row before.
        failures: u32,
    },
    /// Done.
    Done(T),
    /// Failed; to be tried again at `retry_at`.
    Failed {
        /// The error, for people.
        message: String,
        /// Earliest next try.
        retry_at: Timestamp,
        /// How often in a row.
        failures: u32,
    },
}

impl<T> Step<T> {
    /// The result, when there is one.
    pub fn done(&self) -> Option<&T> {
        if let Self::Done(value) = self { Some(value) } else { None }
    }

    /// Whether an effect is at it.
    pub fn running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// An effect is at it from now on.
    pub fn begin(&mut self) {
        let failures = if let Self::Failed { failures, .. } = self { *failures } else { 0 };
        *self = Self::Running { failures };
    }

    /// Takes the outcome of an effect; failures wait 1, 2, 4, .. 30 seconds.
    pub fn finish(&mut self, outcome: Result<T, String>, now: Timestamp) {
        let failures = if let Self::Running { failures } = self { *failures } else { 0 };
        *self = match outcome {
            Ok(value) => Self::Done(value),
            Err(message) => {
                let wait = Duration::from_secs(30.min(1 << failures.min(5)));
                Self::Failed { message, retry_at: later(now, wait), failures: failures + 1 }
            }
        };
    }
}

/// A pod's pinned namespaces and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// Addresses, preferred first; the node's for hostNetwork pods.
    pub ips: Vec<IpAddr>,
}

/// One container of the spec and its instances so far.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// The newest instance.
    pub current: Option<Instance>,
    /// The one before, for lastState.
    pub previous: Option<Instance>,
    /// What is being done to it.
    pub operation: Operation,
    /// Why the last try to start it came to nothing.
    pub failure: Option<StartFailure>,
    /// Pauses between restarts.
    pub restarts: Backoff,
    /// Pauses between image pulls.
    pub pulls: Backoff,
    /// Attempt number that the next instance gets; the restartCount shown is one less, at least 0.
    pub next_attempt: u32,
    /// Result of the readiness probe; without one, whether it runs.
    pub ready: bool,
    /// Startup probe passed and postStart returned.
    pub started: bool,
    /// Why the running instance is to be replaced.
    pub doomed: Option<Doom>,
    /// It belongs to `initContainers`.
    pub init: bool,
}

/// Why a running container must be stopped although its pod goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doom {
    /// A liveness or startup probe or postStart failed: restarted if the policy says so. Grace in seconds if the
    /// probe has its own; message for the event.
    Unhealthy {
        /// terminationGracePeriodSeconds of the probe.
        grace: Option<Duration>,
        /// For the Killing event.
        message: String,
    },
    /// The spec changed: restarted whatever the policy.
    Changed,
}

/// Work in progress on one container; at most one at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Operation {
    /// None.
    #[default]
    Idle,
    /// Image, record, task, start.
    Starting,
    /// postStart runs in the started container.
    PostStart,
    /// preStop, signal, wait; SIGKILL at the deadline.
    Stopping {
        /// When the remaining processes are killed.
        deadline: Timestamp,
    },
}

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Runtime id.
    pub id: String,
    /// 0 for the first run.
    pub attempt: u32,
    /// Resolved image name.
    pub image: String,
    /// `name@digest`.
    pub image_id: String,
    /// Hash of the spec it was made from.
    pub spec_hash: String,
    /// Uid, gid and groups of the first process.
    pub user: Option<RunAs>,
    /// What it does.
    pub state: InstanceState,
}

/// The identity of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Life of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Its first process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal for a signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// Termination message.
    pub message: Option<String>,
    /// Start of the run, if it started.
    pub started_at: Option<Timestamp>,
    /// End of the run.
    pub finished_at: Timestamp,
}

impl Instance {
    /// The end of the run, if it ended.
    pub fn exit(&self) -> Option<&Exit> {
        if let InstanceState::Exited(exit) = &self.state { Some(exit) } else { None }
    }
}

/// A start that made no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// Which step.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Earliest next try.
    pub retry_at: Timestamp,
}

/// The step at which a start failed; named as the waiting reason it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The image reference is no reference.
    InvalidImageName,
    /// Not present, and the policy is Never.
    ErrImageNeverPull,
    /// Could not be fetched.
    ErrImagePull,
    /// Environment, user or mounts cannot be worked out from the spec.
    CreateContainerConfigError,
    /// containerd refused it.
    CreateContainerError,
}

/// How long a failed pull shows as `ErrImagePull` before it shows as `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(3);

impl StartFailure {
    /// The waiting reason at `now`.
    pub fn reason(&self, now: Timestamp) -> &'static str {
        match self.kind {
            FailureKind::InvalidImageName => "InvalidImageName",
            FailureKind::ErrImageNeverPull => "ErrImageNeverPull",
            FailureKind::ErrImagePull if now >= later(self.at, PULL_ERROR_SHOWN) => "ImagePullBackOff",
            FailureKind::ErrImagePull => "ErrImagePull",
            FailureKind::CreateContainerConfigError => "CreateContainerConfigError",
            FailureKind::CreateContainerError => "CreateContainerError",
        }
    }

    /// The waiting message at `now`, for a container of that image.
    pub fn text(&self, now: Timestamp, image: &str) -> String {
        match self.reason(now) {
            "ImagePullBackOff" => {
                format!("Back-off pulling image \"{image}\": ErrImagePull: {}", self.message)
            }
            _ => self.message.clone(),
        }
    }
}

impl Slot {
    /// Whether processes of this container exist or may be about to.
    pub fn live(&self) -> bool {
        self.operation != Operation::Idle || self.running().is_some()
    }

    /// The running instance.
    pub fn running(&self) -> Option<&Instance> {
        self.current.as_ref().filter(|instance| matches!(instance.state, InstanceState::Running { .. }))
    }

    /// The newest end: of the current instance or of the one before.
    pub fn last_exit(&self) -> Option<&Exit> {
        let previous = self.previous.as_ref().and_then(Instance::exit);
        self.current.as_ref().and_then(Instance::exit).or(previous)
    }
}

/// The spec; an empty one if the object has none (which the API server never stores).
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// metadata.uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// metadata.namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// metadata.name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Init containers of the spec, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Init containers first, then the others.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(&spec(pod).containers)
}

/// The container of that name, init containers included.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|container| container.name == name)
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Changes when the running instance must be replaced: name and image, the fields that upstream hashes.
pub fn spec_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{image}", container.name));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the pod uses the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}
