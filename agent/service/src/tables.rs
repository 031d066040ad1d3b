//! `Tables`: from API events to the difference of the data plane's tables, O(changed).
//!
//! Until [`Tables::start`] events only accumulate, so a partial view is never published; `start` publishes everything at once, takes over
//! what an earlier process left ([`Learned`]) and removes the rest. From then on each event gives its own small difference.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use abi::service::flags;

use crate::ids::Ids;
use crate::object::{self, ServiceFacts, SliceFacts};
use crate::published::{Desired, PortKey, Published};
use crate::topology::{self, Endpoint, Here};
use crate::{
    Backend, BackendState, Diff, Family, Frontend, FrontendAddress, FrontendKey, HealthCheck, HostPort, ObjectKey,
    Problem,
};

/// What the tables need of a node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Number in backend rows; from 1.
    pub number: u16,
    /// status.addresses that are IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// What an earlier process left in the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Frontends with their service ids.
    pub frontends: Vec<(FrontendKey, u32)>,
    /// Services.
    pub services: Vec<LearnedService>,
    /// Service addresses ([`Diff::vips`]).
    pub vips: Vec<IpAddr>,
    /// Allowed clients: service id, base address, prefix length.
    pub source_ranges: Vec<(u32, IpAddr, u8)>,
}

/// A service row as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LearnedService {
    /// Id.
    pub id: u32,
    /// Its backends: family, index, address, port.
    pub backends: Vec<(Family, u32, IpAddr, u16)>,
    /// Cells of its two Maglev tables (cluster, local), 0 without.
    pub maglev: [u16; 2],
}

/// What the API says of one Service, and which ports of it are published.
#[derive(Debug, Default)]
struct Entry {
    facts: Option<ServiceFacts>,
    slices: BTreeMap<String, SliceFacts>,
    published: BTreeSet<PortKey>,
}

/// The state. Times are milliseconds of any monotonic clock.
#[derive(Debug)]
pub struct Tables {
    node: String,
    zone: String,
    started: bool,
    nodes: HashMap<String, u16>,
    node_addresses: BTreeSet<IpAddr>,
    entries: HashMap<ObjectKey, Entry>,
    slice_owners: HashMap<ObjectKey, ObjectKey>,
    ports: HashMap<PortKey, Published>,
    /// Who wants each frontend, in order of claim; the first has it.
    claims: HashMap<FrontendKey, Vec<(PortKey, Frontend)>>,
    service_ids: Ids,
    backend_ids: [Ids; 2],
    inherited_frontends: HashMap<FrontendKey, u32>,
    /// Ids of an earlier process that no service has taken over yet.
    inherited_ids: BTreeSet<u32>,
    inherited_backends: HashMap<(u32, IpAddr, u16), u32>,
}

impl Tables {
    /// Empty tables of the node with this name.
    pub fn new(node: impl Into<String>) -> Self {
        let backend_ids = || Ids::new(abi::limits::BACKENDS, abi::limits::QUARANTINE_MS);
        Self {
            node: node.into(),
            zone: String::new(),
            started: false,
            nodes: HashMap::new(),
            node_addresses: BTreeSet::new(),
            entries: HashMap::new(),
            slice_owners: HashMap::new(),
            ports: HashMap::new(),
            claims: HashMap::new(),
            service_ids: Ids::new(abi::limits::SERVICES, abi::limits::QUARANTINE_MS),
            backend_ids: [backend_ids(), backend_ids()],
            inherited_frontends: HashMap::new(),
            inherited_ids: BTreeSet::new(),
            inherited_backends: HashMap::new(),
        }
    }

    /// Takes over the numbers of an earlier process. Call before [`Self::start`].
    pub fn adopt(&mut self, learned: Learned) {
        for service in learned.services {
            self.service_ids.reserve(service.id);
            self.inherited_ids.insert(service.id);
            for (family, index, address, port) in service.backends {
                self.backend_ids[family as usize].reserve(index);
                self.inherited_backends.insert((service.id, address, port), index);
            }
        }
        self.inherited_frontends.extend(learned.frontends);
    }

