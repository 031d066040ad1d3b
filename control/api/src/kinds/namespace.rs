//! core/v1 Namespace.

use crate::strategy::Strategy;

/// core/v1 Namespace.
#[derive(Debug, Clone, Copy)]
pub struct Namespace;

impl Strategy for Namespace {}
