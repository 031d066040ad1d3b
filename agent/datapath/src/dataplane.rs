//! `Dataplane`: one node's programs and tables as a handle that the rest of the agent shares.
//!
//! Opening adopts what is pinned; from the moment [`Dataplane::open`] returns, new programs run on the old tables. Nothing of them is removed
//! until the caller says that its view is complete ([`Dataplane::drop_unclaimed_pods`], and `service::Tables::start` for services).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use abi::Reason;
use abi::config::Config;
use abi::maps::CFG;
use service::{Diff, Learned};

use crate::carry;
use crate::cgroup::{self, Cgroup};
use crate::config::{self, Given};
use crate::flows::{self, FlowCount, FlowsError, SourcePorts};
use crate::growth::{self, LeftOver};
use crate::install::{self, InstallError, Installed, Place, UplinkXdp};
use crate::links::{AttachError, Links, XdpMode};
use crate::maps::{Maps, MapsError, Source};
use crate::options::{NodeAddresses, NodeConfig, Options, PodPort};
use crate::pins::{Pins, Predecessor};
use crate::programs::{Absent, Tables};
use crate::routes::{Routes, RoutesError};
use crate::services::{Services, ServicesError};
use crate::sockets::{self, SocketPair};
use crate::sys::{self, RawMap};
use crate::{CgroupError, status};

/// Why the data plane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Programs.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A pod's programs.
    #[error(transparent)]
    Attach(#[from] AttachError),
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

/// Something that the cluster's people should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Connections were dropped because no source port was free.
    PortsExhausted {
        /// How many since the last event.
        connections: u64,
        /// Address of this node and the backend with most ports in use, if known.
        busiest: Option<(IpAddr, IpAddr, u16)>,
    },
    /// The flow tables grew.
    FlowsGrown {
        /// Entries of both families together.
        entries: usize,
    },
    /// The flow tables are nearly full and may not grow.
    FlowsFull {
        /// Part that is in use.
        percent: u8,
    },
}

/// The data plane of one node.
pub struct Dataplane {
    options: Options,
    pins: Pins,
    links: Links,
    cgroup: Cgroup,
    cgroup_file: File,
    /// Milliseconds are counted from here.
    epoch: Instant,
    /// Held by whoever loads programs or walks the flow tables; taken before `inner`.
    flows: Mutex<Flows>,
    inner: Mutex<Inner>,
}

struct Inner {
    installed: Installed,
    node: NodeConfig,
    maps: Maps,
    services: Services,
    routes: Routes,
    events: Vec<Event>,
    source_ports: Vec<SourcePorts>,
}

/// What is known of the flow tables.
#[derive(Debug)]
struct Flows {
    /// Entries beyond which a family's table does not grow.
    limit: u32,
    exhausted: u64,
    full: bool,
}

impl Dataplane {
    /// Loads the programs, adopts or creates maps and links, and returns the numbers that an earlier process gave out. Runs in the
    /// node's network namespace. If it fails, what was attached before goes on.
    pub fn open(options: Options, node: NodeConfig) -> Result<(Self, Learned), Error> {
        let uplink = options.uplinks.first().ok_or(Error::NoUplink)?.clone();
        let (cgroup, cgroup_file) = cgroup::open(&options.cgroup)?;
        let (pins, links) = (Pins::new(&options.bpf_dir, options.layout_salt), Links::new(&options.bpf_dir));
        let directory = |source| MapsError::Directory { path: options.bpf_dir.clone(), source };
        pins.create().and_then(|()| links.create()).map_err(directory)?;
        let left_over = growth::left_over(&pins).map_err(directory)?;
        let seed = seed(&pins, &links);
        let config = config::constants(&options, &node, given(seed)?);
        let mut predecessors = pins.predecessors(&links).map_err(directory)?;
        let entries = install::entries(&options, &predecessors);
        let place =
            Place { options: &options, pins: &pins, links: &links, cgroup: cgroup_file.as_fd(), node: &node };
        if left_over == LeftOver::Both {
            finish_growth(&place, config, entries.clone(), &predecessors)?;
            predecessors.clear();
        }
        let tables = Tables { pins: &pins, entries, growing: false };
        let loaded = install::load(&place, config, &tables)?;
        let installed = install::put(&place, loaded, &tables, &predecessors)?;
        let config = installed.config;
        let maps = Maps::open(&Source { path: &|spec| pins.path(spec), writable: true })?;
        stamp(&maps, &config, Some(pins.layout_of_all()));
        let (services, learned) = Services::learn(&maps, &config)?;
        let routes = Routes::learn(&maps, &config, uplink, options.node_port_addresses.clone())?;
        let flows =
            Flows { limit: flow_limit(&options), exhausted: maps.drops(Reason::PortsExhausted), full: false };
        let inner =
            Inner { installed, node, maps, services, routes, events: Vec::new(), source_ports: Vec::new() };
        let dataplane = Self {
            options,
            pins,
            links,
            cgroup,
            cgroup_file,
            epoch: Instant::now(),
            flows: Mutex::new(flows),
            inner: Mutex::new(inner),
        };
        Ok((dataplane, learned))
    }

