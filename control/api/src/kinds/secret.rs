//! core/v1 Secret.

use crate::strategy::Strategy;

/// core/v1 Secret.
#[derive(Debug, Clone, Copy)]
pub struct Secret;

impl Strategy for Secret {}
