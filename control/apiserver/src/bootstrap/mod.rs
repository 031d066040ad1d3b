//! What a new cluster holds before anybody asks for anything, and what is mended at each start.

pub mod policy;
pub mod rbac;
pub mod rows;
