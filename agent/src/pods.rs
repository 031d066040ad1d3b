//! Where kubelet, pod network and data plane meet: a pod's interface is made by `network` and served by `datapath`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datapath::{Dataplane, NodeConfig, PodPort};
use futures::FutureExt;
use futures::future::BoxFuture;
use kubelet::{NetPod, PodNetworking};
use network::{Cidr, PodIdentity, PodInterface, PodNetwork, Wiring};
use service::{HostPort, ObjectKey, Protocol};
use tokio::sync::mpsc::UnboundedSender;

use crate::cluster::FromPods;
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
    network: PodNetwork,
    /// `None` where another proxy serves.
    dataplane: Option<Arc<Dataplane>>,
    /// Directory in which the podCIDRs are remembered.
    root: PathBuf,
    /// To whoever follows the cluster.
    told: UnboundedSender<FromPods>,
    /// Pods with hostPorts, by uid, as they were told.
    with_host_ports: Mutex<HashMap<String, ObjectKey>>,
}

impl Pods {
    /// A network whose changes are told to `told`; `root` is the directory in which the podCIDRs are remembered.
    pub fn new(
        network: PodNetwork,
        dataplane: Option<Arc<Dataplane>>,
        root: PathBuf,
        told: UnboundedSender<FromPods>,
    ) -> Self {
        Self { network, dataplane, root, told, with_host_ports: Mutex::default() }
    }

    /// Opens the pod's hostPorts.
    fn open_ports(&self, pod: &NetPod, addresses: &[IpAddr]) {
        let ports = host_ports(pod, addresses);
        if ports.is_empty() {
            return;
        }
        // A pod that follows another of its name may begin before that one has ended.
        let key = ObjectKey::new(&pod.namespace, format!("{} ({})", pod.name, pod.uid));
        self.with_host_ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod.uid.clone(), key.clone());
        self.tell(FromPods::HostPorts(key, ports));
    }

    fn close_ports(&self, uid: &str) {
        let known = self.with_host_ports.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        if let Some(key) = known {
            self.tell(FromPods::HostPorts(key, Vec::new()));
        }
    }

    fn tell(&self, event: FromPods) {
        // Nobody listens any more only when the agent ends.
        let _ = self.told.send(event);
    }

    /// Uses these podCIDRs from now on.
    pub fn use_cidrs(&self, cidrs: &[Cidr]) -> Result<(), network::BoxError> {
        if let Some(dataplane) = &self.dataplane {
            let pod_cidrs = cidrs.iter().map(pair).collect();
            dataplane.reconfigure(NodeConfig { pod_cidrs, ..dataplane.node_config() })?;
        }
        self.network.set_pod_cidrs(cidrs)?;
        state::store(&self.root, cidrs)?;
        self.tell(FromPods::Ranges);
        Ok(())
    }
}

/// A prefix as the data plane wants it.
pub fn pair(cidr: &Cidr) -> (IpAddr, u8) {
    (cidr.base(), cidr.prefix())
}

/// The pod's hostPorts in terms of the service tables. The API server admits no other protocols.
fn host_ports(pod: &NetPod, addresses: &[IpAddr]) -> Vec<HostPort> {
    let ports = pod.host_ports.iter();
    ports
        .filter_map(|port| {
            Some(HostPort {
                host_ip: port.host_ip,
                port: port.port,
                protocol: Protocol::from_name(Some(&port.protocol))?,
                container_port: port.container_port,
                pod_ips: addresses.to_vec(),
            })
        })
        .collect()
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
        async move {
            let addresses = self.network.setup(&identity(pod), netns).await?.addresses;
            self.open_ports(pod, &addresses);
            Ok(addresses)
        }
        .boxed()
    }

    fn teardown<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), network::BoxError>> {
        async move {
            self.close_ports(uid);
            Ok(self.network.teardown(uid).await?)
        }
        .boxed()
    }

    fn recover(&self, pods: Vec<NetPod>) -> BoxFuture<'_, Result<(), network::BoxError>> {
        async move {
            let live: Vec<PodIdentity> = pods.iter().map(identity).collect();
            let found = self.network.recover(&live).await?;
            for pod in &pods {
                if let Some(interface) = found.iter().find(|interface| interface.uid == pod.uid) {
                    self.open_ports(pod, &interface.addresses);
                }
            }
            self.tell(FromPods::Complete);
            let left_over = self.dataplane.as_ref().map_or(0, |dataplane| dataplane.drop_unclaimed_pods());
            tracing::info!(adopted = found.len(), live = live.len(), left_over, "pod networks taken over");
            Ok(())
        }
        .boxed()
    }
}
