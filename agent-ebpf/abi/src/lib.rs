//! The bytes that both sides of the kernel boundary agree on: keys, values, drop reasons, limits, names.
//!
//! The programs (`agent-ebpf`), the stages (`pipeline`) and the agent (`service`, `datapath`) all compile against
//! this crate and against nothing else of each other. It holds no behaviour beyond small accessors: no lookups, no
//! selection, no I/O. It knows nothing of the Kubernetes API; `agent/service` is the only translator.
//!
//! # Design
//! - Every type is `repr(C)`, made of integers, without hidden padding (zerocopy refuses it), and has its size
//!   asserted. Addresses and ports keep wire order ([`Ip4`], [`Ip6`], [`Port`]), so that the packet path never swaps.
//! - Both families exist for each table. A v6 type differs from its v4 sibling by its addresses only.
//! - [`maps::MAPS`] is the table of all maps: key, value, size, writer, readers, what a stale entry does.
//! - Publication: whatever belongs together and changes is reached through one aligned 8-byte word
//!   ([`service::Run`]); see [`service`].
//!
//! # Limits
//! [`maps::MapSpec::layout`] covers name, sizes and the described fields. A change of meaning that keeps the bytes must raise
//! the map's version by hand.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod affinity;
pub mod backend;
pub mod config;
pub mod flow;
pub mod flow_set;
pub mod fragment;
pub mod frontend;
pub mod limits;
pub mod maps;
pub mod programs;
pub mod reason;
pub mod route;
pub mod service;
pub mod socket;
pub mod source;
pub mod stats;

pub use addr::{Ip4, Ip6, Mac, Port, Proto};
pub use config::{Config, Control};
pub use maps::LAYOUT;
pub use reason::Reason;
pub use zerocopy;

/// Asserts the size of wire types at compile time: `sizes! { Backend4 = 16, .. }`.
macro_rules! sizes {
    ($($ty:ty = $bytes:literal),+ $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$ty>() == $bytes, concat!("size of ", stringify!($ty)));)+
    };
}
pub(crate) use sizes;
