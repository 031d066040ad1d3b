//! `PodNetwork`: a pod's interface from nothing to carrying packets, back to nothing, and found again after a restart.
//!
//! All calls are idempotent by the pod's uid. Blocking work runs on threads of its own; nothing here holds an async runtime up.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ipam::{Ipam, IpamError};
use crate::link::{self, HOST_PREFIX, POD_IFNAME};
use crate::netns::Netns;
use crate::routes;
use crate::rtnl::{RtnlError, Socket};
use crate::{Cidr, HOST_MAC, device, host_ifname, pod_mac, sysctl};

/// Any error of a [`Wiring`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where and how a node makes pod networks.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for what must survive a restart (address files); created if missing.
    pub state_dir: PathBuf,
    /// The device that leads to other nodes; pods get its MTU.
    pub uplink: String,
}

/// Which pod is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodIdentity {
    /// metadata.uid: names interface and addresses.
    pub uid: String,
    /// metadata.namespace, for messages.
    pub namespace: String,
    /// metadata.name, for messages.
    pub name: String,
}

/// A pod's interface as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// The pod's metadata.uid.
    pub uid: String,
    /// Index of the host end in the node's namespace.
    pub host_ifindex: u32,
    /// Name of the host end.
    pub host_ifname: String,
    /// Hardware address of the host end (the pod's gateway).
    pub host_mac: [u8; 6],
    /// Hardware address of the pod's end.
    pub pod_mac: [u8; 6],
    /// The pod's addresses in the order of the node's podCIDRs; the first is status.podIP.
    pub addresses: Vec<IpAddr>,
}

/// What is done to a pod's interface between its creation and its going up, and when the pod goes: the data plane's part.
pub trait Wiring: Send + Sync {
    /// Makes the data plane serve the interface. Called again for the same interface after a restart; must be idempotent.
    fn wire(&self, interface: &PodInterface) -> Result<(), BoxError>;
    /// Forgets the interface. The device may be gone already.
    fn unwire(&self, interface: &PodInterface);
}

/// Leaves interfaces to the kernel's stack alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwired;

impl Wiring for Unwired {
    fn wire(&self, _: &PodInterface) -> Result<(), BoxError> {
        Ok(())
    }

    fn unwire(&self, _: &PodInterface) {}
}

/// Why a pod's network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The kernel refused a link, address or route.
    #[error(transparent)]
    Netlink(#[from] RtnlError),
    /// The namespace could not be opened or entered.
    #[error("network namespace {path}: {source}")]
    Netns {
        /// Where it is pinned.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A switch under /proc/sys could not be set.
    #[error(transparent)]
    Sysctl(std::io::Error),
    /// A device that must be there is not.
    #[error("no device {0}")]
    NoDevice(String),
    /// The data plane could not serve the interface.
    #[error("data plane for {interface}: {source}")]
    Wiring {
        /// Host-side interface name.
        interface: String,
        /// What it said.
        source: BoxError,
    },
}

/// The pod networks of one node. Lives in the node's network namespace: that of the thread which called [`PodNetwork::new`]. Clones are the
/// same networks.
#[derive(Clone)]
pub struct PodNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    ipam: Ipam,
    mtu: u32,
    /// Bytes that tunnels add to packets; zero without tunnels.
    overhead: AtomicU32,
    host: Mutex<Socket>,
    pods: Mutex<HashMap<String, PodInterface>>,
    wiring: Arc<dyn Wiring>,
}

