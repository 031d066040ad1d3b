//! `Tables`: from API events to the difference of the data plane's tables, O(changed).
//!
//! Until [`Tables::start`] events only accumulate, so a partial view is never published; `start` publishes everything at once, takes over
//! what an earlier process left ([`Learned`]) and removes the rest. From then on each event gives its own small difference.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::{self, ServiceFacts};
use crate::places::{NodeFacts, Places};
use crate::published::Published;
use crate::rows::Rows;
use crate::slice::{self, SliceFacts};
use crate::topology::Candidate;
use crate::vips::Vips;
use crate::{Diff, HealthCheck, HostPort, Learned, ObjectKey, Problem, desired, host_port};

/// What the API says of one Service, and what is published of it.
#[derive(Debug, Default)]
struct Entry {
    facts: Option<Box<ServiceFacts>>,
    /// By name.
    slices: Vec<SliceFacts>,
    ports: Vec<Published>,
    addresses: Box<[IpAddr]>,
    health: Option<HealthCheck>,
}

/// A pod with host ports, and what is published of them.
#[derive(Debug, Default)]
struct Pod {
    wanted: Vec<HostPort>,
    ports: Vec<Published>,
}

/// The state. Times are milliseconds of any monotonic clock.
#[derive(Debug)]
pub struct Tables {
    started: bool,
    places: Places,
    entries: HashMap<ObjectKey, Entry>,
    /// Name of the Service of each slice, which is in the slice's namespace.
    slice_owners: HashMap<ObjectKey, Box<str>>,
    pods: BTreeMap<ObjectKey, Pod>,
    rows: Rows,
    vips: Vips,
    scratch: Vec<Candidate>,
}

impl Tables {
    /// Empty tables of the node with this name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            started: false,
            places: Places::new(node.into()),
            entries: HashMap::new(),
            slice_owners: HashMap::new(),
            pods: BTreeMap::new(),
            rows: Rows::new(),
            vips: Vips::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes over the numbers of an earlier process. Call before [`Self::start`].
    pub fn adopt(&mut self, mut learned: Learned) {
        self.vips.adopt(std::mem::take(&mut learned.vips));
        self.rows.adopt(learned);
    }

    /// Publishes everything known so far and removes what an earlier process left and nobody claims. Call when the lists of Services and
    /// EndpointSlices are complete and the pods that run have told their host ports.
    pub fn start(&mut self, now_ms: u64) -> Diff {
        self.started = true;
        let mut diff = Diff::default();
        let mut keys: Vec<ObjectKey> = self.entries.keys().cloned().collect();
        keys.sort_unstable();
        for key in keys {
            self.recompute(&key, now_ms, &mut diff);
        }
        self.recompute_pods(now_ms, &mut diff);
        self.rows.drop_inheritance(now_ms, &mut diff);
        self.vips.drop_inheritance(&mut diff);
        self.finish(diff)
    }

    /// A Service was added or changed.
    pub fn service_applied(&mut self, service: &Service, now_ms: u64) -> Diff {
        let key = key_of(&service.metadata);
        let mut diff = Diff::default();
        let facts = object::service(&key, service, &mut diff.problems);
        match self.entries.get_mut(&key) {
            Some(entry) if entry.facts.as_deref() == facts.as_ref() => return diff,
            Some(entry) => entry.facts = facts.map(Box::new),
            None if facts.is_none() => return diff,
            None => {
                let entry = Entry { facts: facts.map(Box::new), ..Entry::default() };
                self.entries.insert(key.clone(), entry);
            }
        }
        self.recompute(&key, now_ms, &mut diff);
        self.finish(diff)
    }

    /// A Service is gone.
    pub fn service_deleted(&mut self, key: &ObjectKey, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        if let Some(entry) = self.entries.get_mut(key) {
            entry.facts = None;
            self.recompute(key, now_ms, &mut diff);
        }
        self.finish(diff)
    }

    /// An EndpointSlice was added or changed.
    pub fn slice_applied(&mut self, slice: &EndpointSlice, now_ms: u64) -> Diff {
        if self.places.wants_sweep() {
            let slices = self.entries.values().flat_map(|entry| &entry.slices);
            self.places.sweep(slices.flat_map(|slice| &slice.endpoints));
        }
        let key = key_of(&slice.metadata);
        let mut diff = Diff::default();
        let facts = slice::slice(&key, slice, &mut self.places, &mut diff.problems);
        let (Some(owner), Some(facts)) = (slice::owner(slice), facts) else {
            self.remove_slice(&key, now_ms, &mut diff);
            return self.finish(diff);
        };
        match self.slice_owners.get(&key) {
            Some(known) if **known == *owner => {}
            _ => {
                self.remove_slice(&key, now_ms, &mut diff);
                self.slice_owners.insert(key.clone(), owner.into());
            }
        }
        let owner = ObjectKey::new(key.namespace, owner);
        let slices = &mut self.entries.entry(owner.clone()).or_default().slices;
        match slices.binary_search_by(|slice| slice.name.cmp(&facts.name)) {
            Ok(known) if slices[known] == facts => return self.finish(diff),
            Ok(known) => slices[known] = facts,
            Err(place) => {
                slices.reserve_exact(1);
                slices.insert(place, facts);
            }
        }
        self.recompute(&owner, now_ms, &mut diff);
        self.finish(diff)
    }

    /// An EndpointSlice is gone.
    pub fn slice_deleted(&mut self, key: &ObjectKey, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        self.remove_slice(key, now_ms, &mut diff);
        self.finish(diff)
    }

