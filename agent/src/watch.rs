//! The data plane's view of the cluster: Services, EndpointSlices and Nodes followed by watches, each event applied as it comes.
//!
//! Events only accumulate until the first lists of all three kinds are complete; then everything is published at once and what an earlier
//! agent left is removed. Nothing is cached beyond what `service::Tables` keeps.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use datapath::{Dataplane, NodeAddresses};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use network::Cidr;
use network::routes::{NodeRoute, Via, desired};
use service::{Diff, Learned, NodeFacts, ObjectKey, Tables};
use tokio::sync::Notify;

use crate::health::Progress;
use crate::pods::pair;

/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Annotation by which the EndpointSlice controller says when the change happened.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Taint by which an autoscaler says that it is about to remove a node (KEP-3836).
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// What is done about the nodes of the cluster besides tables: kernel routes and neighbours.
pub trait Segment: Send {
    /// Makes the kernel's routes to other nodes' pods equal to `routes`, and keeps these neighbours resolved.
    fn follow(&mut self, routes: &BTreeMap<Cidr, Via>, neighbours: &[IpAddr]);
}

/// Leaves routing to somebody else's network (role `proxy`).
pub struct ForeignNetwork;

impl Segment for ForeignNetwork {
    fn follow(&mut self, _: &BTreeMap<Cidr, Via>, _: &[IpAddr]) {}
}

/// Follows the cluster.
pub struct Cluster {
    /// This node's name.
    pub node_name: String,
    /// This node's addresses from the command line.
    pub node_ips: Vec<IpAddr>,
    /// Tables and programs.
    pub dataplane: Arc<Dataplane>,
    /// Routes and neighbours.
    pub segment: Box<dyn Segment>,
    /// For health and metrics.
    pub progress: Arc<Progress>,
    /// Tells that this node's ranges changed.
    pub ranges_changed: Arc<Notify>,
}

/// One kind's list: what it named since it began, and whether it was ever complete.
#[derive(Default)]
struct Listing {
    seen: HashSet<ObjectKey>,
    complete: bool,
}

struct State {
    tables: Tables,
    started: bool,
    services: Listing,
    slices: Listing,
    node_list: Listing,
    nodes: BTreeMap<String, (u16, Node)>,
}

impl Cluster {
    /// Follows until the process ends.
    pub async fn follow(mut self, client: Client, learned: Learned) {
        let mut tables = Tables::new(self.node_name.clone());
        tables.adopt(learned);
        let mut state = State {
            tables,
            started: false,
            services: Listing::default(),
            slices: Listing::default(),
            node_list: Listing::default(),
            nodes: BTreeMap::new(),
        };
        let mut services = pin!(events::<Service>(client.clone()));
        let mut slices = pin!(events::<EndpointSlice>(client.clone()));
        let mut nodes = pin!(events::<Node>(client));
        let ranges_changed = Arc::clone(&self.ranges_changed);
        loop {
            tokio::select! {
                Some(event) = services.next() => self.service(&mut state, event),
                Some(event) = slices.next() => self.slice(&mut state, event),
                Some(event) = nodes.next() => self.node(&mut state, event),
                () = ranges_changed.notified() => self.publish_nodes(&mut state),
                else => return,
            }
            let complete = state.services.complete && state.slices.complete && state.node_list.complete;
            if complete && !state.started {
                state.started = true;
                self.publish_nodes(&mut state);
                let diff = state.tables.start(self.dataplane.now_ms());
                self.apply(Instant::now(), diff);
                self.dataplane.forget_old_layouts();
                let (ports, backends) = state.tables.counts();
                tracing::info!(ports, backends, "service tables follow the API");
                self.progress.synced();
            }
        }
    }

    fn service(&mut self, state: &mut State, event: watcher::Event<Service>) {
        let (begun, now) = (Instant::now(), self.dataplane.now_ms());
        self.progress.service_change();
        let diff = match event {
            watcher::Event::Init => return state.services.seen.clear(),
            watcher::Event::InitApply(service) | watcher::Event::Apply(service) => {
                state.services.seen.insert(key(&service));
                state.tables.service_applied(&service, now)
            }
            watcher::Event::Delete(service) => state.tables.service_deleted(&key(&service), now),
            watcher::Event::InitDone => {
                state.services.complete = true;
                let gone = state
                    .tables
                    .service_keys()
                    .into_iter()
                    .filter(|key| !state.services.seen.contains(key))
                    .collect::<Vec<_>>();
                gone.iter().for_each(|key| self.apply(begun, state.tables.service_deleted(key, now)));
                return;
            }
        };
        self.apply(begun, diff);
    }

