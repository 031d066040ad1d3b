//! The data plane follows the cluster: Services, EndpointSlices and Nodes by watches, pods of this node by the kubelet, each event applied as
//! it comes. What an event means is decided in [`crate::view`]; here it is read, and written.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::{Dataplane, NodeAddresses, NodePortAddresses};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use network::routes::{NodeRoute, desired};
use network::{Cidr, device};
use service::{Diff, HostPort, Learned, ObjectKey};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::dead_sockets::DeadSockets;
use crate::health_checks::HealthChecks;
use crate::node::NodeFacts;
use crate::pods::pair;
use crate::progress::Progress;
use crate::segment::Segment;
use crate::view::{Changes, View};

/// Annotation by which the EndpointSlice controller says when the change happened.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Services of a list that are read at a time. A whole page is in memory at once.
const SERVICES_PAGE: u32 = 500;
/// EndpointSlices of a list that are read at a time: each can hold a hundred endpoints.
const SLICES_PAGE: u32 = 200;
/// Nodes of a list that are read at a time: most of a Node are the names of its images.
const NODES_PAGE: u32 = 100;
/// Events that are decoded and not yet taken: enough that a next page is asked for while one is taken, few enough to be held.
const EVENTS_AHEAD: usize = 128;
/// How long the first publication waits for the kubelet to say which pods run: it may itself wait for containerd.
const PODS_PATIENCE: Duration = Duration::from_secs(10);

/// What the kubelet's side tells.
#[derive(Debug)]
pub enum FromPods {
    /// The hostPorts of a pod; none when it is gone.
    HostPorts(ObjectKey, Vec<HostPort>),
    /// All pods that run were told.
    Complete,
    /// This node's pod ranges changed.
    Ranges,
}

/// Follows the cluster.
pub struct Cluster {
    /// This node's name.
    pub node_name: String,
    /// This node's addresses from the command line.
    pub node_ips: Vec<IpAddr>,
    /// Indexes of the devices whose addresses are this node's.
    pub uplinks: Vec<u32>,
    /// Where node ports are served.
    pub node_ports: NodePortAddresses,
    /// Tables and programs.
    pub dataplane: Arc<Dataplane>,
    /// Routes, neighbours and tunnels.
    pub segment: Box<dyn Segment>,
    /// For health and metrics.
    pub progress: Arc<Progress>,
    /// From the kubelet; `None` in a role without one.
    pub pods: Option<UnboundedReceiver<FromPods>>,
    /// Servers of healthCheckNodePorts.
    pub checks: HealthChecks,
    /// Ends sockets of UDP backends that go.
    pub dead_sockets: DeadSockets,
}

impl Cluster {
    /// Follows until the process ends.
    pub async fn follow(mut self, client: Client, learned: Learned) {
        let begun = Instant::now();
        let mut view = View::new(&self.node_name, learned, self.pods.is_some());
        let mut services = pin!(events::<Service>(client.clone(), SERVICES_PAGE, |_| {}));
        let mut slices = pin!(events::<EndpointSlice>(client.clone(), SLICES_PAGE, |_| {}));
        let mut nodes = pin!(node_events(client));
        let mut patience = pin!(tokio::time::sleep(PODS_PATIENCE));
        let mut patient = self.pods.is_some();
        // Without a kubelet a channel that is closed: its branch below never fires.
        let mut pods = self.pods.take().unwrap_or_else(|| tokio::sync::mpsc::unbounded_channel().1);
        loop {
            tokio::select! {
                Some(event) = services.next() => self.service(&mut view, event),
                Some(event) = slices.next() => self.slice(&mut view, event),
                Some(event) = nodes.next() => {
                    self.own_node(&event);
                    let changes = view.node(event);
                    self.apply(Instant::now(), &mut view, changes);
                }
                Some(event) = pods.recv() => self.pod(&mut view, event),
                () = &mut patience, if patient => {
                    patient = false;
                    view.host_ports_complete();
                }
                else => break,
            }
            if view.can_start() {
                self.publish_nodes(&mut view);
                let diff = view.start(self.dataplane.now_ms());
                self.write(Instant::now(), diff);
                self.dataplane.forget_old_layouts();
                let (ports, backends) = view.counts();
                self.progress.full_sync.observe(begun.elapsed().as_secs_f64());
                tracing::info!(ports, backends, took = ?begun.elapsed(), "service tables follow the API");
                self.progress.synced();
            }
        }
    }

    fn service(&mut self, view: &mut View, event: watcher::Event<Service>) {
        let begun = Instant::now();
        self.progress.service_changes.count();
        let changes = view.service(event, self.dataplane.now_ms());
        self.apply(begun, view, changes);
    }

    fn slice(&mut self, view: &mut View, event: watcher::Event<EndpointSlice>) {
        let begun = Instant::now();
        self.progress.endpoint_changes.count();
        let trigger = match &event {
            watcher::Event::Apply(slice) => trigger(slice),
            _ => None,
        };
        let changes = view.slice(event, self.dataplane.now_ms());
        let changed = changes.diffs.iter().any(|diff| !diff.is_empty());
        self.apply(begun, view, changes);
        if let Some(trigger) = trigger.filter(|_| changed) {
            self.progress.programmed(trigger);
        }
    }

    fn own_node(&self, event: &watcher::Event<Node>) {
        if let watcher::Event::InitApply(node) | watcher::Event::Apply(node) = event
            && node.name_any() == self.node_name
        {
            self.progress.eligible(!NodeFacts::from(node).leaving);
        }
    }

    fn pod(&mut self, view: &mut View, event: FromPods) {
        match event {
            FromPods::HostPorts(pod, ports) => {
                let diff = view.host_ports(pod, ports, self.dataplane.now_ms());
                self.write(Instant::now(), diff);
            }
            FromPods::Complete => view.host_ports_complete(),
            FromPods::Ranges => self.publish_nodes(view),
        }
    }