    /// Publishes everything known so far and removes what an earlier process left and nobody claims. Call when the lists of Services and
    /// EndpointSlices are complete.
    pub fn start(&mut self, now_ms: u64) -> Diff {
        self.started = true;
        let mut keys: Vec<ObjectKey> = self.entries.keys().cloned().collect();
        keys.sort();
        let mut diff = Diff::default();
        for key in keys {
            self.recompute(&key, now_ms, &mut diff);
        }
        self.drop_inheritance(now_ms, &mut diff);
        diff
    }

    /// A Service was added or changed.
    pub fn service_applied(&mut self, service: &Service, now_ms: u64) -> Diff {
        let key = key_of(&service.metadata);
        let mut diff = Diff::default();
        let facts = object::service(&key, service, &mut diff.problems);
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.facts != facts {
            entry.facts = facts;
            self.recompute(&key, now_ms, &mut diff);
        }
        diff
    }

    /// A Service is gone.
    pub fn service_deleted(&mut self, key: &ObjectKey, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        if let Some(entry) = self.entries.get_mut(key) {
            entry.facts = None;
            self.recompute(key, now_ms, &mut diff);
        }
        diff
    }

    /// An EndpointSlice was added or changed.
    pub fn slice_applied(&mut self, slice: &EndpointSlice, now_ms: u64) -> Diff {
        let key = key_of(&slice.metadata);
        let mut diff = Diff::default();
        let owner = object::owner(slice);
        let facts = object::slice(&key, slice, &mut diff.problems);
        let (Some(owner), Some(facts)) = (owner, facts) else {
            self.slice_deleted_inner(&key, now_ms, &mut diff);
            return diff;
        };
        if self.slice_owners.get(&key).is_some_and(|previous| *previous != owner) {
            self.slice_deleted_inner(&key, now_ms, &mut diff);
        }
        self.slice_owners.insert(key.clone(), owner.clone());
        let entry = self.entries.entry(owner.clone()).or_default();
        if entry.slices.get(&key.name) != Some(&facts) {
            entry.slices.insert(key.name, facts);
            self.recompute(&owner, now_ms, &mut diff);
        }
        diff
    }

    /// An EndpointSlice is gone.
    pub fn slice_deleted(&mut self, key: &ObjectKey, now_ms: u64) -> Diff {
        let mut diff = Diff::default();
        self.slice_deleted_inner(key, now_ms, &mut diff);
        diff
    }

