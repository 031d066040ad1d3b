//! From a container of a pod spec to an OCI runtime specification. Pure but for `machine`, which asks the kernel
//! once what this agent may hand out.

pub mod image;
pub mod machine;
pub mod seccomp;
pub mod spec;
pub mod user;
