//! core/v1 ConfigMap.

use crate::strategy::Strategy;

/// core/v1 ConfigMap.
#[derive(Debug, Clone, Copy)]
pub struct ConfigMap;

impl Strategy for ConfigMap {}
