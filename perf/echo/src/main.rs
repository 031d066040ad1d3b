//! The server that examples, tests and benchmarks talk to: HTTP, TCP, UDP, slow streams.

fn main() {}
