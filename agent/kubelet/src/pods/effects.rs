//! What a pod's actor can have done: the seam between decisions and the machine. The real implementation is
//! `crate::node_effects`; tests have one in memory.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::record::PodRecord;
use super::state::{Exit, FailureKind, Instance, Sandbox};
use crate::probes::{Outcome, ProbeKind};

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An instance to start.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Container name.
    pub container: String,
    /// Number of the run.
    pub attempt: u32,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
}

/// How a start came out when no instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// Nothing was started; to be tried again with the same attempt number.
    Failed {
        /// Which step.
        kind: FailureKind,
        /// For people.
        message: String,
    },
    /// The process could not be started: counts as a run that ended with code 128.
    Run(Box<Instance>),
}

/// An instance to stop.
#[derive(Debug, Clone)]
pub struct StopOrder {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Container name.
    pub container: String,
    /// Runtime id.
    pub id: String,
    /// When to kill; may come nearer while the stop is under way.
    pub deadline: watch::Receiver<Timestamp>,
    /// The pod's sandbox, for hooks over the network.
    pub sandbox: Sandbox,
}

/// A probe to make.
#[derive(Debug, Clone)]
pub struct ProbeOrder {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Container name.
    pub container: String,
    /// Runtime id.
    pub id: String,
    /// Which.
    pub kind: ProbeKind,
    /// Longest time it may take.
    pub timeout: Duration,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
}

/// Answer to a status write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Stored,
    /// The object is gone or is another pod of the same name: no more writes.
    Gone,
    /// The API could not take it now.
    Later(String),
}

/// Everything that changes the world. All of it may be repeated.
pub trait PodEffects: Send + Sync + 'static {
    /// Cgroups, namespaces, network.
    fn prepare_sandbox(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<Sandbox, String>>;
    /// Volumes; also called from time to time to refresh them.
    fn prepare_volumes(
        self: Arc<Self>,
        pod: Arc<Pod>,
        sandbox: Option<Sandbox>,
    ) -> BoxFuture<'static, Result<(), String>>;
    /// One container, up to its running process.
    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Instance, StartError>>;
    /// The postStart hook.
    fn post_start(self: Arc<Self>, order: StopOrder) -> BoxFuture<'static, Result<(), String>>;
    /// preStop, signal, SIGKILL at the deadline. Ends when the instance has ended.
    fn stop(self: Arc<Self>, order: StopOrder) -> BoxFuture<'static, ()>;
    /// After the end of an instance: its reason and message, its task and the rest of its output taken away.
    fn reap(
        self: Arc<Self>,
        pod: Arc<Pod>,
        container: String,
        instance: Instance,
        code: i32,
        at: Timestamp,
    ) -> BoxFuture<'static, Exit>;
    /// One probe.
    fn probe(self: Arc<Self>, order: ProbeOrder) -> BoxFuture<'static, Outcome>;
    /// What is left of the pod but its record, its logs and its object.
    fn clean_up(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<(), String>>;
    /// Writes a status; `previous` is what was written last.
    fn write_status(
        self: Arc<Self>,
        pod: Arc<Pod>,
        previous: PodStatus,
        status: PodStatus,
    ) -> BoxFuture<'static, Written>;
    /// Deletes the object with grace period 0.
    fn delete_object(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<(), String>>;
    /// Saves the pod's record.
    fn save(&self, record: &PodRecord) -> Result<(), String>;
    /// Removes the record and the logs.
    fn forget(&self, pod: &Pod);
    /// An event about the pod, or one of its containers.
    fn event(&self, pod: &Pod, container: Option<&str>, severity: Severity, reason: &str, message: &str);
}
