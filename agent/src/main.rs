//! One node: the kubelet and the data plane in one binary: composition only.

fn main() {}
