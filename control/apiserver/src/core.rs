//! What every request handler shares: the objects, who may do what, and what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admission::Chain;
use crate::allocate::Allocator;
use crate::auth::Auth;
use crate::metrics::Metrics;
use crate::registry_access::Registry;
use crate::streaming::Streaming;

/// The server below its sockets.
pub struct Core {
    /// The stored objects.
    pub registry: Registry,
    /// Authentication, authorization, reviews and tokens.
    pub auth: Arc<Auth>,
    /// What writes must pass.
    pub admission: Chain,
    /// Cluster IPs and node ports.
    pub allocator: Allocator,
    /// Subresources that carry connections.
    pub streaming: Streaming,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// `host:port` as clients reach the server.
    pub address: String,
    /// How long events live.
    pub event_ttl: Duration,
    /// The server is going down: streams end.
    pub shutdown: CancellationToken,
    pub(crate) started: AtomicBool,
}

impl Core {
    /// The objects are loaded and what every cluster holds is there.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }
}
