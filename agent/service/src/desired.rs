//! From a Service and its EndpointSlices to what its ports should look like. Pure.

use std::net::IpAddr;

use abi::service::flags;

use crate::object::{PortFacts, ServiceFacts};
use crate::places::Places;
use crate::published::{Desired, Identity, Wanted};
use crate::slice::SliceFacts;
use crate::topology::{self, Candidate, Marks};
use crate::{Backend, BackendState, Family, Frontend, FrontendAddress, FrontendKey, ObjectKey, Protocol};

/// The families of a Service, IPv4 first.
pub fn families(facts: &ServiceFacts) -> impl Iterator<Item = Family> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| of_family(&facts.cluster_ips, *family).next().is_some())
}

/// What the ports of a Service should look like, one for each family and port. `scratch` is room for candidates, kept by the caller.
pub fn ports(
    key: &ObjectKey,
    facts: &ServiceFacts,
    slices: &[SliceFacts],
    places: &Places,
    scratch: &mut Vec<Candidate>,
) -> Vec<Desired> {
    let mut all = Vec::with_capacity(facts.ports.len());
    for family in families(facts) {
        let ranges = facts.source_ranges.family(family);
        for port in &facts.ports {
            let frontends = frontends(facts, family, port, ranges.is_some());
            let external_local = facts.external_local && frontends.iter().any(|(_, row)| row.external);
            // A node that gets packets handed over chooses among its own endpoints, whatever the policies say.
            let handed_over = facts.balancing.flags & flags::DSR != 0;
            let uses_local = facts.internal_local || external_local || handed_over;
            let balanced = frontends.iter().any(|(_, row)| row.source_ranges);
            gather(slices, family, port, scratch);
            topology::categorise(scratch, places.here());
            let bits = [
                (facts.internal_local, flags::INTERNAL_LOCAL),
                (external_local, flags::EXTERNAL_LOCAL),
                (facts.affinity_s > 0, flags::AFFINITY),
            ];
            all.push(Desired {
                identity: Identity { name: port.name.clone(), protocol: port.protocol, family },
                number: port.port,
                frontends,
                flags: bits
                    .iter()
                    .filter(|(set, _)| *set)
                    .fold(facts.balancing.flags, |all, (_, bit)| all | bit),
                affinity_s: facts.affinity_s,
                maglev_size: facts.balancing.maglev_size,
                ranges: ranges.clone().filter(|_| balanced).unwrap_or_default(),
                members: members(scratch, uses_local, places),
                keeps_last: is_api_server(key),
            });
        }
    }
    all
}

/// The Service's addresses as such, sorted, each once.
pub fn addresses(facts: &ServiceFacts) -> Vec<IpAddr> {
    let lists = || facts.cluster_ips.iter().chain(&facts.external_ips).chain(&facts.balancer_ips);
    let mut all: Vec<IpAddr> = families(facts)
        .flat_map(|family| lists().filter(move |address| Family::from(**address) == family))
        .copied()
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// How many endpoints on this node are ready, as upstream's health check counts: addresses, whatever their ports. A pod with addresses
/// of both families is one.
pub fn local_endpoints(slices: &[SliceFacts], places: &Places) -> u32 {
    let here = places.here();
    let count = |family| {
        let endpoints =
            slices.iter().filter(|slice| slice.family == family).flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|endpoint| here.owns(endpoint) && endpoint.marks.has(Marks::READY));
        let mut addresses: Vec<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.len() as u32
    };
    count(Family::V4).max(count(Family::V6))
}

