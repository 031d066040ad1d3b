//! coordination/v1 Lease.

use crate::strategy::Strategy;

/// coordination/v1 Lease.
#[derive(Debug, Clone, Copy)]
pub struct Lease;

impl Strategy for Lease {}
