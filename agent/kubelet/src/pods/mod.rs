//! Pods of this node: state, decision, status, and the actor that joins them with the effects.

pub mod actor;
pub mod admit;
pub mod adopt;
pub mod backoff;
pub mod decide;
pub mod effects;
pub mod record;
pub mod state;
pub mod status;
pub mod status_writer;
pub mod workers;

#[cfg(test)]
mod actor_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod testing;