    fn slice(&mut self, state: &mut State, event: watcher::Event<EndpointSlice>) {
        let (begun, now) = (Instant::now(), self.dataplane.now_ms());
        self.progress.endpoint_change();
        let diff = match event {
            watcher::Event::Init => return state.slices.seen.clear(),
            watcher::Event::InitApply(slice) => {
                state.slices.seen.insert(key(&slice));
                state.tables.slice_applied(&slice, now)
            }
            watcher::Event::Apply(slice) => {
                let diff = state.tables.slice_applied(&slice, now);
                let changed = !diff.is_empty();
                self.apply(begun, diff);
                if let Some(trigger) = trigger(&slice).filter(|_| changed) {
                    self.progress.programmed(trigger);
                }
                return;
            }
            watcher::Event::Delete(slice) => state.tables.slice_deleted(&key(&slice), now),
            watcher::Event::InitDone => {
                state.slices.complete = true;
                let gone = state
                    .tables
                    .slice_keys()
                    .into_iter()
                    .filter(|key| !state.slices.seen.contains(key))
                    .collect::<Vec<_>>();
                gone.iter().for_each(|key| self.apply(begun, state.tables.slice_deleted(key, now)));
                return;
            }
        };
        self.apply(begun, diff);
    }

    fn node(&mut self, state: &mut State, event: watcher::Event<Node>) {
        match event {
            watcher::Event::Init => return state.node_list.seen.clear(),
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => {
                let name = node.name_any();
                state.node_list.seen.insert(key(&node));
                if name == self.node_name {
                    self.progress.eligible(!leaving(&node));
                }
                let known = state.nodes.get(&name);
                let unchanged = known.is_some_and(|(_, known)| same_network(known, &node));
                let number = known.map_or_else(|| free_number(&state.nodes), |(number, _)| *number);
                state.nodes.insert(name, (number, node));
                if unchanged {
                    return;
                }
            }
            watcher::Event::Delete(node) => drop(state.nodes.remove(&node.name_any())),
            watcher::Event::InitDone => {
                state.node_list.complete = true;
                state.nodes.retain(|name, _| state.node_list.seen.contains(&ObjectKey::new("", name)));
            }
        }
        self.publish_nodes(state);
    }

    /// Nodes go to all that need them: service tables (locality), delivery tables, kernel routes, neighbours.
    fn publish_nodes(&mut self, state: &mut State) {
        if !state.node_list.complete {
            return;
        }
        let mut facts = Vec::new();
        let mut rows = Vec::new();
        let mut routes = Vec::new();
        for (name, (number, node)) in &state.nodes {
            let local = *name == self.node_name;
            let mut addresses = addresses(node);
            if local {
                addresses.extend(&self.node_ips);
                addresses.sort();
                addresses.dedup();
            }
            let pod_cidrs = pod_cidrs(node);
            facts.push(NodeFacts { name: name.clone(), number: *number, addresses: addresses.clone() });
            routes.push(NodeRoute {
                name: name.clone(),
                addresses: addresses.clone(),
                pod_cidrs: pod_cidrs.clone(),
                tunnel: None,
            });
            rows.push(NodeAddresses {
                number: *number,
                local,
                addresses,
                pod_cidrs: pod_cidrs.iter().map(pair).collect(),
                tunnel: None,
            });
        }
        if !state.nodes.contains_key(&self.node_name) {
            rows.push(NodeAddresses {
                number: 0,
                local: true,
                addresses: self.node_ips.clone(),
                pod_cidrs: Vec::new(),
                tunnel: None,
            });
        }
        if let Err(error) = self.dataplane.set_nodes(&rows) {
            tracing::error!(%error, "delivery tables");
        }
        let zone = state
            .nodes
            .get(&self.node_name)
            .and_then(|(_, node)| node.labels().get(ZONE_LABEL))
            .cloned()
            .unwrap_or_default();
        let diff = state.tables.set_nodes(&facts, &zone, self.dataplane.now_ms());
        self.apply(Instant::now(), diff);
        self.segment.follow(&desired(&self.node_name, &routes), &self.dataplane.wanted_neighbours());
    }

