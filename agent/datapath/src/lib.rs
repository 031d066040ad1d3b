//! Everything that touches aya: load, attach, pin, maps, and the bpf(2) calls aya lacks.
//!
//! [`Dataplane`] is the handle: it loads the embedded programs, adopts or creates the pinned maps and links, and turns differences of
//! services, pods and nodes into stores. It decides nothing about services (crate `service` does) and sends no netlink message (crate
//! `network` does).
//!
//! # What survives
//! Maps and links are pinned below one directory of a BPF filesystem, so packets are served while no agent runs:
//! - `maps/NAME-LAYOUT`: the tables, each with the hash of its layout ([`abi::maps::MapSpec::layout`]). A build with another layout of a
//!   table carries its entries over before it attaches its programs.
//! - `links/PROGRAM[-DEVICE[-MODE]]`: the attachments; a new agent replaces the program inside the link, which is atomic.

mod backends;
mod carry;
mod cgroup;
mod config;
mod dataplane;
mod encode;
mod flows;
mod frontends;
mod growth;
mod install;
mod lines;
mod links;
mod maps;
mod object;
mod options;
mod pins;
mod programs;
mod routes;
mod services;
mod sockets;
pub mod status;
mod sys;
mod table;

pub use carry::CarryError;
pub use cgroup::CgroupError;
pub use dataplane::{Dataplane, Error, Event};
pub use flows::{FlowCount, FlowsError, SourcePorts};
pub use install::{InstallError, UplinkXdp};
pub use links::{AttachError, XdpMode};
pub use maps::MapsError;
pub use options::{
    NodeAddresses, NodeConfig, NodePortAddresses, Options, PodPort, Tunnel, Uplink, Vxlan, XdpChoice,
};
pub use programs::{Absent, ProgramsError};
pub use routes::RoutesError;
pub use services::ServicesError;
pub use sockets::SocketPair;

/// Whether this build carries the BPF programs.
pub fn has_programs() -> bool {
    object::embedded().is_some()
}
