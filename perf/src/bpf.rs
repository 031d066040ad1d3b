//! Small BPF programs of our own, assembled at run time: nothing but the kernel is needed to measure with them, and
//! a packet's bytes become instructions, so that restoring it costs no look-up.

pub(crate) mod assemble;
pub(crate) mod generator;
pub(crate) mod object;
