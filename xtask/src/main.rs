//! Build, test, development cluster, tidy.

fn main() {}