/// Fills `found` with the endpoints of one service port from all slices, by address and port. The same twice: a ready one wins, then the
/// one of the first slice.
fn gather(slices: &[SliceFacts], family: Family, port: &PortFacts, found: &mut Vec<Candidate>) {
    found.clear();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let ports = slice.ports.iter();
        for target in ports.filter(|target| target.name == port.name && target.protocol == port.protocol) {
            let candidate = |endpoint: &topology::Endpoint| Candidate {
                endpoint: *endpoint,
                port: target.port,
                weight: slice.weight,
                cluster: false,
                local: false,
            };
            found.extend(slice.endpoints.iter().map(candidate));
        }
    }
    let place = |candidate: &Candidate| (candidate.endpoint.address, candidate.port);
    found.sort_by_key(|candidate| (place(candidate), !candidate.endpoint.marks.has(Marks::READY)));
    found.dedup_by_key(|candidate| place(candidate));
}

/// The candidates that are in a set, as rows. Without a Local policy or direct server return there is no local set.
fn members(candidates: &[Candidate], uses_local: bool, places: &Places) -> Vec<Wanted> {
    let wanted = |candidate: &Candidate| {
        let local = candidate.local && uses_local;
        (candidate.cluster || local).then(|| Wanted {
            backend: backend(candidate, places),
            cluster: candidate.cluster,
            local,
        })
    };
    let mut members = Vec::with_capacity(candidates.len());
    members.extend(candidates.iter().filter_map(wanted));
    members
}

fn backend(candidate: &Candidate, places: &Places) -> Backend {
    let endpoint = &candidate.endpoint;
    let ready = endpoint.marks.has(Marks::READY);
    Backend {
        address: endpoint.address,
        port: candidate.port,
        state: if ready { BackendState::Ready } else { BackendState::Terminating },
        node: places.row_number(endpoint.node),
        local: places.here().owns(endpoint),
        host: places.is_node_address(&endpoint.address),
        weight: candidate.weight,
    }
}

/// Backends of an earlier process of which nothing is known but where they are, as members of the cluster set.
pub fn remembered(endpoints: impl Iterator<Item = (IpAddr, u16)>, places: &Places) -> Vec<Wanted> {
    let backend = |(address, port)| Backend {
        address,
        port,
        state: BackendState::Ready,
        node: 0,
        local: places.is_own_address(&address),
        host: places.is_node_address(&address),
        weight: 1,
    };
    let mut members: Vec<Wanted> = endpoints
        .map(|endpoint| Wanted { backend: backend(endpoint), cluster: true, local: false })
        .collect();
    members.sort_unstable_by_key(|wanted| (wanted.backend.address, wanted.backend.port));
    members
}

/// The frontends of one port. An address that is listed twice counts as what upstream's rules look at first: cluster IP, then external
/// IP, then load balancer.
fn frontends(
    facts: &ServiceFacts,
    family: Family,
    port: &PortFacts,
    restricted: bool,
) -> Vec<(FrontendKey, Frontend)> {
    let row = Frontend { service: 0, external: true, source_ranges: false, node_port: false };
    let kinds = [
        (&facts.cluster_ips, Frontend { external: false, ..row }),
        (&facts.external_ips, row),
        (&facts.balancer_ips, Frontend { source_ranges: restricted, ..row }),
    ];
    let mut all = Vec::with_capacity(2);
    for (addresses, row) in kinds {
        let addresses = of_family(addresses, family).map(FrontendAddress::Exact);
        all.extend(addresses.map(|address| (key(address, port.port, port.protocol), row)));
    }
    if let Some(number) = port.node_port {
        let row = Frontend { node_port: true, ..row };
        all.push((key(FrontendAddress::NodePort(family), number, port.protocol), row));
    }
    all.sort_by_key(|(key, _)| *key);
    all.dedup_by_key(|(key, _)| *key);
    all
}

fn key(address: FrontendAddress, port: u16, protocol: Protocol) -> FrontendKey {
    FrontendKey { address, port, protocol }
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> {
    addresses.iter().copied().filter(move |address| Family::from(*address) == family)
}

/// Whether this is the service by which the agent itself may reach the API.
fn is_api_server(key: &ObjectKey) -> bool {
    key.namespace == "default" && key.name == "kubernetes"
}
