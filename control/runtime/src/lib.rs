//! How a program follows and drives the cluster through its API: [`Informer`]s, [`Queue`]s, the [`driver`] of controllers,
//! [`lease`] election and the event [`Recorder`]; and the two roles made of them, [`run_controllers`] and [`run_scheduler`].
//! The decisions themselves live in `controllers` and `scheduler`.

pub mod collector;
pub mod discovery;
pub mod driver;
pub mod execute;
pub mod expectation;
pub mod informer;
pub mod lease;
pub mod namespaces;
pub mod queue;
pub mod recorder;
pub mod run;
pub mod scheduling;

#[cfg(test)]
mod testkit;

pub use controllers::plan::EventKind;
pub use controllers::table::{Change, Key, Table};
pub use informer::Informer;
pub use queue::Queue;
pub use recorder::Recorder;
pub use run::run_controllers;
pub use scheduling::run_scheduler;

/// Settings of the controllers' role.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// This process's name in leader election; unique, e.g. `host_uuid`.
    pub identity: String,
    /// Whether to wait for the Lease kube-system/kube-controller-manager.
    pub leader_elect: bool,
    /// Pod ranges of the cluster, one a family; empty leaves nodes without ranges.
    pub cluster_cidrs: Vec<String>,
    /// The cluster's CA certificate (PEM), published in every namespace; empty publishes nothing.
    pub root_ca_pem: String,
}

/// Settings of the scheduler's role.
#[derive(Clone, Debug, Default)]
pub struct SchedulerConfig {
    /// This process's name in leader election; unique.
    pub identity: String,
    /// Whether to wait for the Lease kube-system/kube-scheduler.
    pub leader_elect: bool,
    /// The `spec.schedulerName` that is served; empty means `default-scheduler`.
    pub scheduler_name: String,
}

/// Why a role ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease could not be renewed in time.
    #[error("leader election lost: lease kube-system/{0}")]
    LeadershipLost(String),
    /// A task of the role panicked.
    #[error("a task of the role failed: {0}")]
    Panicked(String),
}
