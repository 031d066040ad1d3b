//! Everything that touches aya: load, attach, pin, maps, and the bpf(2) calls aya lacks.
//!
//! [`Dataplane`] is the handle: it loads the embedded programs, adopts or creates the pinned maps and links, and turns differences of
//! services, pods and nodes into stores. It decides nothing about services (crate `service` does) and sends no netlink message (crate
//! `network` does).
//!
//! # What survives
//! Maps and links are pinned below one directory of a BPF filesystem, so packets are served while no agent runs:
//! - `maps-LAYOUT/NAME`: the tables, one directory a table layout ([`abi::LAYOUT`]),
//! - `links/PROGRAM[-DEVICE]`: the attachments; a new agent replaces the program inside the link, which is atomic.

mod cgroup;
mod config;
mod dataplane;
mod encode;
mod flows;
mod lines;
mod maps;
mod object;
mod options;
mod programs;
mod routes;
mod services;
pub mod status;
mod sys;

pub use cgroup::CgroupError;
pub use dataplane::{Dataplane, Error};
pub use flows::{FlowCount, FlowsError};
pub use maps::MapsError;
pub use options::{
    NodeAddresses, NodeConfig, NodePortAddresses, Options, PodPort, Tunnel, Uplink, Vxlan, XdpChoice,
};
pub use programs::ProgramsError;
pub use routes::RoutesError;
pub use services::ServicesError;

/// Whether this build carries the BPF programs.
pub fn has_programs() -> bool {
    object::embedded().is_some()
}
