//! `Dataplane`: one node's programs and tables as a handle that the rest of the agent shares.
//!
//! Opening adopts what is pinned; from the moment [`Dataplane::open`] returns, new programs run on the old tables. Nothing of them is removed
//! until the caller says that its view is complete ([`Dataplane::drop_unclaimed_pods`], and `service::Tables::start` for services).

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use abi::config::{Cidr4, Cidr6, Config, features};
use service::{Diff, Learned};

use crate::flows::{self, FlowCount, FlowsError};
use crate::maps::{self, Maps, MapsError};
use crate::programs::{Programs, ProgramsError, XdpMode};
use crate::routes::{NodeAddresses, Routes, RoutesError, Uplink};
use crate::services::{Services, ServicesError};
use crate::{CgroupError, cgroup, sys};

/// Source of a pod's connection to itself through a service: a link-local address that nobody has (RFC 3927).
const HAIRPIN4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The same for IPv6: a unique local address (RFC 4193), since pods resolve link-local ones instead of routing them.
const HAIRPIN6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6565, 0x6c69, 0x6e65, 0, 0, 0, 2);

/// Which XDP modes may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpChoice {
    /// Native if the driver can, else generic, else none. On a veth, generic: packets that native XDP sends back are not seen by the far
    /// end until something else wakes it, unless it runs XDP, too (drivers/net/veth.c, `veth_xdp_flush`).
    Auto,
    /// Native or none.
    Native,
    /// Generic or none.
    Generic,
    /// None: tcx does the work.
    Off,
}

impl XdpChoice {
    fn modes(self, uplink: Uplink) -> &'static [XdpMode] {
        match self {
            Self::Auto if uplink.veth => &[XdpMode::Generic],
            Self::Auto => &[XdpMode::Native, XdpMode::Generic],
            Self::Native => &[XdpMode::Native],
            Self::Generic => &[XdpMode::Generic],
            Self::Off => &[],
        }
    }
}

/// Where the data plane lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory on a BPF filesystem.
    pub bpf_dir: PathBuf,
    /// Subtree of the cgroup v2 tree whose sockets are served, like `beeline/node1`.
    pub cgroup: String,
    /// Device that leads to other nodes.
    pub uplink: String,
    /// XDP on the uplink.
    pub xdp: XdpChoice,
    /// Map sizes that differ from `abi::limits`, by map name.
    pub entries: Vec<(&'static str, u32)>,
}

/// What the programs are told of the node and the cluster. A prefix is an address and a length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's pod ranges.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// The cluster's pod ranges.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// The service ranges.
    pub service_cidrs: Vec<(IpAddr, u8)>,
    /// This node's addresses; the first of each family is the source of translated clients.
    pub addresses: Vec<IpAddr>,
    /// Whether pods may only send from their own addresses.
    pub spoof_check: bool,
    /// Whether pods' connections to addresses outside the cluster get this node's address.
    pub masquerade: bool,
}

/// A pod's interface as the data plane needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// Index of the host end.
    pub ifindex: u32,
    /// Name of the host end.
    pub ifname: String,
    /// Hardware address of the host end.
    pub host_mac: [u8; 6],
    /// Hardware address of the pod's end.
    pub pod_mac: [u8; 6],
    /// Addresses of the pod.
    pub addresses: Vec<IpAddr>,
}

/// Why the data plane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Programs.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The node's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Service tables.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// Delivery tables.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// Flow tables.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// The namespace's cookie.
    #[error("reading the network namespace's cookie: {0}")]
    Cookie(io::Error),
}

/// The data plane of one node.
pub struct Dataplane {
    options: Options,
    uplink: Uplink,
    cgroup: File,
    /// Milliseconds are counted from here.
    epoch: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    config: Config,
    node: NodeConfig,
    programs: Programs,
    xdp: Option<XdpMode>,
    maps: Maps,
    services: Services,
    routes: Routes,
    pods: Vec<PodPort>,
}

impl Dataplane {
    /// Loads the programs, adopts or creates maps and links, and returns the numbers that an earlier process gave out. Runs in the
    /// node's network namespace.
    pub fn open(options: Options, node: NodeConfig, uplink: Uplink) -> Result<(Self, Learned), Error> {
        let cgroup = cgroup::open(&options.cgroup)?;
        let seed = Maps::open(&options.bpf_dir, false)
            .ok()
            .map(|maps| maps.control().hash_seed)
            .filter(|seed| *seed != 0);
        let config = config(&node, uplink, seed.unwrap_or_else(new_seed))?;
        let (programs, config, xdp) = attach(&options, &cgroup, config, uplink)?;
        let maps = Maps::open(&options.bpf_dir, true)?;
        stamp(&maps, &config)?;
        let (services, learned) = Services::learn(&maps, &config);
        let routes = Routes::learn(&maps, &config, uplink);
        let inner = Inner { config, node, programs, xdp, maps, services, routes, pods: Vec::new() };
        let dataplane = Self { options, uplink, cgroup, epoch: Instant::now(), inner: Mutex::new(inner) };
        Ok((dataplane, learned))
    }

