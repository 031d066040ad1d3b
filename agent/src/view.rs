//! What the agent knows of the cluster, and what of it changes in the tables with each event. Pure: no I/O, no clock.
//!
//! Events only accumulate until the first lists of all kinds are complete (and the pods of an earlier agent are known); then everything is
//! published at once and what an earlier agent left is removed. A list that is read again removes at its end what it no longer names, and
//! nothing before. Objects are not kept: `service::Tables` keeps what it needs of them.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use service::{Diff, HostPort, Learned, ObjectKey, Tables};

use crate::node::NodeFacts;

/// What an event changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Differences of the service tables, in order.
    pub diffs: Vec<Diff>,
    /// The network of some node changed.
    pub nodes: bool,
}

impl From<Diff> for Changes {
    fn from(diff: Diff) -> Self {
        Self { diffs: vec![diff], nodes: false }
    }
}

/// One kind's list: what it named since it began, and whether it was ever complete.
#[derive(Default)]
struct Listing {
    seen: HashSet<ObjectKey>,
    complete: bool,
}

impl Listing {
    /// An object of the list, or of the watch after it. Only a list's are remembered, and only until it ends.
    fn see<K: ResourceExt>(&mut self, object: &K) {
        self.seen.insert(key(object));
    }

    /// The list is at its end: which of the objects `known` it did not name.
    fn finish(&mut self, known: Vec<ObjectKey>) -> Vec<ObjectKey> {
        self.complete = true;
        let seen = std::mem::take(&mut self.seen);
        known.into_iter().filter(|key| !seen.contains(key)).collect()
    }
}

/// The view.
pub struct View {
    tables: Tables,
    started: bool,
    services: Listing,
    slices: Listing,
    node_list: Listing,
    /// The hostPorts of all pods that run are known.
    host_ports_complete: bool,
    /// Nodes by name, each with its number.
    nodes: BTreeMap<String, (u16, NodeFacts)>,
}

impl View {
    /// Knows nothing of the cluster yet, and of the tables what an earlier process left. With `pods`, publishing waits for
    /// [`Self::host_ports_complete`].
    pub fn new(node_name: &str, learned: Learned, pods: bool) -> Self {
        let mut tables = Tables::new(node_name);
        tables.adopt(learned);
        Self {
            tables,
            started: false,
            services: Listing::default(),
            slices: Listing::default(),
            node_list: Listing::default(),
            host_ports_complete: !pods,
            nodes: BTreeMap::new(),
        }
    }

    /// Whether the lists are complete and nothing has been published yet: call [`Self::publish_nodes`] and [`Self::start`].
    pub fn can_start(&self) -> bool {
        let lists = self.services.complete && self.slices.complete && self.node_list.complete;
        lists && self.host_ports_complete && !self.started
    }

    /// Publishes everything and removes what nobody claims.
    pub fn start(&mut self, now_ms: u64) -> Diff {
        self.started = true;
        self.tables.start(now_ms)
    }

    /// Something happened to a Service.
    pub fn service(&mut self, event: Event<Service>, now_ms: u64) -> Changes {
        match event {
            Event::Init => {
                self.services.seen.clear();
                Changes::default()
            }
            Event::InitApply(service) => {
                self.services.see(&service);
                self.tables.service_applied(&service, now_ms).into()
            }
            Event::Apply(service) => self.tables.service_applied(&service, now_ms).into(),
            Event::Delete(service) => self.tables.service_deleted(&key(&service), now_ms).into(),
            Event::InitDone => {
                let gone = self.services.finish(self.tables.service_keys());
                let diffs = gone.iter().map(|key| self.tables.service_deleted(key, now_ms)).collect();
                Changes { diffs, nodes: false }
            }
        }
    }

    /// Something happened to an EndpointSlice.
    pub fn slice(&mut self, event: Event<EndpointSlice>, now_ms: u64) -> Changes {
        match event {
            Event::Init => {
                self.slices.seen.clear();
                Changes::default()
            }
            Event::InitApply(slice) => {
                self.slices.see(&slice);
                self.tables.slice_applied(&slice, now_ms).into()
            }
            Event::Apply(slice) => self.tables.slice_applied(&slice, now_ms).into(),
            Event::Delete(slice) => self.tables.slice_deleted(&key(&slice), now_ms).into(),
            Event::InitDone => {
                let gone = self.slices.finish(self.tables.slice_keys());
                let diffs = gone.iter().map(|key| self.tables.slice_deleted(key, now_ms)).collect();
                Changes { diffs, nodes: false }
            }
        }
    }

    /// Something happened to a Node.
    pub fn node(&mut self, event: Event<Node>) -> Changes {
        let changed = match event {
            Event::Init => {
                self.node_list.seen.clear();
                false
            }
            Event::InitApply(node) => {
                self.node_list.see(&node);
                self.node_applied(&node)
            }
            Event::Apply(node) => self.node_applied(&node),
            Event::Delete(node) => self.nodes.remove(&node.name_any()).is_some(),
            Event::InitDone => {
                let known = self.nodes.keys().map(|name| ObjectKey::new("", name)).collect();
                for gone in self.node_list.finish(known) {
                    self.nodes.remove(&gone.name);
                }
                true
            }
        };
        Changes { diffs: Vec::new(), nodes: changed && self.node_list.complete }
    }

    fn node_applied(&mut self, node: &Node) -> bool {
        let (name, facts) = (node.name_any(), NodeFacts::from(node));
        if self.nodes.get(&name).is_some_and(|(_, known)| *known == facts) {
            return false;
        }
        let number = self.nodes.get(&name).map_or_else(|| free_number(&self.nodes), |(number, _)| *number);
        self.nodes.insert(name, (number, facts));
        true
    }

    /// Whether the Nodes were listed.
    pub fn has_nodes(&self) -> bool {
        self.node_list.complete
    }

    /// The nodes by name, each with its number.
    pub fn nodes(&self) -> &BTreeMap<String, (u16, NodeFacts)> {
        &self.nodes
    }

    /// Tells the service tables about nodes as they are published: with all addresses that this node has.
    pub fn set_nodes(&mut self, nodes: &[service::NodeFacts], zone: &str, now_ms: u64) -> Diff {
        self.tables.set_nodes(nodes, zone, now_ms)
    }

    /// The hostPorts of a pod of this node; none when it is gone.
    pub fn host_ports(&mut self, pod: ObjectKey, ports: Vec<HostPort>, now_ms: u64) -> Diff {
        self.tables.set_host_ports(pod, ports, now_ms)
    }

    /// The hostPorts of all pods that run were told.
    pub fn host_ports_complete(&mut self) {
        self.host_ports_complete = true;
    }

    /// How many service ports and backends are published.
    pub fn counts(&self) -> (usize, usize) {
        self.tables.counts()
    }
}

fn key<K: ResourceExt>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// The smallest number from 1 that no node has.
fn free_number(nodes: &BTreeMap<String, (u16, NodeFacts)>) -> u16 {
    let used: HashSet<u16> = nodes.values().map(|(number, _)| *number).collect();
    (1..u16::MAX).find(|number| !used.contains(number)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
