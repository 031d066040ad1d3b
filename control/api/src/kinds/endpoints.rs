//! core/v1 Endpoints.

use crate::strategy::Strategy;

/// core/v1 Endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints;

impl Strategy for Endpoints {}
