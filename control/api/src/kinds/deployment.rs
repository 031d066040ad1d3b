//! apps/v1 Deployment.

use crate::strategy::Strategy;

/// apps/v1 Deployment.
#[derive(Debug, Clone, Copy)]
pub struct Deployment;

impl Strategy for Deployment {}
