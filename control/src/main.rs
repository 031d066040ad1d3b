//! The control plane in one binary, roles by subcommand: composition only.

fn main() {}