impl PodNetwork {
    /// Opens the node's address store and sets what the namespace needs to route.
    pub fn new(config: Config, wiring: Arc<dyn Wiring>) -> Result<Self, Error> {
        let host = Socket::open()?;
        sysctl::apply(sysctl::NODE).map_err(Error::Sysctl)?;
        let mtu = device::find(&config.uplink)?.mtu;
        let ipam = Ipam::open(&config.state_dir.join("addresses"))?;
        let inner = Inner {
            ipam,
            mtu,
            overhead: AtomicU32::new(0),
            host: Mutex::new(host),
            pods: Mutex::default(),
            wiring,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sets the node's podCIDRs (Node.spec.podCIDRs, in order). Until it is called, [`Self::setup`] fails with "the node has no podCIDR yet".
    pub fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), Error> {
        self.inner.ipam.set_cidrs(cidrs)?;
        // A packet to an address that no pod holds must end here, not go back out by the default route.
        lock(&self.inner.host).execute(cidrs.iter().map(|cidr| routes::unreachable(*cidr)).collect())?;
        Ok(())
    }

    /// Leaves room for what a tunnel adds to packets: pods that are set up from now on get an MTU that is smaller by `bytes`. Those that
    /// run keep theirs and learn the path's by ICMP.
    pub fn set_overhead(&self, bytes: u32) {
        self.inner.overhead.store(bytes, Ordering::Relaxed);
    }

    /// The podCIDRs set last.
    pub fn pod_cidrs(&self) -> Vec<Cidr> {
        self.inner.ipam.cidrs()
    }

    /// Gives the pod whose network namespace is pinned at `netns` its interface. What exists already is adopted.
    pub async fn setup(&self, pod: &PodIdentity, netns: &Path) -> Result<PodInterface, Error> {
        let (inner, pod, netns) = (Arc::clone(&self.inner), pod.clone(), netns.to_owned());
        blocking(move || inner.setup(&pod, &netns)).await
    }

    /// Forgets the pod: data plane entries, routes and addresses. The interface itself goes with the pod's namespace, which the caller
    /// drops (before or after); until then it stays without a route. A pod that is not known is fine.
    pub async fn teardown(&self, uid: &str) -> Result<(), Error> {
        let (inner, uid) = (Arc::clone(&self.inner), uid.to_owned());
        blocking(move || inner.teardown(&uid)).await
    }

    /// After a restart: takes over the interfaces of the pods in `live` and removes what belongs to others. Returns the interfaces
    /// found; a live pod that is not among them has lost its network and needs [`Self::setup`].
    pub async fn recover(&self, live: &[PodIdentity]) -> Result<Vec<PodInterface>, Error> {
        let (inner, live) = (Arc::clone(&self.inner), live.to_vec());
        blocking(move || inner.recover(&live)).await
    }

    /// The interface of a pod that was set up or recovered.
    pub fn interface(&self, uid: &str) -> Option<PodInterface> {
        lock(&self.inner.pods).get(uid).cloned()
    }
}

impl Inner {
    fn setup(&self, pod: &PodIdentity, path: &Path) -> Result<PodInterface, Error> {
        let netns = Netns::open(path).map_err(|source| Error::Netns { path: path.to_owned(), source })?;
        let addresses = self.ipam.allocate(&pod.uid)?;
        let enter = |source| Error::Netns { path: path.to_owned(), source };
        let configured = match self.find(&host_ifname(&pod.uid))? {
            Some(index) if netns.run(has_eth0).map_err(enter)?? => Some(index),
            Some(index) => {
                // The pair leads into a namespace that is no longer this pod's.
                lock(&self.host).execute(vec![link::delete(&host_ifname(&pod.uid), index)])?;
                None
            }
            None => None,
        };
        if configured.is_none() {
            lock(&self.host).execute(vec![link::birth(
                &pod.uid,
                std::os::fd::AsFd::as_fd(&netns),
                self.mtu.saturating_sub(self.overhead.load(Ordering::Relaxed)),
            )])?;
        }
        netns.run(|| configure_pod(&addresses)).map_err(enter)??;
        let interface =
            self.interface(&pod.uid, addresses)?.ok_or_else(|| Error::NoDevice(host_ifname(&pod.uid)))?;
        self.connect(&interface)?;
        tracing::debug!(pod = %pod.name, namespace = %pod.namespace, interface = %interface.host_ifname, "pod network is up");
        Ok(interface)
    }

