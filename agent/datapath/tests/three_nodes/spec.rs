//! What must become of a question, by the rules of Kubernetes' Services: said again here, from the outside, without a look at tables.
//!
//! - From inside (pods, nodes) every address but another node's is served where the client is; externalTrafficPolicy does not bind it.
//! - From outside, and from inside to another node's port, the node that is asked decides; Local keeps it to its own endpoints and keeps
//!   the client's address, and so does Cluster where the endpoint is on that node. Else the node's address is seen.
//! - internalTrafficPolicy binds clients inside at the cluster's address.
//! - No endpoint anywhere: refused. Endpoints, but none that policy permits: silence.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::cluster::{Backend, Cluster, Hook, Who};

/// A Service of the matrix.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    /// Makes its addresses and node port.
    pub number: u16,
    pub external_local: bool,
    pub internal_local: bool,
    pub endpoints: &'static [Backend],
}

pub const fn shape(
    name: &'static str,
    number: u16,
    local: [bool; 2],
    endpoints: &'static [Backend],
) -> Shape {
    let [external_local, internal_local] = local;
    Shape { name, number, external_local, internal_local, endpoints }
}

pub const PODS: &[Backend] = &[Backend::Pod(0), Backend::Pod(1)];
pub const HOSTS: &[Backend] = &[Backend::Host(0), Backend::Host(1)];

/// The Services: name, number, externalTrafficPolicy and internalTrafficPolicy Local, endpoints.
pub const SHAPES: [Shape; 9] = [
    shape("cluster", 1, [false, false], PODS),
    shape("external-local", 2, [true, false], PODS),
    shape("internal-local", 3, [false, true], PODS),
    shape("host-network", 4, [false, false], HOSTS),
    shape("host-network-local", 5, [true, true], HOSTS),
    shape("without-selector", 6, [false, false], &[Backend::Outer]),
    shape("without-endpoints", 7, [false, false], &[]),
    shape("of-one-pod", 8, [false, false], &[Backend::Pod(0)]),
    shape("elsewhere-local", 9, [true, true], &[Backend::Pod(1)]),
];

/// hostPort of the backend pod of the first node; the number of its row among [`SHAPES`] would be its only endpoint's.
pub const HOST_PORT: u16 = 8088;

/// Which of a Service's addresses is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    Cluster,
    /// The node port at this node's address.
    NodePort(usize),
    /// The node port at the client's own loopback address.
    Loopback,
    External,
    LoadBalancer,
    /// The cluster address, a port that the Service has not.
    UnmappedCluster,
    /// The external address, a port that the Service has not.
    UnmappedExternal,
    /// An address of the service range that no Service has.
    Unallocated,
    /// [`HOST_PORT`] at this node's address.
    HostPort(usize),
}

/// All of them.
pub const ADDRESSES: [Address; 13] = [
    Address::Cluster,
    Address::NodePort(0),
    Address::NodePort(1),
    Address::NodePort(2),
    Address::Loopback,
    Address::External,
    Address::LoadBalancer,
    Address::UnmappedCluster,
    Address::UnmappedExternal,
    Address::Unallocated,
    Address::HostPort(0),
    Address::HostPort(1),
    Address::HostPort(2),
];

/// What must become of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Exactly these backends answer, and see this source.
    Answers(BTreeMap<String, IpAddr>),
    Refused,
    Silent,
}

impl Shape {
    fn cluster_ip(&self, six: bool) -> String {
        if six { format!("fd00:10:98::{}", self.number) } else { format!("10.98.0.{}", self.number) }
    }

    fn external_ip(&self, six: bool) -> String {
        if six { format!("2001:db8:7::{}", self.number) } else { format!("203.0.113.{}", self.number) }
    }

    pub fn balancer_ip(&self, six: bool) -> String {
        if six { format!("2001:db8:8::{}", self.number) } else { format!("198.51.100.{}", self.number) }
    }

    pub fn node_port(&self) -> u16 {
        30_100 + self.number
    }

