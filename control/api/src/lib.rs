//! What a cluster is made of: the registry table, schemas, selectors, patches, defaults, validation, table columns.
//!
//! Data and pure functions over `serde_json::Value`; no I/O, no clock and no randomness (both are arguments).
//!
//! Start at [`registry::RESOURCES`]: one row per resource. Routing, discovery, OpenAPI, storage keys and decoding are loops over it.

pub mod decode;
pub mod discovery;
pub mod kinds;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod time;

pub use registry::{RESOURCES, Resource};
pub use serde_json::Value;
pub use status::{ApiError, FieldError};
pub use strategy::Strategy;
