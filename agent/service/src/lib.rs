//! Services, EndpointSlices and host ports to tables: categories, topology, frontends, Maglev tables, ids, diff. Pure: no I/O, no clock,
//! no randomness.
//!
//! [`Tables`] holds what the API says and what was published of it. Each event recomputes the one service that it touches and returns a
//! [`Diff`]: rows to write and rows to remove, in terms of the data plane's tables but without their bytes (the crate `datapath`
//! encodes and orders the writes). Ids are stable: a row keeps its number as long as what it stands for lives, across restarts too
//! ([`Learned`]).
//!
//! An event costs what its own Service has, never what the cluster has; only a change of nodes looks at all endpoints once. What is kept
//! of an endpoint is small, since a cluster has hundreds of thousands (`cargo bench -p service` prints the figures).
//!
//! # Limits
//! Bad input never fails a call: the part that cannot be understood is left out and named in [`Diff::problems`].

mod balancing;
mod claims;
mod desired;
pub mod diff;
mod host_port;
pub mod ids;
mod learned;
pub mod maglev;
mod object;
mod places;
mod published;
mod reader;
mod rows;
mod slice;
mod source_ranges;
mod tables;
mod topology;
mod vips;

pub use diff::{
    Backend, BackendState, Diff, Family, Frontend, FrontendAddress, FrontendKey, HealthCheck, Problem,
    Protocol, ServiceRow,
};
pub use host_port::HostPort;
pub use learned::{Learned, LearnedService};
pub use places::NodeFacts;
pub use tables::Tables;

use std::fmt;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
