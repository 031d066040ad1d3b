//! How packets get to other nodes: kernel routes, neighbours and the tunnel device of a Beeline cluster; nothing of that in another network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use datapath::{Dataplane, NodeConfig, Tunnel, Vxlan};
use network::neighbours::Neighbours;
use network::routes::{NodeRoutes, Via, Way};
use network::{Cidr, PodNetwork, tunnel};

/// What is done about the nodes of the cluster besides tables.
pub trait Segment: Send {
    /// Which of another node's pod ranges the data plane may send packets to by itself.
    fn pod_ranges<'a>(&self, cidrs: &'a [Cidr]) -> &'a [Cidr];
    /// Whether the data plane delivers to this node's pods; otherwise their packets go through the stack, as those of host processes do.
    fn delivers_to_pods(&self) -> bool;
    /// How a node with these addresses is reached if it is on another segment.
    fn tunnel_to(&mut self, addresses: &[IpAddr]) -> Option<Tunnel>;
    /// Makes the kernel's routes to other nodes' pods equal to `routes`, and keeps these neighbours resolved.
    fn follow(&mut self, routes: &BTreeMap<Cidr, Via>, neighbours: &[IpAddr]);
}

/// Leaves routing to somebody else's network (role `proxy`): the kernel's routes are right, whatever they lead through.
pub struct ForeignNetwork;

impl Segment for ForeignNetwork {
    fn pod_ranges<'a>(&self, _: &'a [Cidr]) -> &'a [Cidr] {
        &[]
    }

    fn delivers_to_pods(&self) -> bool {
        false
    }

    fn tunnel_to(&mut self, _: &[IpAddr]) -> Option<Tunnel> {
        None
    }

    fn follow(&mut self, _: &BTreeMap<Cidr, Via>, _: &[IpAddr]) {}
}

/// A Beeline cluster's network.
pub struct OwnNetwork {
    routes: NodeRoutes,
    neighbours: Neighbours,
    /// Neighbours that the kernel was asked to keep resolved.
    managed: BTreeSet<IpAddr>,
    /// `None` where another proxy serves: the kernel's own tables are enough.
    dataplane: Option<Arc<Dataplane>>,
    pods: PodNetwork,
    /// This node's own end of tunnels; `None` without an IPv4 address, or if tunnels are not wanted.
    own: Option<Ipv4Addr>,
    mtu: u32,
    /// Index of the tunnel device, once there is one.
    device: Option<u32>,
}

impl OwnNetwork {
    /// Opens the tables and, with a data plane, starts the thread that tells it about neighbours. `mtu` is the uplink's; `own` is where tunnels to
    /// this node end.
    pub fn open(
        uplink: &str,
        mtu: u32,
        own: Option<Ipv4Addr>,
        dataplane: Option<&Arc<Dataplane>>,
        pods: PodNetwork,
    ) -> Result<Self> {
        let mut neighbours = Neighbours::open(uplink)?;
        if let Some(dataplane) = dataplane {
            tell_neighbours(uplink, &mut neighbours, dataplane)?;
        }
        let mut network = Self {
            routes: NodeRoutes::open()?,
            neighbours,
            managed: BTreeSet::new(),
            dataplane: dataplane.map(Arc::clone),
            pods,
            own,
            mtu,
            device: None,
        };
        if existing_tunnel().is_some() {
            network.device = network.ready_device();
        }
        Ok(network)
    }

    /// The tunnel device, made and told to the data plane when the first node needs it. It stays until the node is cleaned up.
    fn ready_device(&mut self) -> Option<u32> {
        if self.device.is_some() {
            return self.device;
        }
        let made = tunnel::ensure(self.own?, self.mtu);
        let made = made.inspect_err(|error| tracing::error!(%error, "tunnel to other segments")).ok()?;
        if let Some(dataplane) = &self.dataplane {
            let vxlan = Some(Vxlan { name: tunnel::DEVICE.to_owned(), ifindex: made.index });
            let config = NodeConfig { vxlan, ..dataplane.node_config() };
            if let Err(error) = dataplane.reconfigure(config) {
                tracing::error!(%error, "tunnel to other segments");
                return None;
            }
        }
        self.pods.set_overhead(tunnel::OVERHEAD);
        tracing::info!(device = tunnel::DEVICE, "some nodes are on other segments");
        self.device = Some(made.index);
        self.device
    }

    fn router_to(&mut self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        match self.routes.way_to(address.into()) {
            Ok(Some(Way::Router(IpAddr::V4(gateway)))) => Some(gateway),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "route to a node");
                None
            }
        }
    }
}

/// Tells the data plane about the neighbours that the kernel knows, and starts the thread that goes on with it.
fn tell_neighbours(uplink: &str, neighbours: &mut Neighbours, dataplane: &Arc<Dataplane>) -> Result<()> {
    let mut watch = neighbours.watch()?;
    for (address, mac) in neighbours.known()? {
        dataplane.set_neighbour(address, Some(mac));
    }
    let (followed, mut again) = (Arc::clone(dataplane), Neighbours::open(uplink)?);
    let follow = move || {
        loop {
            match watch.changes() {
                Ok(changes) => {
                    changes.iter().for_each(|change| followed.set_neighbour(change.address, change.mac));
                }
                Err(error) => {
                    // Changes were lost (ENOBUFS): read the table anew.
                    tracing::warn!(%error, "neighbour changes");
                    for (address, mac) in again.known().unwrap_or_default() {
                        followed.set_neighbour(address, Some(mac));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    };
    std::thread::Builder::new().name("neighbours".to_owned()).spawn(follow)?;
    Ok(())
}

/// The tunnel device that an earlier agent left, for the data plane to start with.
pub fn existing_tunnel() -> Option<Vxlan> {
    let device = network::device::find(tunnel::DEVICE).ok()?;
    Some(Vxlan { name: tunnel::DEVICE.to_owned(), ifindex: device.index })
}

impl Segment for OwnNetwork {
    fn pod_ranges<'a>(&self, cidrs: &'a [Cidr]) -> &'a [Cidr] {
        cidrs
    }

    fn delivers_to_pods(&self) -> bool {
        true
    }

    fn tunnel_to(&mut self, addresses: &[IpAddr]) -> Option<Tunnel> {
        self.own?;
        let to = addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })?;
        let gateway = self.router_to(to)?;
        self.ready_device()?;
        Some(Tunnel { to, gateway })
    }

    fn follow(&mut self, routes: &BTreeMap<Cidr, Via>, neighbours: &[IpAddr]) {
        if let Err(error) = self.routes.sync(routes, self.device) {
            tracing::error!(%error, "routes to other nodes");
        }
        let wanted: BTreeSet<IpAddr> = neighbours.iter().copied().collect();
        let gone: Vec<IpAddr> = self.managed.difference(&wanted).copied().collect();
        let new: Vec<IpAddr> = wanted.difference(&self.managed).copied().collect();
        let done = self.neighbours.forget(&gone).and_then(|()| self.neighbours.manage(&new));
        match done {
            Ok(()) => self.managed = wanted,
            Err(error) => tracing::warn!(%error, "neighbours"),
        }
    }
}
