//! Arbitrary packets through every hook's stages, on the host, and what must hold whatever they are.
//!
//! An input is a script ([`script`]): one of golden's cases, whose services are published, then packets at hooks, answers to what came
//! out, and time. [`run::run`] plays it and judges each packet with an oracle of its own ([`wire`], which shares no code with the stages):
//! - no stage panics (bounds and overflows are checked in the fuzzer's build),
//! - checksums that were right stay right, and those of packets that a stage builds are right,
//! - a packet keeps its length unless it became an answer to its sender or went into a tunnel,
//! - bytes behind the headers of TCP and UDP stay,
//! - a packet is sent only to interfaces that the node has.
//!
//! `cargo xtask fuzz` looks for new inputs; `tests/corpus.rs` plays the seeds and some thousand mutations of them, always the same.
//!
//! # Limits
//! The programs in the kernel are not fuzzed: their bounds are the verifier's to prove.
#![forbid(unsafe_code)]

pub mod run;
pub mod script;
pub mod wire;