    /// The hostPorts of a pod of this node with a network of its own; empty when it is gone. Call for the pods that run before
    /// [`Self::start`], which removes what an earlier process left and nobody claims.
    pub fn set_host_ports(&mut self, pod: ObjectKey, ports: Vec<HostPort>, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        match self.pods.get_mut(&pod) {
            Some(known) if known.wanted == ports => return diff,
            Some(known) => known.wanted = ports,
            None if ports.is_empty() => return diff,
            None => drop(self.pods.insert(pod.clone(), Pod { wanted: ports, ports: Vec::new() })),
        }
        self.recompute_pod(&pod, now_ms, &mut diff);
        self.finish(diff)
    }

    /// The nodes of the cluster, and the zone of this one. Only Services with endpoints at a place that changed are recomputed.
    pub fn set_nodes(&mut self, nodes: &[NodeFacts], zone: &str, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        let moved = self.places.set_nodes(nodes, zone);
        if moved.is_empty() || !self.started {
            return diff;
        }
        self.vips.nodes_moved(&moved.addresses, &self.places, &mut diff);
        let concerned = |entry: &Entry| {
            let mut endpoints = entry.slices.iter().flat_map(|slice| &slice.endpoints);
            endpoints.any(|endpoint| moved.concerns(endpoint))
        };
        let keys = self.entries.iter().filter(|(_, entry)| concerned(entry)).map(|(key, _)| key.clone());
        for key in keys.collect::<Vec<_>>() {
            self.recompute(&key, now_ms, &mut diff);
        }
        if moved.own {
            self.recompute_pods(now_ms, &mut diff);
        }
        self.finish(diff)
    }

    /// The Services that are known, to find those that a new list no longer has.
    pub fn service_keys(&self) -> Vec<ObjectKey> {
        self.entries.iter().filter(|(_, entry)| entry.facts.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// The EndpointSlices that are known.
    pub fn slice_keys(&self) -> Vec<ObjectKey> {
        self.slice_owners.keys().cloned().collect()
    }

    /// The health checks of all Services that have one. Changes come with each [`Diff`].
    pub fn health_checks(&self) -> impl Iterator<Item = (&ObjectKey, HealthCheck)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.health?)))
    }

    /// How many service ports and backends are published.
    pub fn counts(&self) -> (usize, usize) {
        let ports = || self.ports().map(|(_, port)| port);
        (ports().count(), ports().map(Published::backends).sum())
    }

    /// What is published, with its owner.
    fn ports(&self) -> impl Iterator<Item = (&ObjectKey, &Published)> {
        let services = self.entries.iter().map(|(key, entry)| (key, &entry.ports));
        let pods = self.pods.iter().map(|(key, pod)| (key, &pod.ports));
        services.chain(pods).flat_map(|(key, ports)| ports.iter().map(move |port| (key, port)))
    }

    fn remove_slice(&mut self, key: &ObjectKey, now_ms: u64, diff: &mut Diff) {
        let Some(owner) = self.slice_owners.remove(key) else { return };
        let owner = ObjectKey::new(key.namespace.clone(), owner);
        if let Some(entry) = self.entries.get_mut(&owner) {
            entry.slices.retain(|slice| *slice.name != *key.name);
            self.recompute(&owner, now_ms, diff);
        }
    }

    /// Brings the rows of one Service in line with what is known of it.
    fn recompute(&mut self, key: &ObjectKey, now_ms: u64, diff: &mut Diff) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if self.started {
            let (mut ports, mut addresses, mut health) = (Vec::new(), Vec::new(), None);
            if let Some(facts) = &entry.facts {
                ports = desired::ports(key, facts, &entry.slices, &self.places, &mut self.scratch);
                addresses = desired::addresses(facts);
                health = facts.health_port.map(|port| HealthCheck {
                    port,
                    local_endpoints: desired::local_endpoints(&entry.slices, &self.places),
                });
            }
            self.rows.settle(key, &mut entry.ports, ports, &self.places, now_ms, diff);
            if *entry.addresses != *addresses {
                self.vips.exchange(&entry.addresses, &addresses, &self.places, diff);
                entry.addresses = addresses.into();
            }
            if entry.health != health {
                entry.health = health;
                diff.health_checks.push((key.clone(), health));
            }
        }
        if entry.facts.is_none() && entry.slices.is_empty() {
            self.entries.remove(key);
        }
    }

    fn recompute_pods(&mut self, now_ms: u64, diff: &mut Diff) {
        for pod in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.recompute_pod(&pod, now_ms, diff);
        }
    }

    fn recompute_pod(&mut self, key: &ObjectKey, now_ms: u64, diff: &mut Diff) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        if self.started {
            let ports = host_port::ports(key, &pod.wanted, &self.places, &mut diff.problems);
            self.rows.settle(key, &mut pod.ports, ports, &self.places, now_ms, diff);
        }
        if pod.wanted.is_empty() {
            self.pods.remove(key);
        }
    }

    /// Puts names to the conflicts, and leaves of the changes of one frontend the last.
    fn finish(&mut self, mut diff: Diff) -> Diff {
        if diff.frontends.len() > 1 {
            diff.frontends.reverse();
            diff.frontends.sort_by_key(|(key, _)| *key);
            diff.frontends.dedup_by_key(|(key, _)| *key);
        }
        let conflicts = std::mem::take(&mut self.rows.conflicts);
        if !conflicts.is_empty() {
            let owners: HashMap<u32, &ObjectKey> = self.ports().map(|(key, port)| (port.id, key)).collect();
            for conflict in conflicts {
                let Some(holder) = owners.get(&conflict.holder) else { continue };
                let kind = |key: &ObjectKey| if self.pods.contains_key(key) { "pod" } else { "service" };
                diff.problems.push(Problem {
                    field: "spec".to_owned(),
                    message: format!("{} belongs to {} {holder}", conflict.frontend, kind(holder)),
                    object: conflict.object,
                });
            }
        }
        diff
    }
}

fn key_of(metadata: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;
