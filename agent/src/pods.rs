//! Where kubelet, pod network and data plane meet: a pod's interface is made by `network` and served by `datapath`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datapath::{Dataplane, NodeConfig, PodPort};
use futures::FutureExt;
use futures::future::BoxFuture;
use kubelet::{NetPod, PodNetworking};
use network::{Cidr, PodIdentity, PodInterface, PodNetwork, Wiring};
use tokio::sync::Notify;

use crate::state;

/// Serves interfaces of pods by the data plane.
pub struct Served(pub Arc<Dataplane>);

impl Wiring for Served {
    fn wire(&self, interface: &PodInterface) -> Result<(), network::BoxError> {
        let port = PodPort {
            ifindex: interface.host_ifindex,
            ifname: interface.host_ifname.clone(),
            host_mac: interface.host_mac,
            pod_mac: interface.pod_mac,
            addresses: interface.addresses.clone(),
        };
        Ok(self.0.add_pod(&port)?)
    }

    fn unwire(&self, interface: &PodInterface) {
        self.0.remove_pod(&interface.host_ifname);
    }
}

/// The kubelet's network.
pub struct Pods {
    /// Interfaces and addresses.
    pub network: PodNetwork,
    /// Tables and programs.
    pub dataplane: Arc<Dataplane>,
    /// Directory in which the podCIDRs are remembered.
    pub root: PathBuf,
    /// Told when the ranges of the node changed, so that routes to other nodes are written again.
    pub ranges_changed: Arc<Notify>,
}

impl Pods {
    /// Uses these podCIDRs from now on.
    pub fn use_cidrs(&self, cidrs: &[Cidr]) -> Result<(), network::BoxError> {
        let config =
            NodeConfig { pod_cidrs: cidrs.iter().map(pair).collect(), ..self.dataplane.node_config() };
        self.dataplane.reconfigure(config)?;
        self.network.set_pod_cidrs(cidrs)?;
        state::store(&self.root, cidrs)?;
        self.ranges_changed.notify_one();
        Ok(())
    }
}

/// A prefix as the data plane wants it.
pub fn pair(cidr: &Cidr) -> (IpAddr, u8) {
    (cidr.base(), cidr.prefix())
}

fn identity(pod: &NetPod) -> PodIdentity {
    PodIdentity { uid: pod.uid.clone(), namespace: pod.namespace.clone(), name: pod.name.clone() }
}

impl PodNetworking for Pods {
    fn set_pod_cidrs(&self, cidrs: Vec<String>) -> BoxFuture<'_, Result<(), network::BoxError>> {
        async move {
            let cidrs: Vec<Cidr> = cidrs.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            if cidrs.is_empty() || cidrs == self.network.pod_cidrs() {
                return Ok(());
            }
            // Loading programs takes a moment and nothing else can go on without them.
            tokio::task::block_in_place(|| self.use_cidrs(&cidrs))
        }
        .boxed()
    }

    fn setup<'a>(
        &'a self,
        pod: &'a NetPod,
        netns: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, network::BoxError>> {
        async move { Ok(self.network.setup(&identity(pod), netns).await?.addresses) }.boxed()
    }

    fn teardown<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), network::BoxError>> {
        async move { Ok(self.network.teardown(uid).await?) }.boxed()
    }

    fn recover(&self, pods: Vec<NetPod>) -> BoxFuture<'_, Result<(), network::BoxError>> {
        async move {
            let live: Vec<PodIdentity> = pods.iter().map(identity).collect();
            let found = self.network.recover(&live).await?;
            let left_over = self.dataplane.drop_unclaimed_pods();
            tracing::info!(adopted = found.len(), live = live.len(), left_over, "pod networks taken over");
            Ok(())
        }
        .boxed()
    }
}
