//! apps/v1 ReplicaSet.

use crate::strategy::Strategy;

/// apps/v1 ReplicaSet.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaSet;

impl Strategy for ReplicaSet {}
