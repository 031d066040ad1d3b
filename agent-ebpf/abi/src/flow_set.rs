//! Sets of flows that were not answered yet: what an element of [`crate::maps::FLOWQ4`] and [`crate::maps::FLOWQ6`] is.
//!
//! Programs alone read and write them; the rules for that stand with the programs' maps.

use crate::{
    flow::{Flow4, Flow6, FlowKey4, FlowKey6},
    sizes,
};

/// Entries of a [`FlowSet`].
pub const WAYS: usize = 4;

/// Value of [`crate::maps::FLOWQ4`] and [`crate::maps::FLOWQ6`]: the unanswered flows whose keys have one hash. A line of 64 bytes says
/// which they are; keys and values are in the lines behind it.
///
/// # Room
/// A set holds four entries, a new connection needs two, in two sets. With 16,384 sets and `n` connections unanswered at one time, an entry
/// meets on average `n / 8192` others in its set: of 1,000 half-open connections (a client that takes 100 ms to answer, 10,000 a second)
/// 0.12, and the chance that four others are there, so that the oldest of them goes, is 1 in 100,000; of 8,192 it is 2 in 100.
/// What is evicted was not answered: its client sends again, and the pair is made anew. In a flood of `r` packets a second an entry lives
/// for some `4 * 16384 / (2 * r)` seconds: 33 ms at one million, which is longer than an answer in a cluster takes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct FlowSet<K, V> {
    /// Tick at which a writer has claimed the set; zero: nobody has.
    pub lock: u32,
    /// Which of entries equally old gives way next, modulo [`WAYS`].
    pub turn: u32,
    /// Of each entry the signature of its key; zero: it is free.
    pub marks: [u32; WAYS],
    /// Zero.
    pub _pad: [u32; 10],
    /// The keys.
    pub keys: [K; WAYS],
    /// The values.
    pub values: [V; WAYS],
}

sizes! { FlowSet<FlowKey4, Flow4> = 384, FlowSet<FlowKey6, Flow6> = 640 }
