//! What changes in the data plane's tables: rows by id, `None` for a row that goes.
//!
//! The order of the lists says nothing about the order of writing; the publication rule (`abi::service`) does.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::ObjectKey;

/// Address family: each has its own backend and frontend tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Transport protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol with this name in the API; absent means TCP.
    pub fn from_name(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The number in IP headers.
    pub fn number(self) -> abi::Proto {
        match self {
            Self::Tcp => abi::Proto::TCP,
            Self::Udp => abi::Proto::UDP,
            Self::Sctp => abi::Proto::SCTP,
        }
    }

    /// The protocol with this number.
    pub fn from_number(number: abi::Proto) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// What clients address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendAddress {
    /// This address.
    Exact(IpAddr),
    /// Every address of this node in the family.
    NodePort(Family),
}

impl FrontendAddress {
    /// The family of the clients' packets.
    pub fn family(self) -> Family {
        match self {
            Self::Exact(address) => address.into(),
            Self::NodePort(family) => family,
        }
    }
}

/// Key of a frontend row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// Address.
    pub address: FrontendAddress,
    /// Destination port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            FrontendAddress::Exact(IpAddr::V6(address)) => {
                write!(f, "[{address}]:{}/{}", self.port, self.protocol)
            }
            FrontendAddress::Exact(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            FrontendAddress::NodePort(Family::V4) => write!(f, "nodePort:{}/{}", self.port, self.protocol),
            FrontendAddress::NodePort(Family::V6) => write!(f, "nodePort6:{}/{}", self.port, self.protocol),
        }
    }
}

/// A frontend row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frontend {
    /// Service id.
    pub service: u32,
    /// Reached from outside the cluster: externalTrafficPolicy applies to outside clients.
    pub external: bool,
    /// Only clients in the service's source ranges may use it: a load balancer's address.
    pub source_ranges: bool,
    /// A Service's node port. A hostPort is not one, although it may share its scope ([`FrontendAddress::NodePort`]).
    pub node_port: bool,
}

/// Whether a backend takes connections because it is ready, or because nothing better is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Ready.
    Ready,
    /// Serving while it terminates.
    Terminating,
}

/// A backend row. Backends belong to one service: the same pod behind two services is two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Endpoint address.
    pub address: IpAddr,
    /// Target port.
    pub port: u16,
    /// Readiness.
    pub state: BackendState,
    /// Number of the endpoint's node, 0 if unknown.
    pub node: u16,
    /// On this node.
    pub local: bool,
    /// The address is a node's.
    pub host: bool,
    /// Share of new connections against the service's other backends, 1 to 16. Runs and Maglev tables have it already.
    pub weight: u8,
}

/// A service row: one service port in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    /// Bits of `abi::service::flags`.
    pub flags: u32,
    /// ClientIP affinity timeout in seconds, 0 without affinity.
    pub affinity_s: u32,
    /// Backend indexes for the Cluster policy, after topology and readiness.
    pub cluster: Vec<u32>,
    /// Backend indexes for the Local policies.
    pub local: Vec<u32>,
    /// Maglev table over `cluster`: positions in it. Empty without `abi::service::flags::MAGLEV`, and when `cluster` is empty.
    pub maglev_cluster: Vec<u16>,
    /// Maglev table over `local`.
    pub maglev_local: Vec<u16>,
}

/// What the HTTP server at spec.healthCheckNodePort of one Service answers by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// spec.healthCheckNodePort.
    pub port: u16,
    /// Ready endpoints on this node: 200 if there is one, 503 otherwise.
    pub local_endpoints: u32,
}

/// Rows to write and to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Backend rows by family and index.
    pub backends: Vec<(Family, u32, Option<Backend>)>,
    /// Service rows by id.
    pub services: Vec<(u32, Option<ServiceRow>)>,
    /// Frontend rows by key, each key once.
    pub frontends: Vec<(FrontendKey, Option<Frontend>)>,
    /// Service addresses that answer echo requests and reject ports without a frontend: whether it is one now.
    pub vips: Vec<(IpAddr, bool)>,
    /// Service id, range of client addresses (base and prefix length), and whether it is allowed now.
    pub source_ranges: Vec<(u32, IpAddr, u8, bool)>,
    /// UDP backends that go with this difference: connected sockets hold on to them otherwise. Not rows.
    pub gone_udp: Vec<(Family, u32, SocketAddr)>,
    /// Services whose health check changed; `None`: it has none any more. Not rows.
    pub health_checks: Vec<(ObjectKey, Option<HealthCheck>)>,
    /// What could not be understood or published.
    pub problems: Vec<Problem>,
}

impl Diff {
    /// Whether no row changes. Problems and health checks are no rows.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
            && self.services.is_empty()
            && self.frontends.is_empty()
            && self.vips.is_empty()
            && self.source_ranges.is_empty()
    }
}

/// A part of an object that could not be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The Service or EndpointSlice.
    pub object: ObjectKey,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}