    /// Tells the programs a changed configuration: they are loaded again and replaced inside their links. Tables stay.
    pub fn reconfigure(&self, node: NodeConfig) -> Result<(), Error> {
        let flows = lock(&self.flows);
        if self.left_over()? == LeftOver::Both {
            // Programs that know of one table only would miss the entries of the other.
            self.grow(flows.limit)?;
        }
        let seed = {
            let inner = self.lock();
            if inner.node == node {
                return Ok(());
            }
            inner.installed.config.hash_seed
        };
        let config = config::constants(&self.options, &node, given(Some(seed))?);
        self.replace(config, &node, false)?;
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        inner.node = node;
        let Inner { installed, maps, routes, .. } = &mut *inner;
        Ok(routes.reconfigure(maps, &installed.config, now_ms)?)
    }

    /// Loads the programs with other constants and puts them everywhere. The caller holds the lock of the flows.
    fn replace(&self, config: Config, node: &NodeConfig, growing: bool) -> Result<(), Error> {
        let place = Place {
            options: &self.options,
            pins: &self.pins,
            links: &self.links,
            cgroup: self.cgroup_file.as_fd(),
            node,
        };
        let entries = install::entries(&self.options, &[]);
        let tables = Tables { pins: &self.pins, entries, growing };
        // Nobody waits for the verifier: the tables are locked for the change of the links only.
        let loaded = install::load(&place, config, &tables)?;
        let mut inner = self.lock();
        inner.installed = install::put(&place, loaded, &tables, &[])?;
        stamp(&inner.maps, &inner.installed.config, None);
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
        let Inner { installed, maps, services, .. } = &mut *inner;
        Ok(services.apply(maps, &installed.config, diff, now_ms)?)
    }

