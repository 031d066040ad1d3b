//! core/v1 ServiceAccount.

use crate::strategy::Strategy;

/// core/v1 ServiceAccount.
#[derive(Debug, Clone, Copy)]
pub struct ServiceAccount;

impl Strategy for ServiceAccount {}