    /// The Services that are known, to find those that a new list no longer has.
    pub fn service_keys(&self) -> Vec<ObjectKey> {
        self.entries.iter().filter(|(_, entry)| entry.facts.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// The EndpointSlices that are known.
    pub fn slice_keys(&self) -> Vec<ObjectKey> {
        self.slice_owners.keys().cloned().collect()
    }

    /// The hostPorts of a pod of this node with a network of its own; empty when it is gone. Call for the pods that run before
    /// [`Self::start`], which removes what an earlier process left and nobody claims.
    pub fn set_host_ports(&mut self, _pod: ObjectKey, _ports: Vec<HostPort>, _now_ms: u64) -> Diff {
        Diff::default()
    }

    /// The health checks of all Services that have one.
    pub fn health_checks(&self) -> impl Iterator<Item = (&ObjectKey, HealthCheck)> {
        std::iter::empty()
    }

    /// The nodes of the cluster, and the zone of this one. Services are recomputed only if a number or an address changed.
    pub fn set_nodes(&mut self, nodes: &[NodeFacts], zone: &str, now_ms: u64) -> Diff {
        let numbers: HashMap<String, u16> =
            nodes.iter().map(|node| (node.name.clone(), node.number)).collect();
        let addresses: BTreeSet<IpAddr> =
            nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        let mut diff = Diff::default();
        if numbers == self.nodes && addresses == self.node_addresses && zone == self.zone {
            return diff;
        }
        (self.nodes, self.node_addresses, self.zone) = (numbers, addresses, zone.to_owned());
        let keys: Vec<ObjectKey> = self.entries.keys().cloned().collect();
        for key in keys {
            self.recompute(&key, now_ms, &mut diff);
        }
        diff
    }

    /// How many service ports and backends are published.
    pub fn counts(&self) -> (usize, usize) {
        (self.ports.len(), self.ports.values().map(|port| port.backends.len()).sum())
    }

    fn slice_deleted_inner(&mut self, key: &ObjectKey, now_ms: u64, diff: &mut Diff) {
        let Some(owner) = self.slice_owners.remove(key) else { return };
        if let Some(entry) = self.entries.get_mut(&owner) {
            entry.slices.remove(&key.name);
            self.recompute(&owner, now_ms, diff);
        }
    }

    /// Brings the rows of one Service in line with what is known of it.
    fn recompute(&mut self, key: &ObjectKey, now_ms: u64, diff: &mut Diff) {
        if !self.started {
            return;
        }
        let Some(entry) = self.entries.get(key) else { return };
        let desired = self.desired(key, entry);
        let old: Vec<PortKey> =
            entry.published.iter().filter(|port| !desired.contains_key(*port)).cloned().collect();
        for port in old {
            self.retire(&port, now_ms, diff);
        }
        let mut published = BTreeSet::new();
        for (port, desired) in desired {
            if self.publish(&port, desired, now_ms, diff) {
                published.insert(port);
            }
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.published = published;
            if entry.facts.is_none() && entry.slices.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    /// Publishes one service port. Returns whether it has rows.
    fn publish(&mut self, port: &PortKey, mut desired: Desired, now_ms: u64, diff: &mut Diff) -> bool {
        let problem = |field: &str, message: String| Problem {
            object: port.service.clone(),
            field: field.to_owned(),
            message,
        };
        let mut published = match self.ports.remove(port) {
            Some(published) => published,
            None => match self.id_for(&desired, now_ms) {
                Some(id) => Published::new(id),
                None => {
                    diff.problems.push(problem("spec.ports", "the service table is full".to_owned()));
                    return false;
                }
            },
        };
        let had_backends = published.row.as_ref().is_some_and(|row| !row.cluster.is_empty());
        if is_api_server(&port.service) && desired.cluster.is_empty() && had_backends {
            diff.problems.push(problem(
                "endpoints",
                "none left; the last known ones are kept for the API server's own service".to_owned(),
            ));
            keep_backends(&mut desired, &published);
        }
        let id = published.id;
        let inherited = &mut self.inherited_backends;
        let ids = &mut self.backend_ids[port.family as usize];
        let left_out = published.step(
            &desired,
            ids,
            |address, port| inherited.remove(&(id, address, port)),
            now_ms,
            diff,
        );
        if left_out > 0 {
            diff.problems
                .push(problem("endpoints", format!("the backend table is full: {left_out} left out")));
        }
        let dropped: Vec<FrontendKey> =
            published.frontends.keys().filter(|key| !desired.frontends.contains_key(key)).copied().collect();
        for frontend in dropped {
            self.unclaim(frontend, port, diff);
        }
        for (frontend, external) in &desired.frontends {
            if published.frontends.get(frontend) != Some(external)
                && let Some(holder) =
                    self.claim(*frontend, port, Frontend { service: id, external: *external, source_ranges: false, node_port: false }, diff)
            {
                diff.problems.push(problem("spec", format!("{frontend} belongs to service {holder}")));
            }
        }
        published.frontends = desired.frontends;
        self.ports.insert(port.clone(), published);
        true
    }

    /// The id that an earlier process gave to one of the frontends, or a new one. An id serves one port: whoever takes it first.
    fn id_for(&mut self, desired: &Desired, now_ms: u64) -> Option<u32> {
        let found = desired.frontends.keys().filter_map(|frontend| self.inherited_frontends.get(frontend));
        let inherited = found.copied().find(|id| self.inherited_ids.contains(id));
        match inherited {
            Some(id) => self.inherited_ids.take(&id),
            None => self.service_ids.take(now_ms),
        }
    }

    fn retire(&mut self, port: &PortKey, now_ms: u64, diff: &mut Diff) {
        let Some(published) = self.ports.remove(port) else { return };
        for frontend in published.frontends.keys() {
            self.unclaim(*frontend, port, diff);
        }
        self.service_ids.give_back(published.id, now_ms);
        published.retire(&mut self.backend_ids[port.family as usize], now_ms, diff);
    }

    /// Asks for a frontend; returns who has it if somebody else does.
    fn claim(
        &mut self,
        frontend: FrontendKey,
        port: &PortKey,
        row: Frontend,
        diff: &mut Diff,
    ) -> Option<ObjectKey> {
        let claims = self.claims.entry(frontend).or_default();
        match claims.iter_mut().find(|(owner, _)| owner == port) {
            Some((_, current)) => *current = row,
            None => claims.push((port.clone(), row)),
        }
        match claims.first() {
            Some((owner, _)) if owner != port => Some(owner.service.clone()),
            _ => {
                diff.frontends.push((frontend, Some(row)));
                None
            }
        }
    }

    /// Gives a frontend up: the next in line gets it.
    fn unclaim(&mut self, frontend: FrontendKey, port: &PortKey, diff: &mut Diff) {
        let Some(claims) = self.claims.get_mut(&frontend) else { return };
        let held = claims.first().is_some_and(|(owner, _)| owner == port);
        claims.retain(|(owner, _)| owner != port);
        let next = claims.first().map(|(_, row)| *row);
        if next.is_none() {
            self.claims.remove(&frontend);
        }
        if held {
            diff.frontends.push((frontend, next));
        }
    }

    fn drop_inheritance(&mut self, now_ms: u64, diff: &mut Diff) {
        let frontends = std::mem::take(&mut self.inherited_frontends).into_keys();
        diff.frontends.extend(
            frontends.filter(|frontend| !self.claims.contains_key(frontend)).map(|frontend| (frontend, None)),
        );
        for id in std::mem::take(&mut self.inherited_ids) {
            diff.services.push((id, None));
            self.service_ids.give_back(id, now_ms);
        }
        for ((_, address, _), index) in std::mem::take(&mut self.inherited_backends) {
            let family = Family::from(address);
            diff.backends.push((family, index, None));
            self.backend_ids[family as usize].give_back(index, now_ms);
        }
    }

    /// What the ports of a Service should look like, one for each port and family.
    fn desired(&self, key: &ObjectKey, entry: &Entry) -> BTreeMap<PortKey, Desired> {
        let mut all = BTreeMap::new();
        let Some(facts) = &entry.facts else { return all };
        let families: BTreeSet<Family> =
            facts.cluster_ips.iter().map(|address| Family::from(*address)).collect();
        for family in families {
            for port in &facts.ports {
                let endpoints = endpoints_of(entry, family, &port.name, port.protocol);
                let mut desired = self.backends(facts, &endpoints);
                desired.frontends = frontends(facts, family, port);
                let external = desired.frontends.values().any(|external| *external);
                desired.affinity_s = facts.affinity_s;
                desired.flags = [
                    (facts.internal_local, flags::INTERNAL_LOCAL),
                    (facts.external_local && external, flags::EXTERNAL_LOCAL),
                    (facts.affinity_s > 0, flags::AFFINITY),
                ]
                .into_iter()
                .filter(|(set, _)| *set)
                .fold(0, |flags, (_, bit)| flags | bit);
                let name = PortKey {
                    service: key.clone(),
                    port: port.name.clone(),
                    protocol: port.protocol,
                    family,
                };
                all.insert(name, desired);
            }
        }
        all
    }

    /// The two sets of endpoints and their rows.
    fn backends(&self, facts: &ServiceFacts, endpoints: &BTreeMap<(IpAddr, u16), Endpoint>) -> Desired {
        let here = Here { node: &self.node, zone: &self.zone };
        let endpoints: Vec<&Endpoint> = endpoints.values().collect();
        let keys = |set: &[&Endpoint]| set.iter().map(|endpoint| (endpoint.address, endpoint.port)).collect();
        let (cluster, local) = (topology::cluster(&endpoints, here), topology::local(&endpoints, here));
        let uses_local = facts.internal_local || facts.external_local;
        let mut desired = Desired { cluster: keys(&cluster), ..Desired::default() };
        if uses_local {
            desired.local = keys(&local);
        }
        let members = cluster.iter().chain(local.iter().filter(|_| uses_local));
        desired.backends =
            members.map(|endpoint| ((endpoint.address, endpoint.port), self.backend(endpoint))).collect();
        desired
    }

    fn backend(&self, endpoint: &Endpoint) -> Backend {
        let local = endpoint.node == self.node && !self.node.is_empty();
        let host = self.node_addresses.contains(&endpoint.address);
        Backend {
            address: endpoint.address,
            port: endpoint.port,
            state: if endpoint.ready { BackendState::Ready } else { BackendState::Terminating },
            node: self.nodes.get(&endpoint.node).copied().unwrap_or(0),
            local,
            host,
            weight: 1,
        }
    }
}

/// The endpoints of one service port from all slices. The same address and port twice: a ready one wins.
fn endpoints_of(
    entry: &Entry,
    family: Family,
    name: &str,
    protocol: crate::Protocol,
) -> BTreeMap<(IpAddr, u16), Endpoint> {
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in entry.slices.values().filter(|slice| slice.family == family) {
        for (_, _, port) in slice.ports.iter().filter(|(port, with, _)| port == name && *with == protocol) {
            for endpoint in &slice.endpoints {
                let endpoint = Endpoint { port: *port, ..endpoint.clone() };
                let known = found.entry((endpoint.address, *port)).or_insert_with(|| endpoint.clone());
                if endpoint.ready && !known.ready {
                    *known = endpoint;
                }
            }
        }
    }
    found
}

fn frontends(facts: &ServiceFacts, family: Family, port: &object::PortFacts) -> BTreeMap<FrontendKey, bool> {
    let key = |address, number| FrontendKey { address, port: number, protocol: port.protocol };
    let of_family = |addresses: &[IpAddr], external: bool| {
        let exact = addresses
            .iter()
            .filter(|address| Family::from(**address) == family)
            .map(|address| FrontendAddress::Exact(*address));
        exact.map(|address| (key(address, port.port), external)).collect::<Vec<_>>()
    };
    let mut all: BTreeMap<FrontendKey, bool> = of_family(&facts.external_ips, true).into_iter().collect();
    all.extend(of_family(&facts.cluster_ips, false));
    all.extend(port.node_port.map(|number| (key(FrontendAddress::NodePort(family), number), true)));
    all
}

/// Whether this is the service by which the agent itself may reach the API.
fn is_api_server(key: &ObjectKey) -> bool {
    key.namespace == "default" && key.name == "kubernetes"
}

fn keep_backends(desired: &mut Desired, published: &Published) {
    let members = |indexes: &[u32]| {
        let known = published.backends.iter().filter(|(_, (index, _))| indexes.contains(index));
        known.map(|(endpoint, _)| *endpoint).collect::<Vec<_>>()
    };
    let row = published.row.clone().unwrap_or_default();
    (desired.cluster, desired.local) = (members(&row.cluster), members(&row.local));
    desired.backends =
        published.backends.iter().map(|(endpoint, (_, backend))| (*endpoint, *backend)).collect();
}

fn key_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectKey {
    ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;
