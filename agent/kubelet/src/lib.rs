//! A pod's life on containerd: source, actor, decision, status, probes, volumes, logs, exec, node registration.
//!
//! # Design
//! One actor a pod (`pods`) asks a pure `decide` what to do and has it done by `host`, which joins containerd
//! (`containerd`), cgroups, namespaces (`sandbox`), volumes and the pod network (`podnet`). A restarted agent takes
//! everything over from containerd's labels and its own disk; ending the agent touches no container.
//!
//! # Limits
//! Not here yet: pulling images, static pods, CSI and claims, ephemeral containers, port forwarding, user
//! namespaces, shared process namespaces, grpc probes, in-place resize, eviction, image garbage collection.

pub mod cgroup;
pub mod config;
pub mod containerd;
pub mod environment;
pub mod host;
pub mod logs;
pub mod node;
pub mod objects;
pub mod oci;
pub mod podnet;
pub mod pods;
pub mod probes;
pub mod quantity;
pub mod sandbox;
pub mod server;
pub mod volumes;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{Store, reflector, store};
use kube::runtime::watcher::{self, watcher};

use cgroup::tree::CgroupTree;
use containerd::{Containerd, RuntimeError};
use host::Host;
use logs::writer::Rotation;
use node::object::NodeFacts;
use oci::machine::Machine;
use pods::admit::Allocatable;
use pods::workers::Workers;

pub use config::KubeletConfig;
pub use podnet::{HostPort, NetPod, PodNetworking};
pub use tokio_util::sync::CancellationToken;

/// Why the kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory, file or mount of the node could not be prepared.
    #[error("{what}: {source}")]
    Io {
        /// The path or step.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// containerd could not be used.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The pod network could not take over what is there.
    #[error("pod network: {0}")]
    Network(podnet::BoxError),
    /// The HTTPS server could not start.
    #[error(transparent)]
    Server(#[from] server::ServerError),
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> KubeletError {
    let what = what.into();
    move |source| KubeletError::Io { what, source }
}

/// Runs the kubelet role until `shutdown` is cancelled. Containers, namespaces and mounts stay as they are.
pub async fn run(
    mut config: KubeletConfig,
    client: kube::Client,
    network: Arc<dyn PodNetworking>,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    // The shims that read these paths have a working directory of their own.
    for directory in [&mut config.root_dir, &mut config.run_dir] {
        *directory = std::path::absolute(&*directory).map_err(io(directory.display().to_string()))?;
    }
    let (containerd, version) = connect(&config).await?;
    let (services, follow_services) = services(&client);
    let machine = Machine::detect();
    let facts = facts(&config, &machine, &version);
    let allocatable = Allocatable {
        cpu_milli: u64::from(machine.cpus) * 1000,
        memory_bytes: machine.memory_bytes,
        pods: config.max_pods,
    };
    let host = Arc::new(Host {
        containerd,
        network,
        objects: objects::Objects::new(client.clone(), services),
        cgroups: CgroupTree::detect("/sys/fs/cgroup", &config.cgroup_root),
        recorder: runtime::Recorder::new(client.clone(), "kubelet", Some(config.node_name.clone())),
        hostname: config.node_name.clone(),
        allocatable: node::object::capacity(&facts),
        owners: Mutex::new(HashMap::new()),
        start_slots: tokio::sync::Semaphore::new(2 * machine.cpus.max(1) as usize),
        machine,
        config,
        client,
    });
    prepare(&host)?;
    let adoption = pods::adopt::adopt(&host).await?;
    let live = adoption.pods.iter().filter(|adopted| adopted.state.sandbox.done().is_some());
    let live = live.filter(|adopted| !pods::state::host_network(&adopted.state.pod));
    let live: Vec<NetPod> = live.map(|adopted| host::net_pod(&adopted.state.pod)).collect();
    tracing::info!(pods = adoption.pods.len(), strays = adoption.strays.len(), "taken over");
    host.network.recover(live).await.map_err(KubeletError::Network)?;
    let workers = Workers::new(host.clone(), allocatable);
    let server = server::bind(host.clone(), workers.clone()).await?;
    let strays = workers.begin(adoption).await;
    let work = async {
        tokio::join!(
            node::run(host.clone(), facts),
            workers.clone().follow_api(strays),
            workers.clone().follow_runtime(),
            follow_services,
            server.serve(shutdown.clone()),
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

/// Connects to containerd, waiting for it: at boot it may start later than the agent.
async fn connect(config: &KubeletConfig) -> Result<(Containerd, String), KubeletError> {
    let rotation =
        Rotation { max_bytes: config.container_log_max_bytes, max_files: config.container_log_max_files };
    let mut patience = 30;
    loop {
        let attempt = Containerd::connect(
            &config.containerd_socket,
            &config.containerd_namespace,
            &config.run_dir,
            rotation,
        );
        match attempt.await {
            Ok(containerd) => {
                let version = containerd.version().await?;
                return Ok((containerd, version));
            }
            Err(error) if patience == 0 => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "waiting for containerd");
                patience -= 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

/// A store of what pods' environments say of services, and the work of keeping it.
fn services(client: &kube::Client) -> (Store<Service>, impl Future<Output = ()> + Send + 'static) {
    let (reader, writer) = store();
    let stream = watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .backoff(runtime::Pauses::default())
        .modify(|service: &mut Service| {
            let metadata = std::mem::take(&mut service.metadata);
            service.metadata.name = metadata.name;
            service.metadata.namespace = metadata.namespace;
            service.metadata.resource_version = metadata.resource_version;
            service.status = None;
            service.spec = service.spec.take().map(|spec| ServiceSpec {
                cluster_ip: spec.cluster_ip,
                ports: spec.ports,
                ..ServiceSpec::default()
            });
        });
    let work = reflector(writer, stream).for_each(|event| async move {
        if let Err(error) = event {
            tracing::debug!(%error, "services cannot be watched now");
        }
    });
    (reader, work)
}

fn facts(config: &KubeletConfig, machine: &Machine, containerd_version: &str) -> NodeFacts {
    NodeFacts {
        name: config.node_name.clone(),
        hostname: config.node_name.clone(),
        addresses: config.node_ips.clone(),
        port: config.port,
        info: node::system::info(containerd_version),
        cpus: machine.cpus,
        memory_bytes: machine.memory_bytes,
        storage_bytes: node::system::file_system_bytes(&config.root_dir),
        max_pods: config.max_pods,
    }
}

/// Directories, the pin of the node's network namespace, the cgroup of all pods.
fn prepare(host: &Host) -> Result<(), KubeletError> {
    for directory in [&host.config.root_dir, &host.config.run_dir] {
        make_directory(directory)?;
    }
    make_directory(&host.config.root_dir.join("pods"))?;
    let pin = host.node_network_pin();
    sandbox::namespaces::pin_own_network(&pin).map_err(io(pin.display().to_string()))?;
    host.cgroups.create_root(Some(host.machine.memory_bytes)).map_err(io("cgroup of all pods"))
}

fn make_directory(path: &Path) -> Result<(), KubeletError> {
    std::fs::create_dir_all(path).map_err(io(path.display().to_string()))
}