    /// Tells the programs a changed configuration: they are loaded again and replaced inside their links. Tables stay.
    pub fn reconfigure(&self, node: NodeConfig) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.node == node {
            return Ok(());
        }
        let config = config(&node, self.uplink, inner.config.hash_seed)?;
        let (programs, config, xdp) = attach(&self.options, &self.cgroup, config, self.uplink)?;
        for pod in &inner.pods {
            programs.attach_pod(&pod.ifname, pod.ifindex)?;
        }
        (inner.programs, inner.config, inner.xdp, inner.node) = (programs, config, xdp, node);
        let now_ms = self.now_ms();
        let Inner { config, maps, routes, pods, .. } = &mut *inner;
        for pod in pods.iter() {
            routes.add_pod(maps, config, pod, now_ms)?;
        }
        Ok(())
    }

    /// The configuration in use.
    pub fn node_config(&self) -> NodeConfig {
        self.lock().node.clone()
    }

    /// Milliseconds on the clock of this handle, for `service::Tables`.
    pub fn now_ms(&self) -> u64 {
        // From an hour after zero, so that "long ago" exists.
        self.epoch.elapsed().as_millis() as u64 + 3_600_000
    }

    /// Writes a difference of the service tables.
    pub fn apply(&self, diff: &Diff) -> Result<(), Error> {
        if diff.is_empty() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { config, maps, services, .. } = &mut *inner;
        Ok(services.apply(maps, config, diff, now_ms)?)
    }

    /// Serves a pod's interface. Tables first, then the programs: what arrives at a program finds its rows.
    pub fn add_pod(&self, pod: &PodPort) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { config, maps, routes, programs, pods, .. } = &mut *inner;
        routes.add_pod(maps, config, pod, now_ms)?;
        programs.attach_pod(&pod.ifname, pod.ifindex)?;
        pods.retain(|known| known.ifname != pod.ifname);
        pods.push(pod.clone());
        Ok(())
    }

    /// Forgets a pod's interface, which may be gone already.
    pub fn remove_pod(&self, ifname: &str) {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { config, maps, routes, programs, pods, .. } = &mut *inner;
        routes.remove_pod(maps, config, ifname, now_ms);
        programs.detach_pod(ifname);
        pods.retain(|known| known.ifname != ifname);
    }

    /// Removes pods that an earlier process served and that were not added since: call when all living pods were.
    pub fn drop_unclaimed_pods(&self) -> usize {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { config, maps, routes, programs, .. } = &mut *inner;
        let dropped = routes.drop_unclaimed(maps, config, now_ms);
        if let Err(error) = programs.sweep() {
            tracing::warn!(%error, "could not look for links of devices that are gone");
        }
        dropped
    }

    /// Removes the tables of other layouts, which programs of earlier builds used: call when the own tables are complete.
    pub fn forget_old_layouts(&self) {
        match maps::forget_others(&self.options.bpf_dir) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "tables of other layouts removed"),
            Err(error) => tracing::warn!(%error, "could not remove tables of other layouts"),
        }
    }

    /// Makes node addresses and pod ranges equal to `nodes`.
    pub fn set_nodes(&self, nodes: &[NodeAddresses]) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { config, maps, routes, .. } = &mut *inner;
        Ok(routes.set_nodes(maps, config, nodes, now_ms)?)
    }

    /// What is known of a neighbour on the uplink.
    pub fn set_neighbour(&self, address: IpAddr, mac: Option<[u8; 6]>) {
        let mut inner = self.lock();
        let Inner { maps, routes, .. } = &mut *inner;
        routes.set_neighbour(maps, address, mac);
    }

    /// Addresses of other nodes, whose hardware addresses are wanted.
    pub fn wanted_neighbours(&self) -> Vec<IpAddr> {
        self.lock().routes.wanted_neighbours()
    }

    /// How XDP runs on the uplink, `None` if it does not.
    pub fn xdp(&self) -> Option<&'static str> {
        self.lock().xdp.map(XdpMode::as_str)
    }

    /// Drops by reason since the maps were made.
    pub fn drops(&self) -> Vec<(abi::Reason, u64)> {
        crate::status::drops(&self.lock().maps)
    }

    /// Deletes flows that have been idle for longer than their state allows. Long: meant for a thread of its own, now and then, once the
    /// tables follow the API. Nothing else waits for it.
    pub fn collect_flows(&self) -> Result<FlowCount, Error> {
        Ok(flows::collect(&self.options.bpf_dir)?)
    }

    /// Numbers of frontends, pods, node addresses and pod ranges in the tables.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let inner = self.lock();
        let (pods, addresses, ranges) = inner.routes.counts();
        (inner.services.frontends(), pods, addresses, ranges)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads and attaches. Whether XDP runs is a constant of the programs, so each mode that is tried is a load of its own.
