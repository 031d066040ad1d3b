//! networking/v1 IPAddress.

use crate::strategy::Strategy;

/// networking/v1 IPAddress.
#[derive(Debug, Clone, Copy)]
pub struct IpAddress;

impl Strategy for IpAddress {}
