//! core/v1 Service.

use crate::strategy::Strategy;

/// core/v1 Service.
#[derive(Debug, Clone, Copy)]
pub struct Service;

impl Strategy for Service {}
