//! The pure choice of a node for a pod: [`queue`], [`snapshot`], [`cycle`], and one file a plugin in [`plugins`].
//! [`Scheduler`] holds the state and its transitions. No I/O, no clock: `beeline-control` feeds it and binds.

pub mod cycle;
pub mod event;
pub mod plugins;
pub mod quantity;
pub mod queue;
pub mod resources;
pub mod scheduler;
pub mod snapshot;

pub use cycle::Unschedulable;
pub use scheduler::{Scheduler, Step};
