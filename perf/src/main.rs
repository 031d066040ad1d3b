//! The benchmark a user runs too: cases, load generators, reports.

fn main() {}
