//! core/v1 Pod.

use crate::strategy::Strategy;

/// core/v1 Pod.
#[derive(Debug, Clone, Copy)]
pub struct Pod;

impl Strategy for Pod {}