    fn apply(&self, begun: Instant, diff: Diff) {
        for problem in &diff.problems {
            tracing::warn!(%problem, "left out");
        }
        if diff.is_empty() {
            return;
        }
        match self.dataplane.apply(&diff) {
            Ok(()) => self.progress.applied(begun.elapsed()),
            Err(error) => {
                tracing::error!(%error, "service tables");
                self.progress.failed();
            }
        }
    }
}

/// Watch events without end; failures are waited out and logged.
fn events<K>(client: Client) -> impl Stream<Item = watcher::Event<K>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let stream =
        watcher(Api::<K>::all(client), watcher::Config::default()).backoff(runtime::Pauses::default());
    stream.filter_map(|event| async {
        event.inspect_err(|error| tracing::warn!(%error, kind = %K::kind(&()), "watch interrupted; tables stay as they are")).ok()
    })
}

fn key<K: ResourceExt>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// When the change of a pod or service happened that this version of the slice reflects.
fn trigger(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    slice.annotations().get(TRIGGER_ANNOTATION)?.parse().ok()
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let usable = all.filter(|address| address.type_ == "InternalIP" || address.type_ == "ExternalIP");
    usable.filter_map(|address| address.address.parse().ok()).collect()
}

fn pod_cidrs(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    spec.into_iter()
        .flat_map(|spec| spec.pod_cidrs.iter().flatten())
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// Whether two versions of a node mean the same for the network. Heartbeats change nodes all the time.
fn same_network(one: &Node, other: &Node) -> bool {
    addresses(one) == addresses(other)
        && pod_cidrs(one) == pod_cidrs(other)
        && one.labels().get(ZONE_LABEL) == other.labels().get(ZONE_LABEL)
}

fn leaving(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == DELETION_TAINT)
}

/// The smallest number from 1 that no node has.
fn free_number(nodes: &BTreeMap<String, (u16, Node)>) -> u16 {
    let used: HashSet<u16> = nodes.values().map(|(number, _)| *number).collect();
    (1..u16::MAX).find(|number| !used.contains(number)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(json: serde_json::Value) -> Node {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_heartbeat_is_no_change_of_the_network_and_an_address_is() {
        let with = |address: &str, heartbeat: &str| {
            node(serde_json::json!({
                "metadata": {"name": "n", "labels": {ZONE_LABEL: "a"}},
                "spec": {"podCIDRs": ["10.244.1.0/24"]},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "n"}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}]
                }
            }))
        };
        let first = with("172.30.0.11", "2026-01-01T00:00:00Z");
        assert!(same_network(&first, &with("172.30.0.11", "2026-01-01T00:00:10Z")));
        assert!(!same_network(&first, &with("172.30.0.12", "2026-01-01T00:00:00Z")));
        assert_eq!(addresses(&first), ["172.30.0.11".parse::<IpAddr>().unwrap()]);
        assert_eq!(pod_cidrs(&first), ["10.244.1.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_that_is_about_to_go_is_told_by_taint_or_deletion() {
        let tainted =
            serde_json::json!({"spec": {"taints": [{"key": DELETION_TAINT, "effect": "NoSchedule"}]}});
        let deleted = serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        for (json, expected) in [(serde_json::json!({}), false), (tainted, true), (deleted, true)] {
            assert_eq!(leaving(&node(json)), expected);
        }
    }

    #[test]
    fn node_numbers_are_the_smallest_free_ones() {
        let nodes = |numbers: &[u16]| {
            numbers
                .iter()
                .map(|number| (number.to_string(), (*number, Node::default())))
                .collect::<BTreeMap<_, _>>()
        };
        for (used, expected) in [(&[][..], 1), (&[1, 2], 3), (&[1, 3], 2)] {
            assert_eq!(free_number(&nodes(used)), expected);
        }
    }
}
