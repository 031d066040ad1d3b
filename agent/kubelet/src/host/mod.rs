//! The effects of this machine: what `pods::effects::PodEffects` asks for, done with containerd, the pod network,
//! cgroups, volumes and the API. It decides nothing about a pod's course.

mod hooks;
mod sandbox;
mod start;
mod status;
mod stop;

pub(crate) use sandbox::net_pod;
pub(crate) use start::sandbox_is_up;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};

use crate::cgroup::qos;
use crate::cgroup::tree::CgroupTree;
use crate::config::KubeletConfig;
use crate::containerd::Containerd;
use crate::environment::NodeFacts;
use crate::objects::Objects;
use crate::oci::machine::Machine;
use crate::podnet::PodNetworking;
use crate::pods::effects::{PodEffects, ProbeOrder, Severity, StartError, StartOrder, StopOrder, Written};
use crate::pods::record::{PodFiles, PodRecord};
use crate::pods::state::{
    Exit, FailureKind, Instance, Sandbox, host_network, init_containers, name, namespace, spec, uid,
};
use crate::probes::Outcome;
use crate::volumes;

/// What every effect of a node works with.
pub struct Host {
    /// Flags.
    pub config: KubeletConfig,
    /// The API.
    pub client: kube::Client,
    /// The runtime.
    pub containerd: Containerd,
    /// Pod interfaces.
    pub network: Arc<dyn PodNetworking>,
    /// ConfigMaps, Secrets, tokens, services.
    pub objects: Objects,
    /// Control groups.
    pub cgroups: CgroupTree,
    /// What the agent may hand out.
    pub machine: Machine,
    /// Events.
    pub recorder: runtime::Recorder,
    /// Host name of the node.
    pub hostname: String,
    /// Allocatable resources of the node, for the downward API.
    pub allocatable:
        std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    /// Owner (pod uid) of each container id: where its exit goes.
    pub owners: Mutex<HashMap<String, String>>,
    /// Starts that may be under way at once.
    pub start_slots: tokio::sync::Semaphore,
}

impl Host {
    /// Files of a pod.
    pub fn files(&self, uid: &str) -> PodFiles {
        PodFiles::new(self.config.pod_dir(uid))
    }

    /// Pin of the node's own network namespace.
    pub fn node_network_pin(&self) -> PathBuf {
        self.config.run_dir.join("ns").join("node-net")
    }

    fn shm_dir(&self, uid: &str) -> PathBuf {
        self.config.run_dir.join("shm").join(uid)
    }

    fn facts(&self, sandbox: Option<&Sandbox>) -> NodeFacts {
        NodeFacts {
            host_ips: self.config.node_ips.clone(),
            pod_ips: sandbox.map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
            allocatable: self.allocatable.clone(),
        }
    }

    /// Where probes and hooks reach a pod.
    fn address(&self, pod: &Pod, sandbox: &Sandbox) -> Option<IpAddr> {
        let own = if host_network(pod) { self.config.node_ips.first() } else { sandbox.ips.first() };
        own.copied()
    }

    fn cgroup_of(&self, pod: &Pod) -> String {
        self.cgroups.pod_path(qos::class(pod), uid(pod))
    }
}

/// Runs file system work away from the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl PodEffects for Host {
    fn prepare_sandbox(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<Sandbox, String>> {
        Box::pin(async move { self.make_sandbox(&pod).await })
    }

    fn prepare_volumes(
        self: Arc<Self>,
        pod: Arc<Pod>,
        sandbox: Option<Sandbox>,
    ) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let pod_dir = self.config.pod_dir(uid(&pod));
            let facts = self.facts(sandbox.as_ref());
            let context = volumes::setup::Context {
                pod_dir: &pod_dir,
                objects: &self.objects,
                node: &facts,
                now: Timestamp::now(),
            };
            volumes::setup::set_up(&pod, &context).await.map_err(|error| error.to_string())
        })
    }

    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Instance, StartError>> {
        Box::pin(async move {
            let outcome = self.start_container(&order).await;
            if let Err(StartError::Failed { kind, message }) = &outcome {
                let message = match kind {
                    FailureKind::CreateContainerConfigError | FailureKind::CreateContainerError => {
                        message.as_str()
                    }
                    FailureKind::ErrImagePull => "ErrImagePull",
                    FailureKind::ErrImageNeverPull => "ErrImageNeverPull",
                    FailureKind::InvalidImageName => "InvalidImageName",
                };
                let message = format!("Error: {message}");
                self.event(&order.pod, Some(&order.container), Severity::Warning, "Failed", &message);
            }
            outcome
        })
    }

    fn post_start(self: Arc<Self>, order: StopOrder) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move { self.run_post_start(&order).await })
    }

    fn stop(self: Arc<Self>, order: StopOrder) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.stop_container(order).await })
    }

    fn reap(
        self: Arc<Self>,
        pod: Arc<Pod>,
        container: String,
        instance: Instance,
        code: i32,
        at: Timestamp,
    ) -> BoxFuture<'static, Exit> {
        Box::pin(async move { self.reap_container(&pod, &container, &instance, code, at).await })
    }

    fn probe(self: Arc<Self>, order: ProbeOrder) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { self.make_probe(&order).await })
    }

    fn clean_up(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move { self.clean_up_pod(&pod).await })
    }

    fn write_status(
        self: Arc<Self>,
        pod: Arc<Pod>,
        previous: PodStatus,
        status: PodStatus,
    ) -> BoxFuture<'static, Written> {
        Box::pin(async move { self.patch_status(&pod, &previous, &status).await })
    }

    fn delete_object(self: Arc<Self>, pod: Arc<Pod>) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move { self.delete_pod(&pod).await })
    }

    fn save(&self, record: &PodRecord) -> Result<(), String> {
        self.files(uid(&record.pod)).save(record).map_err(|error| error.to_string())
    }

    fn forget(&self, pod: &Pod) {
        let id = uid(pod);
        self.objects.forget(id);
        self.owners.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|_, owner| owner != id);
        let logs = self.config.pod_log_dir(namespace(pod), name(pod), id);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %logs.display(), %error, "logs not removed");
        }
        if let Err(error) = self.files(id).remove() {
            tracing::warn!(pod = name(pod), %error, "pod directory not removed");
        }
        tracing::info!(pod = name(pod), namespace = namespace(pod), "pod is gone");
    }

    fn event(&self, pod: &Pod, container: Option<&str>, severity: Severity, reason: &str, message: &str) {
        let list = container.map(|container| {
            let init = init_containers(pod).iter().any(|init| init.name == container);
            format!("spec.{}{{{container}}}", if init { "initContainers" } else { "containers" })
        });
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: list,
        };
        let kind = match severity {
            Severity::Normal => runtime::EventKind::Normal,
            Severity::Warning => runtime::EventKind::Warning,
        };
        self.recorder.event(&reference, kind, reason, message);
    }
}

/// Hooks and probes may not outlive a pod for ever.
const HOOK_LIMIT: Duration = Duration::from_secs(3600);

/// Whether the pod wants something that this node cannot do yet.
fn unsupported(pod: &Pod) -> Option<&'static str> {
    let spec = spec(pod);
    if spec.share_process_namespace == Some(true) {
        return Some("shareProcessNamespace is not supported by this node");
    }
    if spec.host_users == Some(false) {
        return Some("hostUsers: false (user namespaces) is not supported by this node");
    }
    None
}
