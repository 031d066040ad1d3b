//! networking/v1 ServiceCIDR.

use crate::strategy::Strategy;

/// networking/v1 ServiceCIDR.
#[derive(Debug, Clone, Copy)]
pub struct ServiceCidr;

impl Strategy for ServiceCidr {}