    /// Serves a pod's interface. Tables first, then the programs: what arrives at a program finds its rows.
    pub fn add_pod(&self, pod: &PodPort) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { installed, maps, routes, .. } = &mut *inner;
        routes.add_pod(maps, &installed.config, pod, now_ms)?;
        Ok(installed.attach_pod(&self.links, &pod.ifname, pod.ifindex)?)
    }

    /// Forgets a pod's interface, which may be gone already.
    pub fn remove_pod(&self, ifname: &str) {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { installed, maps, routes, .. } = &mut *inner;
        routes.remove_pod(maps, &installed.config, ifname, now_ms);
        self.links.detach_pod(ifname);
    }

    /// Removes pods that an earlier process served and that were not added since: call when all living pods were.
    pub fn drop_unclaimed_pods(&self) -> usize {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { installed, maps, routes, .. } = &mut *inner;
        let dropped = routes.drop_unclaimed(maps, &installed.config, now_ms);
        self.links.sweep();
        dropped
    }

    /// Removes the tables of other layouts, which programs of earlier builds used: call when the own tables are complete.
    pub fn forget_old_layouts(&self) {
        match carry::forget(&self.pins, &self.options.bpf_dir) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "tables of other layouts removed"),
            Err(error) => tracing::warn!(%error, "could not remove tables of other layouts"),
        }
    }

    /// Makes node addresses and pod ranges equal to `nodes`.
    pub fn set_nodes(&self, nodes: &[NodeAddresses]) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let Inner { installed, maps, routes, .. } = &mut *inner;
        Ok(routes.set_nodes(maps, &installed.config, nodes, now_ms)?)
    }

    /// What is known of a neighbour on the main uplink.
    pub fn set_neighbour(&self, address: IpAddr, mac: Option<[u8; 6]>) {
        let mut inner = self.lock();
        let Inner { installed, maps, routes, .. } = &mut *inner;
        if let Err(error) = routes.set_neighbour(maps, &installed.config, address, mac) {
            tracing::warn!(%address, %error, "neighbour");
        }
    }

    /// Neighbours whose hardware addresses are wanted: other nodes, and routers to nodes on other segments.
    pub fn wanted_neighbours(&self) -> Vec<IpAddr> {
        self.lock().routes.wanted_neighbours()
    }

    /// How XDP runs on the main uplink, `None` if it does not.
    pub fn xdp(&self) -> Option<&'static str> {
        self.lock().installed.xdp.first().and_then(|uplink| uplink.mode).map(XdpMode::as_str)
    }

    /// How XDP runs on each uplink, and why not better.
    pub fn uplinks(&self) -> Vec<UplinkXdp> {
        self.lock().installed.xdp.clone()
    }

    /// Programs that the object or the kernel does not have, and which the node does without.
    pub fn absent(&self) -> Vec<Absent> {
        self.lock().installed.absent().to_vec()
    }

    /// Drops by reason since the maps were made.
    pub fn drops(&self) -> Vec<(Reason, u64)> {
        status::drops(&self.lock().maps)
    }

    /// What happened since the last call.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    /// Use of this node's source ports, as the last pass over the flow tables found it.
    pub fn source_ports(&self) -> Vec<SourcePorts> {
        self.lock().source_ports.clone()
    }

    /// The backend that a connected socket was given, by the socket's cookie (`SO_COOKIE`).
    pub fn socket_pair(&self, cookie: u64) -> SocketPair {
        let inner = self.lock();
        let slots = &inner.maps.skslot;
        let place = (cookie % u64::from(slots.len().max(1))) as u32;
        slots.get(place).map_or(SocketPair::Unknown, |slot| sockets::pair(&slot, cookie))
    }

    /// The directory of the cgroup whose sockets are served.
    pub fn cgroup_path(&self) -> &Path {
        self.cgroup.path()
    }

    /// Deletes flows that have been idle for longer than their state allows, and lets the tables grow if they are filling up. Long: meant for
    /// a thread of its own, once the tables follow the API; [`FlowCount::pause`] says when again. Services and pods do not wait for it.
    pub fn collect_flows(&self) -> Result<FlowCount, Error> {
        let mut flows = lock(&self.flows);
        let (count, source_ports) = flows::collect(&self.pins)?;
        self.note_exhaustion(&mut flows, source_ports);
        let percent = count.fill_percent;
        if percent < growth::FULL_PERCENT {
            flows.full = false;
        } else if !self.grow(flows.limit)? && !flows.full {
            flows.full = true;
            self.lock().events.push(Event::FlowsFull { percent });
        }
        Ok(count)
    }

    /// Doubles the flow tables, up to the limit. Returns whether they grew.
    pub fn grow_flows(&self) -> Result<bool, Error> {
        let flows = lock(&self.flows);
        self.grow(flows.limit)
    }

    /// What an attempt to grow has left.
    fn left_over(&self) -> Result<LeftOver, MapsError> {
        let failed = |source| MapsError::Directory { path: self.options.bpf_dir.clone(), source };
        growth::left_over(&self.pins).map_err(failed)
    }

    /// The caller holds the lock of the flows.
    fn grow(&self, limit: u32) -> Result<bool, Error> {
        // An attempt that failed half-way goes on where it was: its next tables may have entries.
        let resumed = self.left_over()? == LeftOver::Both;
        if !resumed && !growth::make_next(&self.pins, limit)? {
            return Ok(false);
        }
        let (config, node) = {
            let inner = self.lock();
            (inner.installed.config, inner.node.clone())
        };
        let config = Config { features: config.features & !growth::FEATURES, ..config };
        let steps = |step: u32| Config { features: config.features | step, ..config };
        if let Err(error) = self.replace(steps(growth::STEPS[0]), &node, true) {
            if !resumed {
                growth::give_up(&self.pins);
            }
            return Err(error);
        }
        self.replace(steps(growth::STEPS[1]), &node, true)?;
        let copied = growth::copy(&self.pins)?;
        growth::take_over(&self.pins)?;
        self.replace(config, &node, false)?;
        let entries = growth::entries(&self.pins)?;
        tracing::info!(entries, copied, "flow tables have grown");
        self.lock().events.push(Event::FlowsGrown { entries });
        Ok(true)
    }

    fn note_exhaustion(&self, flows: &mut Flows, source_ports: Vec<SourcePorts>) {
        let mut inner = self.lock();
        let dropped = inner.maps.drops(Reason::PortsExhausted);
        let connections = dropped.saturating_sub(flows.exhausted);
        if connections > 0 {
            let busiest = source_ports.iter().max_by_key(|ports| ports.ports);
            let busiest = busiest.map(|ports| (ports.address, ports.busiest.0, ports.busiest.1));
            inner.events.push(Event::PortsExhausted { connections, busiest });
        }
        flows.exhausted = dropped;
        inner.source_ports = source_ports;
    }

    /// Numbers of frontends, pods, node addresses and pod ranges in the tables.
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let inner = self.lock();
        let (pods, addresses, ranges) = inner.routes.counts();
        (inner.services.frontends(), pods, addresses, ranges)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes on with a growth that an earlier process has begun, from its first step: entries may be in either of the tables.
