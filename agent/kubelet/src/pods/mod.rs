//! Pods of this node: state, decision, status, and the actor that joins them with the effects.

pub mod backoff;
pub mod decide;
pub mod state;
pub mod status;