    /// The object, with further fields in its spec.
    pub fn service(&self, fields: Value) -> Value {
        let policy = |local: bool| if local { "Local" } else { "Cluster" };
        let both = |address: fn(&Self, bool) -> String| [address(self, false), address(self, true)];
        let ingress = both(Self::balancer_ip).map(|ip| json!({"ip": ip}));
        let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": 80, "nodePort": self.node_port()});
        let mut service = json!({
            "metadata": {"namespace": "default", "name": self.name},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": self.cluster_ip(false), "clusterIPs": both(Self::cluster_ip),
                "externalIPs": both(Self::external_ip),
                "externalTrafficPolicy": policy(self.external_local),
                "internalTrafficPolicy": policy(self.internal_local),
                "ports": [port("tcp", "TCP"), port("udp", "UDP")]
            },
            "status": {"loadBalancer": {"ingress": ingress}}
        });
        service["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        service
    }

    /// What a client asks.
    pub fn socket_address(&self, cluster: &Cluster, address: Address, six: bool) -> SocketAddr {
        let (ip, port) = match address {
            Address::Cluster => (self.cluster_ip(six), 80),
            Address::NodePort(node) => (cluster.node_address(node, six).to_string(), self.node_port()),
            Address::Loopback => (if six { "::1" } else { "127.0.0.1" }.to_owned(), self.node_port()),
            Address::External => (self.external_ip(six), 80),
            Address::LoadBalancer => (self.balancer_ip(six), 80),
            Address::UnmappedCluster => (self.cluster_ip(six), 81),
            Address::UnmappedExternal => (self.external_ip(six), 81),
            Address::Unallocated => (if six { "fd00:10:98::99" } else { "10.98.0.99" }.to_owned(), 80),
            Address::HostPort(node) => (cluster.node_address(node, six).to_string(), HOST_PORT),
        };
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    /// Whether the question makes sense; of what does not depend on the Service, one is enough.
    pub fn applies(&self, who: Who, address: Address) -> bool {
        match address {
            Address::Cluster | Address::UnmappedCluster => who != Who::Outside,
            Address::Unallocated => who != Who::Outside && self.number == 1,
            Address::HostPort(_) => self.name == "of-one-pod",
            Address::Loopback => matches!(who, Who::Host(_)),
            _ => true,
        }
    }

    /// The verdict of the rules above.
    pub fn expected(&self, cluster: &Cluster, who: Who, hook: Hook, address: Address, six: bool) -> Expected {
        let home = match who {
            Who::Pod(node) | Who::Backend(node) | Who::Host(node) => Some(node),
            Who::Outside => None,
        };
        let entrance = match (address, home) {
            (Address::UnmappedCluster | Address::UnmappedExternal, _) => return Expected::Refused,
            (Address::Unallocated, _) => return Expected::Silent,
            (Address::HostPort(node), _) if node != 0 => return Expected::Refused,
            (Address::NodePort(node) | Address::HostPort(node), _) => node,
            (_, Some(home)) => home,
            (Address::External, None) => 0,
            (Address::LoadBalancer, None) => 2,
            (other, None) => unreachable!("{other:?} is not asked from outside"),
        };
        if self.endpoints.is_empty() {
            return Expected::Refused;
        }
        let inside = home == Some(entrance);
        let local = match (address, inside) {
            (Address::Cluster, _) => self.internal_local,
            (_, true) => false,
            (_, false) => self.external_local,
        };
        let permitted = self.endpoints.iter().filter(|backend| !local || backend.node() == Some(entrance));
        let answers: BTreeMap<String, IpAddr> = permitted
            .map(|backend| (backend.name(), source(cluster, who, hook, entrance, inside, *backend, six)))
            .collect();
        if answers.is_empty() { Expected::Silent } else { Expected::Answers(answers) }
    }
}

/// The client's address as the backend sees it.
fn source(
    cluster: &Cluster,
    who: Who,
    hook: Hook,
    entrance: usize,
    inside: bool,
    backend: Backend,
    six: bool,
) -> IpAddr {
    let own = cluster.address_of(who, six);
    let itself = own == cluster.backend_address(backend, six);
    let hidden = match backend.node() {
        // Out of the cluster: under the node's address.
        None => true,
        Some(node) => !inside && node != entrance,
    };
    if itself && inside && hook == Hook::Packet {
        // A pod that is its own backend: no packet may have the same address twice.
        if six { "fd62:6565:6c69:6e65::2" } else { "169.254.1.2" }.parse().unwrap()
    } else if hidden {
        cluster.node_address(entrance, six)
    } else {
        own
    }
}