fn finish_growth(
    place: &Place<'_>,
    config: Config,
    entries: BTreeMap<&'static str, u32>,
    predecessors: &[Predecessor],
) -> Result<(), Error> {
    let tables = Tables { pins: place.pins, entries, growing: true };
    // Tables of other layouts have to be complete before the first of these programs is attached, and once only.
    for (step, predecessors) in growth::STEPS.into_iter().zip([predecessors, &[]]) {
        let config = Config { features: config.features | step, ..config };
        let loaded = install::load(place, config, &tables)?;
        install::put(place, loaded, &tables, predecessors)?;
    }
    growth::copy(place.pins)?;
    Ok(growth::take_over(place.pins)?)
}

/// Entries beyond which a flow table does not grow.
fn flow_limit(options: &Options) -> u32 {
    let first = options.flow_entries.unwrap_or_else(growth::default_entries);
    options.flow_entries_limit.unwrap_or_else(|| first.saturating_mul(growth::GROWTH))
}

/// The seed of the flows that are there.
fn seed(pins: &Pins, links: &Links) -> Option<u32> {
    let path = pins.current(&CFG, &links.maps_in_use());
    let table = RawMap::open(&path).ok()?;
    let cfg = sys::MappedArray::<abi::Control>::map(table.fd(), table.info().max_entries, false).ok()?;
    cfg.get(0).map(|control| control.hash_seed).filter(|seed| *seed != 0)
}

/// Writes who uses the maps; `layout` if it is a new process.
fn stamp(maps: &Maps, config: &Config, layout: Option<u64>) {
    let mut control = maps.control();
    if let Some(layout) = layout {
        control.layout = layout;
        control.epoch = control.epoch.wrapping_add(1);
    }
    (control.hash_seed, control.features) = (config.hash_seed, config.features);
    maps.cfg.set(0, &control);
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

#[cfg(test)]
mod tests;
