//! apps/v1 ControllerRevision.

use crate::strategy::Strategy;

/// apps/v1 ControllerRevision.
#[derive(Debug, Clone, Copy)]
pub struct ControllerRevision;

impl Strategy for ControllerRevision {}
