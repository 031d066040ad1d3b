//! The kubelet's view of the pod network: give a pinned namespace an interface, take it away again.
//! It knows no netlink and no eBPF: crate `network` does the work, the agent binary joins the two.

use std::net::IpAddr;
use std::path::Path;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};

/// An error of the network below, as text for events and logs.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the network needs to know about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetPod {
    /// metadata.uid: the key of every later call.
    pub uid: String,
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub name: String,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// A container's port that has a hostPort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// hostIP; `None` if the port is open on every address.
    pub host_ip: Option<IpAddr>,
    /// hostPort.
    pub port: u16,
    /// Name of the protocol in the API.
    pub protocol: String,
    /// containerPort.
    pub container_port: u16,
}

impl HostPort {
    /// The host ports of a pod: of its containers, and of init containers that go on running. A hostIP that is no address is left out with
    /// its port (the API server refuses such pods).
    pub fn of(pod: &Pod) -> Vec<Self> {
        let Some(spec) = &pod.spec else { return Vec::new() };
        let sidecars =
            spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|it| it.ports.iter().flatten());
        ports.filter_map(Self::of_port).collect()
    }

    fn of_port(port: &ContainerPort) -> Option<Self> {
        let number = |value: i32| u16::try_from(value).ok().filter(|value| *value != 0);
        Some(Self {
            host_ip: match port.host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(text.parse().ok()?),
            },
            port: number(port.host_port?)?,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            container_port: number(port.container_port)?,
        })
    }
}

/// Pod interfaces of one node. Every call may be repeated: the second one finds the work done.
pub trait PodNetworking: Send + Sync + 'static {
    /// The node's pod ranges, from `spec.podCIDRs`; called before the first `setup` and when they change.
    fn set_pod_cidrs(&self, cidrs: Vec<String>) -> BoxFuture<'_, Result<(), BoxError>>;
    /// Creates the pod's interface inside `netns` (a pinned namespace) and gives its addresses, preferred first.
    fn setup<'a>(&'a self, pod: &'a NetPod, netns: &'a Path) -> BoxFuture<'a, Result<Vec<IpAddr>, BoxError>>;
    /// Removes the pod's interface and frees its addresses. An unknown uid is a success.
    fn teardown<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), BoxError>>;
    /// After a restart of the agent: the pods whose pinned namespaces still live; anything else is left over and goes.
    fn recover(&self, pods: Vec<NetPod>) -> BoxFuture<'_, Result<(), BoxError>>;
}

impl From<&NetPod> for network::PodIdentity {
    fn from(pod: &NetPod) -> Self {
        Self { uid: pod.uid.clone(), namespace: pod.namespace.clone(), name: pod.name.clone() }
    }
}

impl PodNetworking for network::PodNetwork {
    fn set_pod_cidrs(&self, cidrs: Vec<String>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let cidrs = cidrs.iter().map(|cidr| cidr.parse()).collect::<Result<Vec<network::Cidr>, _>>()?;
            Ok(network::PodNetwork::set_pod_cidrs(self, &cidrs)?)
        })
    }

    fn setup<'a>(&'a self, pod: &'a NetPod, netns: &'a Path) -> BoxFuture<'a, Result<Vec<IpAddr>, BoxError>> {
        Box::pin(async move { Ok(network::PodNetwork::setup(self, &pod.into(), netns).await?.addresses) })
    }

    fn teardown<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async move { Ok(network::PodNetwork::teardown(self, uid).await?) })
    }

    fn recover(&self, pods: Vec<NetPod>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let live: Vec<network::PodIdentity> = pods.iter().map(Into::into).collect();
            network::PodNetwork::recover(self, &live).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn host_ports_are_those_of_what_runs_beside_each_other() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "a", "ports": [
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 53, "hostPort": 5353, "hostIP": "127.0.0.1", "protocol": "UDP"},
                {"containerPort": 81},
                {"containerPort": 82, "hostPort": 8082, "hostIP": "nonsense"},
            ]}],
            "initContainers": [
                {"name": "sidecar", "restartPolicy": "Always", "ports": [{"containerPort": 90, "hostPort": 9090, "hostIP": ""}]},
                {"name": "init", "ports": [{"containerPort": 91, "hostPort": 9091}]},
            ],
        }}))
        .unwrap();
        let found = HostPort::of(&pod).into_iter().map(|it| {
            let address = it.host_ip.map_or("*".to_owned(), |address| address.to_string());
            format!("{address}:{}/{} to {}", it.port, it.protocol, it.container_port)
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            ["*:8080/TCP to 80", "127.0.0.1:5353/UDP to 53", "*:9090/TCP to 90"]
        );
    }
}
