//! core/v1 Node.

use crate::strategy::Strategy;

/// core/v1 Node.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl Strategy for Node {}