fn attach(
    options: &Options,
    cgroup: &File,
    mut config: Config,
    uplink: Uplink,
) -> Result<(Programs, Config, Option<XdpMode>), Error> {
    let pinned = Programs::pinned_xdp(&options.bpf_dir, &options.uplink);
    let modes = options.xdp.modes(uplink);
    // The mode that runs already is tried first: changing it would mean a moment without.
    let ordered = pinned
        .into_iter()
        .filter(|mode| modes.contains(mode))
        .chain(modes.iter().copied().filter(|mode| Some(*mode) != pinned));
    let mut attached = None;
    let mut loaded = None;
    config.features |= features::XDP;
    for mode in ordered {
        let programs = match loaded.take() {
            Some(programs) => programs,
            None => Programs::load(&options.bpf_dir, &config, &options.entries)?,
        };
        match programs.attach_xdp(&options.uplink, uplink.ifindex, mode) {
            Ok(()) => attached = Some(mode),
            Err(error) => tracing::info!(%error, mode = mode.as_str(), "XDP is not possible in this mode"),
        }
        loaded = Some(programs);
        if attached.is_some() {
            break;
        }
    }
    let programs = match (attached, loaded) {
        (Some(_), Some(programs)) => programs,
        _ => {
            config.features &= !features::XDP;
            Programs::load(&options.bpf_dir, &config, &options.entries)?
        }
    };
    programs.attach_uplink(&options.uplink, uplink.ifindex)?;
    programs.attach_cgroup(cgroup.as_fd())?;
    if let Some(old) = pinned.filter(|old| Some(*old) != attached) {
        programs.detach_xdp(&options.uplink, old);
    }
    Ok((programs, config, attached))
}

/// Writes who uses the maps, and refuses maps of another layout (which the directory's name should have kept apart).
fn stamp(maps: &Maps, config: &Config) -> Result<(), MapsError> {
    let mut control = maps.control();
    if control.layout != 0 && control.layout != abi::LAYOUT {
        return Err(MapsError::Layout { found: control.layout, expected: abi::LAYOUT });
    }
    control.layout = abi::LAYOUT;
    control.epoch = control.epoch.wrapping_add(1);
    control.hash_seed = config.hash_seed;
    maps.cfg.set(0, &control);
    Ok(())
}

/// A seed that differs from node to node and from one set of maps to the next; it only spreads hashes.
fn new_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(std::process::id()) as u32).max(1)
}

/// The programs' constants.
fn config(node: &NodeConfig, uplink: Uplink, hash_seed: u32) -> Result<Config, Error> {
    let range4 = |ranges: &[(IpAddr, u8)]| {
        ranges.iter().find_map(|(net, length)| match net {
            IpAddr::V4(v4) => Some((Cidr4::new((*v4).into(), *length), *length)),
            IpAddr::V6(_) => None,
        })
    };
    let range6 = |ranges: &[(IpAddr, u8)]| {
        ranges.iter().find_map(|(net, length)| match net {
            IpAddr::V6(v6) => Some((Cidr6::new((*v6).into(), *length), *length)),
            IpAddr::V4(_) => None,
        })
    };
    let mut config =
        Config { hash_seed, netns_cookie: sys::netns_cookie().map_err(Error::Cookie)?, ..Config::EMPTY };
    (config.hairpin4, config.hairpin6) = (HAIRPIN4.into(), HAIRPIN6.into());
    if let Some((range, length)) = range4(&node.pod_cidrs) {
        config.pods4 = range;
        config.cluster4_shift = 32 - u32::from(length.min(32));
    }
    if let Some((range, length)) = range6(&node.pod_cidrs) {
        config.pods6 = range;
        config.cluster6_shift = 64 - u32::from(length.min(64));
    }
    config.cluster4 = range4(&node.cluster_cidrs).map_or(Cidr4::NONE, |(range, _)| range);
    config.cluster6 = range6(&node.cluster_cidrs).map_or(Cidr6::NONE, |(range, _)| range);
    config.services4 = range4(&node.service_cidrs).map_or(Cidr4::NONE, |(range, _)| range);
    config.services6 = range6(&node.service_cidrs).map_or(Cidr6::NONE, |(range, _)| range);
    config.features = features::PEER_NAME;
    for address in node.addresses.iter().rev() {
        match address {
            IpAddr::V4(v4) => config.snat4 = (*v4).into(),
            IpAddr::V6(v6) => {
                config.snat6 = (*v6).into();
                config.features |= features::IPV6;
            }
        }
    }
    for (on, feature) in [(node.spoof_check, features::SPOOF_CHECK), (node.masquerade, features::MASQUERADE)]
    {
        config.features |= if on { feature } else { 0 };
    }
    config.uplink = uplink.ifindex;
    Ok(config)
}

#[cfg(test)]
mod tests;
