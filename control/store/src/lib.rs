//! Revisioned bytes on etcd: one watch, one event log, snapshots, leases. Knows keys, not kinds.
//!
//! # Design
//! etcd is the only state; this crate keeps a full, ordered copy of it in memory and a log of what changed:
//! * [`follow`] loads the key space at one revision and then follows it by *one* etcd watch over all keys, so events arrive
//!   in one total order and the copy's revision is etcd's revision;
//! * a [`collection`] holds the entries below one prefix as a copy-on-write ordered map plus the recent [`Event`]s; a LIST at
//!   an exact revision is the current map with later events undone;
//! * a [`Watch`] is a cursor on that log, woken only by events that touch its [`Interest`];
//! * a linearizable read asks etcd for its head revision ([`probe`], shared by all who wait) and waits until the log passed it;
//! * a write is an etcd transaction that compares `mod_revision` ([`write`]).
//!
//! # Limits
//! Values are JSON objects into whose `metadata` the revision is spliced ([`splice`]); what else they hold is known only to the
//! [`Index`] of the caller. One object a transaction: two would share a revision and a client that resumes there would lose one.
//! etcd over TLS is not wired yet.

mod collection;
mod compact;
mod config;
mod entry;
mod error;
mod follow;
mod interest;
mod lease;
mod ledger;
mod ordered;
mod probe;
mod splice;
mod store;
mod watch;
mod write;

pub use collection::{Event, Snapshot};
pub use config::Config;
pub use entry::{Entry, Index};
pub use error::Error;
pub use interest::Interest;
pub use ordered::Ordered;
pub use store::{Listing, Store};
pub use watch::{Expired, Watch};
