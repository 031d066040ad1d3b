//! apps/v1 DaemonSet.

use crate::strategy::Strategy;

/// apps/v1 DaemonSet.
#[derive(Debug, Clone, Copy)]
pub struct DaemonSet;

impl Strategy for DaemonSet {}