    fn apply(&mut self, begun: Instant, view: &mut View, changes: Changes) {
        for diff in changes.diffs {
            self.write(begun, diff);
        }
        if changes.nodes {
            self.publish_nodes(view);
        }
    }

    /// Nodes go to all that need them: service tables (locality), delivery tables, kernel routes, neighbours, tunnels.
    fn publish_nodes(&mut self, view: &mut View) {
        if !view.has_nodes() {
            return;
        }
        let mut facts = Vec::new();
        let mut rows = Vec::new();
        let mut routes = Vec::new();
        for (name, (number, node)) in view.nodes() {
            let local = *name == self.node_name;
            let mut addresses = node.addresses.clone();
            if local {
                addresses.extend(self.own_addresses());
                addresses.sort();
                addresses.dedup();
            }
            let tunnel = if local { None } else { self.segment.tunnel_to(&addresses) };
            let pod_cidrs = self.segment.pod_ranges(&node.pod_cidrs);
            routes.push(NodeRoute {
                name: name.clone(),
                addresses: addresses.clone(),
                pod_cidrs: pod_cidrs.to_vec(),
                tunnel: tunnel.map(|tunnel| tunnel.to),
            });
            facts.push(service::NodeFacts {
                name: name.clone(),
                number: *number,
                addresses: addresses.clone(),
            });
            let pod_cidrs = pod_cidrs.iter().map(pair).collect();
            rows.push(NodeAddresses { number: *number, local, addresses, pod_cidrs, tunnel });
        }
        if !view.nodes().contains_key(&self.node_name) {
            let addresses = self.own_addresses();
            rows.push(NodeAddresses { local: true, addresses, ..NodeAddresses::default() });
        }
        if let Err(error) = self.dataplane.set_nodes(&rows) {
            tracing::error!(%error, "delivery tables");
        }
        let zone = view.nodes().get(&self.node_name).map(|(_, node)| node.zone.clone()).unwrap_or_default();
        let diff = view.set_nodes(&facts, &zone, self.dataplane.now_ms());
        self.write(Instant::now(), diff);
        self.segment.follow(&desired(&self.node_name, &routes), &self.dataplane.wanted_neighbours());
    }

    /// Addresses of this node: those it was started with, those of its uplinks, and those that node ports are asked for.
    fn own_addresses(&self) -> Vec<IpAddr> {
        let mut own = self.node_ips.clone();
        let all = device::addresses().inspect_err(|error| tracing::warn!(%error, "addresses of the node"));
        let all = all.unwrap_or_default().into_iter();
        own.extend(all.filter(|found| self.is_own(*found)).map(|(_, address)| address));
        own
    }

    fn is_own(&self, (device, address): (u32, IpAddr)) -> bool {
        let asked = match &self.node_ports {
            NodePortAddresses::Ranges(ranges) => ranges
                .iter()
                .any(|(base, prefix)| Cidr::new(*base, *prefix).is_ok_and(|range| range.contains(address))),
            _ => false,
        };
        asked || self.uplinks.contains(&device)
    }

    /// Writes a difference of the service tables, and what follows from it outside of them. Sockets last: who connects again must find
    /// the new tables.
    fn write(&mut self, begun: Instant, mut diff: Diff) {
        for problem in &diff.problems {
            tracing::warn!(%problem, "left out");
        }
        if !self.segment.delivers_to_pods() {
            through_the_stack(&mut diff);
        }
        if !diff.is_empty() {
            match self.dataplane.apply(&diff) {
                Ok(()) => self.progress.applied(begun.elapsed()),
                Err(error) => {
                    tracing::error!(%error, "service tables");
                    self.progress.failed();
                }
            }
        }
        for (service, check) in &diff.health_checks {
            self.checks.set(service, *check);
        }
        self.dead_sockets.gone(std::mem::take(&mut diff.gone_udp));
    }
}

/// Backends on this node count as host processes: translated packets are left to the stack, which knows the way, and clients keep their
/// addresses, since the answers come back by the stack, too.
fn through_the_stack(diff: &mut Diff) {
    let rows = diff.backends.iter_mut().filter_map(|(_, _, row)| row.as_mut());
    rows.filter(|row| row.local).for_each(|row| row.host = true);
}

/// Watch events without end, lists in pages of so many objects, each object made smaller by `trim` at once; failures are waited out and
/// logged. Each kind is read and decoded by a task of its own, a little ahead of whoever takes the events: first lists are long. The task
/// ends with the first event after the stream is dropped.
fn events<K>(client: Client, page: u32, trim: fn(&mut K)) -> impl Stream<Item = watcher::Event<K>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let config = watcher::Config::default().page_size(page);
    let stream = watcher(Api::<K>::all(client), config).backoff(runtime::Pauses::default()).modify(trim);
    let stream = stream.filter_map(|event| async {
        event.inspect_err(|error| tracing::warn!(%error, kind = %K::kind(&()), "watch interrupted; tables stay as they are")).ok()
    });
    let (sender, receiver) = futures::channel::mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(stream.map(Ok).forward(sender));
    receiver
}

/// Events of Nodes, without end.
pub fn node_events(client: Client) -> impl Stream<Item = watcher::Event<Node>> {
    events::<Node>(client, NODES_PAGE, without_images)
}

/// Nothing here asks for the names of images.
fn without_images(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

/// When the change of a pod or service happened that this version of the slice reflects.
fn trigger(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    slice.annotations().get(TRIGGER_ANNOTATION)?.parse().ok()
}

#[cfg(test)]
mod tests;
