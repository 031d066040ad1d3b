//! HTTP in front of the store, driven by the registry: authentication, authorization, admission, watch, discovery,
//! OpenAPI, streaming subresources.
//!
//! A request passes, outermost first: [`connection`] (TLS, HTTP) -> [`handler`] (request info, Audit-Id, authentication,
//! authorization, metrics) -> [`rest`] (the generic verbs over [`registry_access`]) or a document ([`discovery`],
//! [`openapi`], [`health`]). An in-process client enters at [`handler`], so nothing but the socket is skipped.
//!
//! Not here: what a kind is (crate `api`), how bytes are kept (crate `store`), decisions about objects (controllers).

pub mod admission;
pub mod allocate;
pub mod auth;
pub mod bootstrap;
pub mod pki;
pub mod streaming;

pub mod attributes;
pub mod body;
pub mod core;
pub mod metrics;
pub mod negotiate;
pub mod object;
pub mod query;
pub mod registry_access;
pub mod render;
pub mod request_info;
pub mod respond;
pub mod rest;
pub mod server;

mod connection;
mod discovery;
mod drain;
mod filter;
mod handler;
mod health;
mod in_process;
mod openapi;

pub use attributes::UserInfo;
pub use server::{Server, ServerError, ServerOptions};
