//! The world as controllers see it: one [`Table`] a kind, and one row a kind that says where it lives in the API.
//! It holds what arrived; it never asks.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::table::{Change, Index, Key, Table};

/// Where a kind lives in the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// API version, e.g. `v1`.
    pub version: Cow<'static, str>,
    /// The kind, e.g. `Pod`.
    pub kind: Cow<'static, str>,
    /// The resource's name in paths, e.g. `pods`.
    pub plural: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    const fn builtin(
        group: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed("v1"),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// `v1` or `apps/v1`, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection: `/api/v1/namespaces/ns/pods`, `/apis/apps/v1/deployments`.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let scope = if self.namespaced && !namespace.is_empty() {
            format!("/namespaces/{namespace}")
        } else {
            String::new()
        };
        format!("{root}/{}{scope}/{}", self.api_version(), self.plural)
    }
}

/// A kind that can be read from an [`Object`]-erased place: every watched kind has a [`Resource`].
pub trait Watched:
    k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>
{
    /// Which kind this is.
    const WATCHED: Kind;
    /// This kind's table in `view`.
    fn table(view: &View) -> &std::sync::Arc<Table<Self>>
    where
        Self: Sized;
    /// The mapping of `watch`, if it watches this kind.
    fn mapping(watch: &Watch) -> Option<fn(&View, &Change<Self>) -> Vec<Key>>
    where
        Self: Sized;
}

macro_rules! kinds {
    ($( $(#[$doc:meta])* $kind:ident, $table:ident, $group:literal, $plural:literal, $namespaced:literal, $index:expr; )*) => {
        /// The kinds that controllers watch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $( $(#[$doc])* $kind, )* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// Where the kind lives in the API.
            pub const fn resource(self) -> Resource {
                match self { $( Kind::$kind => Resource::builtin($group, stringify!($kind), $plural, $namespaced), )* }
            }
        }

        /// One table a kind.
        pub struct View { $( $(#[$doc])* pub $table: std::sync::Arc<Table<$kind>>, )* }

        impl Default for View {
            fn default() -> Self {
                $( let $table: Index<$kind> = $index; )*
                Self { $( $table: std::sync::Arc::new(Table::with_index($table)), )* }
            }
        }

        impl View {
            /// The highest resourceVersion that `kind`'s table has seen.
            pub fn seen(&self, kind: Kind) -> u64 {
                match kind { $( Kind::$kind => self.$table.seen(), )* }
            }

            /// Uid and "is being deleted" of the object under `key`.
            pub fn standing(&self, kind: Kind, key: &Key) -> Option<(String, bool)> {
                match kind { $( Kind::$kind => self.$table.at(key).map(|it| {
                    (it.metadata.uid.clone().unwrap_or_default(), it.metadata.deletion_timestamp.is_some())
                }), )* }
            }
        }

        /// Which keys of a controller a change concerns; one variant a kind.
        #[derive(Clone, Copy)]
        pub enum Watch { $( $(#[$doc])* $kind(fn(&View, &Change<$kind>) -> Vec<Key>), )* }

        impl Watch {
            /// The kind that is watched.
            pub const fn kind(&self) -> Kind {
                match self { $( Watch::$kind(_) => Kind::$kind, )* }
            }
        }

        $( impl Watched for $kind {
            const WATCHED: Kind = Kind::$kind;
            fn table(view: &View) -> &std::sync::Arc<Table<Self>> { &view.$table }
            fn mapping(watch: &Watch) -> Option<fn(&View, &Change<Self>) -> Vec<Key>> {
                match watch { Watch::$kind(mapping) => Some(*mapping), _ => None }
            }
        } )*

        /// Calls `$visit!(Kind table)` for every watched kind: how the runtime starts one informer a kind.
        #[macro_export]
        macro_rules! for_each_kind {
            ($visit:ident) => { $( $visit!($kind $table); )* };
        }
    };
}

kinds! {
    /// Namespaces.
    Namespace, namespaces, "", "namespaces", false, |_| None;
    /// Nodes.
    Node, nodes, "", "nodes", false, |_| None;
    /// Pods, indexed by `spec.nodeName`.
    Pod, pods, "", "pods", true, |pod| pod.spec.as_ref()?.node_name.as_deref();
    /// Services.
    Service, services, "", "services", true, |_| None;
    /// Endpoints.
    Endpoints, endpoints, "", "endpoints", true, |_| None;
    /// ConfigMaps: only `kube-root-ca.crt` is watched.
    ConfigMap, config_maps, "", "configmaps", true, |_| None;
    /// ServiceAccounts.
    ServiceAccount, service_accounts, "", "serviceaccounts", true, |_| None;
    /// EndpointSlices, indexed by the service's name (label `kubernetes.io/service-name`).
    EndpointSlice, endpoint_slices, "discovery.k8s.io", "endpointslices", true,
        |slice| slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").map(String::as_str);
    /// Deployments.
    Deployment, deployments, "apps", "deployments", true, |_| None;
    /// ReplicaSets.
    ReplicaSet, replica_sets, "apps", "replicasets", true, |_| None;
    /// DaemonSets.
    DaemonSet, daemon_sets, "apps", "daemonsets", true, |_| None;
    /// ControllerRevisions.
    ControllerRevision, controller_revisions, "apps", "controllerrevisions", true, |_| None;
    /// Leases of `kube-node-lease`.
    Lease, leases, "coordination.k8s.io", "leases", true, |_| None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        for (kind, namespace, want) in [
            (Kind::Pod, "ns", "/api/v1/namespaces/ns/pods"),
            (Kind::Pod, "", "/api/v1/pods"),
            (Kind::Node, "", "/api/v1/nodes"),
            (Kind::EndpointSlice, "ns", "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"),
        ] {
            assert_eq!(kind.resource().path(namespace), want);
        }
    }
}
