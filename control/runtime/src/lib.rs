//! How a program follows the API: [`Informer`]s that hand on what arrives, [`Queue`]s of work, [`lease`] election and the event
//! [`Recorder`]. It knows no kind of object and decides nothing: `beeline-control` joins it to `controllers` and `scheduler`,
//! the agent uses it alone.

pub mod informer;
pub mod lease;
pub mod pauses;
pub mod queue;
pub mod recorder;

pub use informer::{Arrival, Informer};
pub use pauses::Pauses;
pub use queue::Queue;
pub use recorder::{EventKind, Recorder};

/// Why work on the API ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease could not be renewed in time.
    #[error("leader election lost: lease kube-system/{0}")]
    LeadershipLost(String),
    /// A task of the work panicked.
    #[error("a task of the role failed: {0}")]
    Panicked(String),
}
