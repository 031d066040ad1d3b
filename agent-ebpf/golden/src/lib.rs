//! Golden packets: what goes into a hook and what must come out, byte for byte.
//!
//! [`case`] reads the table of cases (`cases/*.txt`), [`world`] is the node that all cases share, [`objects`] turns a
//! case's services into table entries ([`maglev`] into Maglev tables), [`frame`] builds packets with checksums computed in full, [`memory`] holds tables on
//! the host. `tests/host.rs` runs the cases through `pipeline`, `tests/kernel.rs` through the built programs by
//! `BPF_PROG_TEST_RUN`. Each case runs in both families: see [`world::to_v6`].
//!
//! The kernel cannot test-run socket hooks: `tests/calls.rs` decides calls on the host, `tests/socket.rs` makes them with real sockets.
#![forbid(unsafe_code)]

pub mod case;
pub mod frame;
pub mod hook;
pub mod maglev;
pub mod memory;
pub mod objects;
pub mod world;
