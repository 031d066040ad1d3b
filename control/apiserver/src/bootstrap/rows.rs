//! The registry rows that the server itself reads and writes, by name.
//!
//! That each of them exists is held by the test below, so that callers need no error path for it.

use api::registry::{Resource, lookup};

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $group:literal $plural:literal;)*) => {
        $($(#[$doc])* pub fn $name() -> &'static Resource {
            row($group, $plural)
        })*
        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$(($group, $plural)),*];
    };
}

rows! {
    /// core/v1 Namespace.
    namespaces: "" "namespaces";
    /// core/v1 Node.
    nodes: "" "nodes";
    /// core/v1 Pod.
    pods: "" "pods";
    /// core/v1 Service.
    services: "" "services";
    /// core/v1 Endpoints.
    endpoints: "" "endpoints";
    /// core/v1 Secret.
    secrets: "" "secrets";
    /// core/v1 ServiceAccount.
    service_accounts: "" "serviceaccounts";
    /// discovery.k8s.io/v1 EndpointSlice.
    endpoint_slices: "discovery.k8s.io" "endpointslices";
    /// networking.k8s.io/v1 ServiceCIDR.
    service_cidrs: "networking.k8s.io" "servicecidrs";
    /// networking.k8s.io/v1 IPAddress.
    ip_addresses: "networking.k8s.io" "ipaddresses";
    /// rbac.authorization.k8s.io/v1 Role.
    roles: "rbac.authorization.k8s.io" "roles";
    /// rbac.authorization.k8s.io/v1 RoleBinding.
    role_bindings: "rbac.authorization.k8s.io" "rolebindings";
    /// rbac.authorization.k8s.io/v1 ClusterRole.
    cluster_roles: "rbac.authorization.k8s.io" "clusterroles";
    /// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
    cluster_role_bindings: "rbac.authorization.k8s.io" "clusterrolebindings";
}

fn row(group: &str, plural: &str) -> &'static Resource {
    lookup(group, "v1", plural).expect("the registry has every row of this table (test: every_row_exists)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_exists() {
        for (group, plural) in ALL {
            assert!(lookup(group, "v1", plural).is_some(), "{group} {plural}");
        }
    }
}
