//! The kubelet's view of the pod network: give a pinned namespace an interface, take it away again.
//! It knows no netlink and no eBPF: crate `network` does the work, the agent binary joins the two.

use std::net::IpAddr;
use std::path::Path;

use futures::future::BoxFuture;

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
