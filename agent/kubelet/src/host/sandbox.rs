//! A pod's surroundings: cgroup, namespaces, network, shared files, and their removal.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Host, blocking, unsupported};
use crate::cgroup::qos;
use crate::podnet::{HostPort, NetPod};
use crate::pods::state::{Sandbox, host_network, name, namespace, spec, uid};
use crate::sandbox::files;
use crate::sandbox::namespaces::{Pins, mount_shm, unmount_below};
use crate::volumes;

impl Host {
    pub(super) async fn make_sandbox(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<Sandbox, String> {
        if let Some(reason) = unsupported(pod) {
            return Err(reason.into());
        }
        let (host, own) = (self.clone(), pod.clone());
        blocking(move || host.make_namespaces(&own)).await?;
        let ips = if host_network(pod) {
            self.config.node_ips.clone()
        } else {
            let net = Pins::new(self.config.pins_dir(uid(pod))).net();
            let identity = net_pod(pod);
            self.network
                .setup(&identity, &net)
                .await
                .map_err(|error| format!("failed to setup network for sandbox: {error}"))?
        };
        let sandbox = Sandbox { ips };
        self.write_files(pod, &sandbox).map_err(|error| format!("files of the pod: {error}"))?;
        Ok(sandbox)
    }

    fn make_namespaces(&self, pod: &Pod) -> Result<(), String> {
        let path = self.cgroup_of(pod);
        self.cgroups
            .create(&path, qos::pod_limits(pod))
            .map_err(|error| format!("cgroup {path}: {error}"))?;
        let pins = Pins::new(self.config.pins_dir(uid(pod)));
        let own_network = !host_network(pod);
        if !pins.present(own_network) {
            let hostname = files::hostname(pod, &self.hostname, &self.config.cluster_domain);
            pins.create(&hostname, own_network, &sysctls(pod))
                .map_err(|error| format!("namespaces: {error}"))?;
        }
        if spec(pod).host_ipc != Some(true) {
            mount_shm(&self.shm_dir(uid(pod))).map_err(|error| format!("/dev/shm: {error}"))?;
        }
        Ok(())
    }

    /// hosts, resolv.conf and hostname; rewritten whenever a sandbox is (re)made.
    pub(super) fn write_files(&self, pod: &Pod, sandbox: &Sandbox) -> std::io::Result<()> {
        let directory = self.config.pod_dir(uid(pod));
        std::fs::create_dir_all(&directory)?;
        let domain = &self.config.cluster_domain;
        let hosts = if host_network(pod) {
            files::hosts_of_node(pod, &std::fs::read_to_string("/etc/hosts").unwrap_or_default())
        } else {
            files::hosts(pod, &sandbox.ips, domain)
        };
        let node =
            files::Resolver::parse(&std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default());
        let resolver = files::resolver(pod, &node, &self.config.cluster_dns, domain);
        std::fs::write(directory.join("etc-hosts"), hosts)?;
        std::fs::write(directory.join("resolv.conf"), resolver.render())?;
        std::fs::write(directory.join("hostname"), files::hostname(pod, &self.hostname, domain) + "\n")
    }

    pub(super) async fn clean_up_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), String> {
        let id = uid(pod).to_owned();
        for container in crate::pods::state::all_containers(pod) {
            for record in self.files(&id).load_instances(&container.name) {
                self.containerd.remove(&record.id).await.map_err(|error| error.to_string())?;
            }
        }
        if !host_network(pod) {
            self.network.teardown(&id).await.map_err(|error| format!("pod network: {error}"))?;
        }
        let (host, pod) = (self.clone(), pod.clone());
        blocking(move || host.remove_remains(&pod)).await
    }

    fn remove_remains(&self, pod: &Pod) -> Result<(), String> {
        let id = uid(pod);
        Pins::new(self.config.pins_dir(id)).remove().map_err(|error| format!("namespaces: {error}"))?;
        let shm = self.shm_dir(id);
        unmount_below(&shm).map_err(|error| format!("/dev/shm: {error}"))?;
        if let Err(error) = std::fs::remove_dir(&shm)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("/dev/shm: {error}"));
        }
        volumes::setup::tear_down(&self.config.pod_dir(id)).map_err(|error| format!("volumes: {error}"))?;
        let path = self.cgroup_of(pod);
        self.cgroups.remove(&path).map_err(|error| format!("cgroup {path}: {error}"))
    }
}

/// The pod as the network knows it.
pub(crate) fn net_pod(pod: &Pod) -> NetPod {
    NetPod {
        uid: uid(pod).into(),
        namespace: namespace(pod).into(),
        name: name(pod).into(),
        host_ports: HostPort::of(pod),
    }
}

/// Sysctls of the pod. The API server admits only safe ones; those of namespaces that the pod shares with the node
/// are refused there.
fn sysctls(pod: &Pod) -> Vec<(String, String)> {
    let context = spec(pod).security_context.as_ref();
    let list = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    list.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}
