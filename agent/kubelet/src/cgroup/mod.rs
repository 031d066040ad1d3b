//! Control groups of a node: `qos` decides the numbers, `tree` writes them.

pub mod qos;
pub mod tree;
