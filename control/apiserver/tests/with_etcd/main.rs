//! The parts of the server that keep objects of their own (allocators, bootstrap, tokens) or lead elsewhere
//! (streams), against the real etcd. Each test has an etcd of its own; without an `etcd` program they are skipped aloud.
#![allow(missing_docs, clippy::unwrap_used)]

mod etcd;
mod services;
mod streams;
mod tokens;