    /// Data plane first, then routes and link: the first packet finds its tables.
    fn connect(&self, interface: &PodInterface) -> Result<(), Error> {
        let refused = |source| Error::Wiring { interface: interface.host_ifname.clone(), source };
        self.wiring.wire(interface).map_err(refused)?;
        lock(&self.host).execute(link::host_side(interface))?;
        lock(&self.pods).insert(interface.uid.clone(), interface.clone());
        Ok(())
    }

    fn teardown(&self, uid: &str) -> Result<(), Error> {
        let known = lock(&self.pods).remove(uid);
        if let Some(interface) = known {
            self.wiring.unwire(&interface);
            lock(&self.host).execute(link::remove_host_routes(&interface))?;
        }
        self.ipam.release(uid)?;
        Ok(())
    }

    fn recover(&self, live: &[PodIdentity]) -> Result<Vec<PodInterface>, Error> {
        let uids: HashSet<&str> = live.iter().map(|pod| pod.uid.as_str()).collect();
        self.ipam.retain(&uids)?;
        self.remove_orphans(&uids)?;
        let mut held: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (address, uid) in self.ipam.list()? {
            held.entry(uid).or_default().push(address);
        }
        let cidrs = self.ipam.cidrs();
        let mut interfaces = Vec::new();
        for uid in uids {
            let Some(mut addresses) = held.remove(uid) else { continue };
            addresses.sort_by_key(|address| cidrs.iter().position(|cidr| cidr.contains(*address)));
            let Some(interface) = self.interface(uid, addresses)? else { continue };
            self.connect(&interface)?;
            interfaces.push(interface);
        }
        Ok(interfaces)
    }

    /// Deletes the interfaces of pods that are not live: their namespaces were kept alive by something that is gone.
    fn remove_orphans(&self, live: &HashSet<&str>) -> Result<(), Error> {
        let ours: HashSet<String> = live.iter().map(|uid| host_ifname(uid)).collect();
        let mut host = lock(&self.host);
        let links = host.dump("list links", link::all())?;
        let orphans = links.iter().filter_map(link::index_and_name);
        let orphans = orphans.filter(|(_, name)| name.starts_with(HOST_PREFIX) && !ours.contains(*name));
        host.execute(orphans.map(|(index, name)| link::delete(name, index)).collect())?;
        Ok(())
    }

    fn interface(&self, uid: &str, addresses: Vec<IpAddr>) -> Result<Option<PodInterface>, Error> {
        let host_ifname = host_ifname(uid);
        let index = self.find(&host_ifname)?;
        Ok(index.map(|host_ifindex| PodInterface {
            uid: uid.to_owned(),
            host_ifindex,
            host_ifname,
            host_mac: HOST_MAC,
            pod_mac: pod_mac(uid),
            addresses,
        }))
    }

    fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        let found = lock(&self.host).get(&format!("look up {name}"), link::by_name(name))?;
        Ok(found.as_ref().and_then(link::index_and_name).map(|(index, _)| index))
    }
}

/// Whether the calling thread's namespace has the pod end.
fn has_eth0() -> Result<bool, RtnlError> {
    Ok(Socket::open()?.get("look up eth0", link::by_name(POD_IFNAME))?.is_some())
}

/// Addresses, routes and neighbours inside the pod's namespace, which the calling thread is in.
fn configure_pod(addresses: &[IpAddr]) -> Result<(), Error> {
    sysctl::apply(sysctl::POD).map_err(Error::Sysctl)?;
    let mut socket = Socket::open()?;
    let mut index = |name: &str| -> Result<u32, Error> {
        let found = socket.get(&format!("look up {name}"), link::by_name(name))?;
        found
            .as_ref()
            .and_then(link::index_and_name)
            .map(|(index, _)| index)
            .ok_or_else(|| Error::NoDevice(name.to_owned()))
    };
    let (lo, eth0) = (index("lo")?, index(POD_IFNAME)?);
    socket.execute(link::pod_side(addresses, lo, eth0))?;
    Ok(())
}

/// Runs blocking work beside the async runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::Sysctl(std::io::Error::other(error))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
