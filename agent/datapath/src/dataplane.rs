//! `Dataplane`: one node's programs and tables as a handle that the rest of the agent shares.
//!
//! Opening adopts what is pinned; from the moment [`Dataplane::open`] returns, new programs run on the old tables. Nothing of them is removed
//! until the caller says that its view is complete ([`Dataplane::drop_unclaimed_pods`], and `service::Tables::start` for services).

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use abi::config::{Config, features};
use service::{Diff, Learned};

use crate::config::{self, Given};
use crate::flows::{self, FlowCount, FlowsError};
use crate::maps::{self, Maps, MapsError};
use crate::options::{NodeAddresses, NodeConfig, Options, PodPort, Uplink};
use crate::programs::{Programs, ProgramsError, XdpMode};
use crate::routes::{Routes, RoutesError};
use crate::services::{Services, ServicesError};
use crate::{CgroupError, cgroup, sys};

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
    /// Nothing leads out of the node.
    #[error("options.uplinks: at least one device is needed")]
    NoUplink,
}

/// The data plane of one node.
pub struct Dataplane {
    options: Options,
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
    pub fn open(options: Options, node: NodeConfig) -> Result<(Self, Learned), Error> {
        let uplink = options.uplinks.first().ok_or(Error::NoUplink)?.clone();
        let cgroup = cgroup::open(&options.cgroup)?;
        let seed = Maps::open(&options.bpf_dir, false)
            .ok()
            .map(|maps| maps.control().hash_seed)
            .filter(|seed| *seed != 0);
        let config = config::constants(&options, &node, given(seed)?);
        let (programs, config, xdp) = attach(&options, &cgroup, config, &uplink)?;
        let maps = Maps::open(&options.bpf_dir, true)?;
        stamp(&maps, &config)?;
        let (services, learned) = Services::learn(&maps, &config);
        let routes = Routes::learn(&maps, &config, uplink);
        let inner = Inner { config, node, programs, xdp, maps, services, routes, pods: Vec::new() };
        let dataplane = Self { options, cgroup, epoch: Instant::now(), inner: Mutex::new(inner) };
        Ok((dataplane, learned))
    }

    /// Tells the programs a changed configuration: they are loaded again and replaced inside their links. Tables stay.
    pub fn reconfigure(&self, node: NodeConfig) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.node == node {
            return Ok(());
        }
        let config = config::constants(&self.options, &node, given(Some(inner.config.hash_seed))?);
        let uplink = self.options.uplinks.first().ok_or(Error::NoUplink)?;
        let (programs, config, xdp) = attach(&self.options, &self.cgroup, config, uplink)?;
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
    uplink: &Uplink,
) -> Result<(Programs, Config, Option<XdpMode>), Error> {
    let pinned = Programs::pinned_xdp(&options.bpf_dir, &uplink.name);
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
        match programs.attach_xdp(&uplink.name, uplink.ifindex, mode) {
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
    programs.attach_uplink(&uplink.name, uplink.ifindex)?;
    programs.attach_cgroup(cgroup.as_fd())?;
    if let Some(old) = pinned.filter(|old| Some(*old) != attached) {
        programs.detach_xdp(&uplink.name, old);
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

/// What is not configured.
fn given(seed: Option<u32>) -> Result<Given, Error> {
    let netns_cookie = sys::netns_cookie().map_err(Error::Cookie)?;
    Ok(Given { netns_cookie, hash_seed: seed.unwrap_or_else(new_seed) })
}
