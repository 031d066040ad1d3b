//! HTTP in front of the store, driven by the registry: authentication, authorization, admission, watch, discovery,
//! OpenAPI, streaming subresources.
//!
//! A request passes, outermost first: [`server`] (sockets, TLS) -> [`handler`] (request info, Audit-ID, authentication,
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
pub mod object;
pub mod registry_access;
