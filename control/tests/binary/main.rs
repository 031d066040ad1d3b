//! The binary as its users run it. Skipped aloud without an `etcd` program.
#![allow(missing_docs, clippy::unwrap_used)]

mod control;
mod restart;
mod roles;
