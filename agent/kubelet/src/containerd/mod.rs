//! containerd's native API, as far as pods need it: images, snapshots, containers, tasks, events, output and exec.
//! It knows labels and ids, but no pods: what to run and when is decided elsewhere.
//!
//! # Order matters
//! The container record is made before its snapshot, because the record is what keeps the snapshot from containerd's
//! garbage collector. FIFOs are opened by us before the task exists, because the shim waits for a reader.

pub mod client;
pub mod containers;
pub mod events;
pub mod exec;
pub mod image_name;
pub mod images;
pub mod io;
pub mod labels;

pub use client::{Containerd, RuntimeError};
