//! rbac.authorization.k8s.io/v1.

use crate::strategy::Strategy;

/// Role and ClusterRole.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// A Role, not a ClusterRole.
    pub namespaced: bool,
}
impl Strategy for Role {
    fn namespaced(&self) -> bool {
        self.namespaced
    }
}

/// RoleBinding and ClusterRoleBinding.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// A RoleBinding, not a ClusterRoleBinding.
    pub namespaced: bool,
}
impl Strategy for Binding {
    fn namespaced(&self) -> bool {
        self.namespaced
    }
}
