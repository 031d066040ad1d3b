//! The RBAC policy in force: compiled again whenever a role or binding changes, swapped in one step. In front of it,
//! the narrower rule for kubelets (`node`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::node;
use super::policy::{Decision, Objects, Policy};
use crate::attributes::Attributes;
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Decides who may do what, from the roles and bindings in the store.
pub struct Authorizer {
    registry: Registry,
    policy: ArcSwap<Policy>,
}

impl Authorizer {
    /// An authorizer that permits nothing but `system:masters` until [`follow`](Self::follow) runs.
    pub fn new(registry: Registry) -> Self {
        Self { registry, policy: ArcSwap::from_pointee(Policy::default()) }
    }

    /// Decides on a request.
    pub fn authorize(&self, asked: &Attributes) -> Decision {
        node::decide(asked, |namespace, node| self.pods_on(namespace, node))
            .unwrap_or_else(|| self.policy.load().authorize(asked))
    }

    fn pods_on(&self, namespace: &str, node: &str) -> Vec<Value> {
        let pods = self.registry.list_cached(rows::pods(), namespace);
        pods.iter()
            .filter(|pod| pod.meta.field("spec.nodeName") == Some(node))
            .map(|pod| pod.value())
            .collect()
    }

    /// The policy as it is now.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Compiles the policy from the cache now, and after each change, for ever.
    pub async fn follow(&self) {
        let mut roles = self.registry.changes(rows::roles());
        let mut role_bindings = self.registry.changes(rows::role_bindings());
        let mut cluster_roles = self.registry.changes(rows::cluster_roles());
        let mut cluster_role_bindings = self.registry.changes(rows::cluster_role_bindings());
        loop {
            self.refresh();
            tokio::select! {
                () = roles.next() => {}
                () = role_bindings.next() => {}
                () = cluster_roles.next() => {}
                () = cluster_role_bindings.next() => {}
            }
        }
    }

    /// Compiles the policy from the cache once.
    pub fn refresh(&self) {
        let all = |row| -> Vec<Value> {
            self.registry.list_cached(row, "").iter().map(|object| object.value()).collect()
        };
        let objects = Objects {
            cluster_roles: all(rows::cluster_roles()),
            roles: all(rows::roles()),
            cluster_role_bindings: all(rows::cluster_role_bindings()),
            role_bindings: all(rows::role_bindings()),
        };
        self.policy.store(Arc::new(Policy::compile(&objects)));
    }
}
