//! discovery/v1 EndpointSlice.

use crate::strategy::Strategy;

/// discovery/v1 EndpointSlice.
#[derive(Debug, Clone, Copy)]
pub struct EndpointSlice;

impl Strategy for EndpointSlice {}
