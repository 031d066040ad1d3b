//! The rows of the resource table, grouped by group and version in discovery's order. Data only.

use super::{Resource, Subresource};
use crate::kinds;
use crate::strategy::Generic;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const EDIT: &[&str] = &["get", "patch", "update"];
const STREAM: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// What most rows have in common; a row names what differs.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    storage_prefix: "",
    type_name: "",
    verbs: ALL,
    subresources: &[],
    strategy: &Generic,
};
const APPS: Resource = Resource { group: "apps", ..CORE };
const AUTHENTICATION: Resource = Resource {
    group: "authentication.k8s.io",
    namespaced: false,
    verbs: CREATE,
    strategy: &kinds::REVIEW,
    ..CORE
};
const AUTHORIZATION: Resource = Resource {
    group: "authorization.k8s.io",
    namespaced: false,
    verbs: CREATE,
    strategy: &kinds::REVIEW,
    ..CORE
};
const COORDINATION: Resource = Resource { group: "coordination.k8s.io", ..CORE };
const DISCOVERY: Resource = Resource { group: "discovery.k8s.io", ..CORE };
const EVENTS: Resource = Resource { group: "events.k8s.io", ..CORE };
const NETWORKING: Resource = Resource { group: "networking.k8s.io", namespaced: false, ..CORE };
const RBAC: Resource = Resource { group: "rbac.authorization.k8s.io", ..CORE };

/// A subresource that takes and gives the object itself.
const fn own(
    name: &'static str,
    verbs: &'static [&'static str],
    of: (&'static str, &'static str, &'static str),
) -> Subresource {
    Subresource { name, group: of.0, version: "v1", kind: of.1, type_name: of.2, verbs }
}

/// A subresource of core that carries a connection; its options are query parameters.
const fn stream(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, type_name: "", verbs }
}

const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    type_name: "io.k8s.api.autoscaling.v1.Scale",
    verbs: EDIT,
};

const NAMESPACE: (&str, &str, &str) = ("", "Namespace", "io.k8s.api.core.v1.Namespace");
const NODE: (&str, &str, &str) = ("", "Node", "io.k8s.api.core.v1.Node");
const POD: (&str, &str, &str) = ("", "Pod", "io.k8s.api.core.v1.Pod");
const SERVICE: (&str, &str, &str) = ("", "Service", "io.k8s.api.core.v1.Service");
const BINDING: (&str, &str, &str) = ("", "Binding", "io.k8s.api.core.v1.Binding");
const DAEMON_SET: (&str, &str, &str) = ("apps", "DaemonSet", "io.k8s.api.apps.v1.DaemonSet");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "Deployment", "io.k8s.api.apps.v1.Deployment");
const REPLICA_SET: (&str, &str, &str) = ("apps", "ReplicaSet", "io.k8s.api.apps.v1.ReplicaSet");
const SERVICE_CIDR: (&str, &str, &str) =
    ("networking.k8s.io", "ServiceCIDR", "io.k8s.api.networking.v1.ServiceCIDR");

const POD_SUBRESOURCES: &[Subresource] = &[
    stream("attach", "PodAttachOptions", STREAM),
    own("binding", CREATE, BINDING),
    Subresource {
        name: "eviction",
        group: "policy",
        version: "v1",
        kind: "Eviction",
        type_name: "io.k8s.api.policy.v1.Eviction",
        verbs: CREATE,
    },
    stream("exec", "PodExecOptions", STREAM),
    own("log", &["get"], POD),
    stream("portforward", "PodPortForwardOptions", STREAM),
    stream("proxy", "PodProxyOptions", PROXY),
    own("status", EDIT, POD),
];

const TOKEN: Subresource = Subresource {
    name: "token",
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    type_name: "io.k8s.api.authentication.v1.TokenRequest",
    verbs: CREATE,
};

/// Every resource that the server serves.
pub static RESOURCES: &[Resource] = &[
    // --- core/v1 ---
    Resource {
        plural: "bindings",
        singular: "binding",
        kind: "Binding",
        type_name: "io.k8s.api.core.v1.Binding",
        verbs: CREATE,
        strategy: &kinds::BINDING,
        ..CORE
    },
    Resource {
        plural: "configmaps",
        singular: "configmap",
        kind: "ConfigMap",
        list_kind: "ConfigMapList",
        short_names: &["cm"],
        storage_prefix: "/registry/configmaps",
        type_name: "io.k8s.api.core.v1.ConfigMap",
        strategy: &kinds::CONFIG_MAP,
        ..CORE
    },
    Resource {
        plural: "endpoints",
        singular: "endpoints",
        kind: "Endpoints",
        list_kind: "EndpointsList",
        short_names: &["ep"],
        storage_prefix: "/registry/services/endpoints",
        type_name: "io.k8s.api.core.v1.Endpoints",
        strategy: &kinds::ENDPOINTS,
        ..CORE
    },
    Resource {
        plural: "events",
        singular: "event",
        kind: "Event",
        list_kind: "EventList",
        short_names: &["ev"],
        storage_prefix: "/registry/events",
        type_name: "io.k8s.api.core.v1.Event",
        strategy: &kinds::EVENT,
        ..CORE
    },
    Resource {
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        list_kind: "NamespaceList",
        short_names: &["ns"],
        namespaced: false,
        storage_prefix: "/registry/namespaces",
        type_name: "io.k8s.api.core.v1.Namespace",
        // Upstream has no deletecollection here: a slip would empty the cluster.
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[own("finalize", &["update"], NAMESPACE), own("status", EDIT, NAMESPACE)],
        strategy: &kinds::NAMESPACE,
        ..CORE
    },
    Resource {
        plural: "nodes",
        singular: "node",
        kind: "Node",
        list_kind: "NodeList",
        short_names: &["no"],
        namespaced: false,
        storage_prefix: "/registry/minions",
        type_name: "io.k8s.api.core.v1.Node",
        subresources: &[stream("proxy", "NodeProxyOptions", PROXY), own("status", EDIT, NODE)],
        strategy: &kinds::NODE,
        ..CORE
    },
    Resource {
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        list_kind: "PodList",
        short_names: &["po"],
        categories: &["all"],
        storage_prefix: "/registry/pods",
        type_name: "io.k8s.api.core.v1.Pod",
        subresources: POD_SUBRESOURCES,
        strategy: &kinds::POD,
        ..CORE
    },
    Resource {
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        list_kind: "SecretList",
        storage_prefix: "/registry/secrets",
        type_name: "io.k8s.api.core.v1.Secret",
        strategy: &kinds::SECRET,
        ..CORE
    },
    Resource {
        plural: "serviceaccounts",
        singular: "serviceaccount",
        kind: "ServiceAccount",
        list_kind: "ServiceAccountList",
        short_names: &["sa"],
        storage_prefix: "/registry/serviceaccounts",
        type_name: "io.k8s.api.core.v1.ServiceAccount",
        subresources: &[TOKEN],
        strategy: &kinds::SERVICE_ACCOUNT,
        ..CORE
    },
    Resource {
        plural: "services",
        singular: "service",
        kind: "Service",
        list_kind: "ServiceList",
        short_names: &["svc"],
        categories: &["all"],
        storage_prefix: "/registry/services/specs",
        type_name: "io.k8s.api.core.v1.Service",
        subresources: &[stream("proxy", "ServiceProxyOptions", PROXY), own("status", EDIT, SERVICE)],
        strategy: &kinds::SERVICE,
        ..CORE
    },
    // --- apps/v1 ---
    Resource {
        plural: "controllerrevisions",
        singular: "controllerrevision",
        kind: "ControllerRevision",
        list_kind: "ControllerRevisionList",
        storage_prefix: "/registry/controllerrevisions",
        type_name: "io.k8s.api.apps.v1.ControllerRevision",
        strategy: &kinds::CONTROLLER_REVISION,
        ..APPS
    },
    Resource {
        plural: "daemonsets",
        singular: "daemonset",
        kind: "DaemonSet",
        list_kind: "DaemonSetList",
        short_names: &["ds"],
        categories: &["all"],
        storage_prefix: "/registry/daemonsets",
        type_name: "io.k8s.api.apps.v1.DaemonSet",
        subresources: &[own("status", EDIT, DAEMON_SET)],
        strategy: &kinds::DAEMON_SET,
        ..APPS
    },
    Resource {
        plural: "deployments",
        singular: "deployment",
        kind: "Deployment",
        list_kind: "DeploymentList",
        short_names: &["deploy"],
        categories: &["all"],
        storage_prefix: "/registry/deployments",
        type_name: "io.k8s.api.apps.v1.Deployment",
        subresources: &[SCALE, own("status", EDIT, DEPLOYMENT)],
        strategy: &kinds::DEPLOYMENT,
        ..APPS
    },
    Resource {
        plural: "replicasets",
        singular: "replicaset",
        kind: "ReplicaSet",
        list_kind: "ReplicaSetList",
        short_names: &["rs"],
        categories: &["all"],
        storage_prefix: "/registry/replicasets",
        type_name: "io.k8s.api.apps.v1.ReplicaSet",
        subresources: &[SCALE, own("status", EDIT, REPLICA_SET)],
        strategy: &kinds::REPLICA_SET,
        ..APPS
    },
    // --- events.k8s.io/v1: another face of core's events ---
    Resource {
        plural: "events",
        singular: "event",
        kind: "Event",
        list_kind: "EventList",
        short_names: &["ev"],
        storage_prefix: "/registry/events",
        type_name: "io.k8s.api.events.v1.Event",
        strategy: &kinds::EVENTS_EVENT,
        ..EVENTS
    },
    // --- authentication.k8s.io/v1 ---
    Resource {
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        kind: "SelfSubjectReview",
        type_name: "io.k8s.api.authentication.v1.SelfSubjectReview",
        ..AUTHENTICATION
    },
    Resource {
        plural: "tokenreviews",
        singular: "tokenreview",
        kind: "TokenReview",
        type_name: "io.k8s.api.authentication.v1.TokenReview",
        ..AUTHENTICATION
    },
    // --- authorization.k8s.io/v1 ---
    Resource {
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        kind: "LocalSubjectAccessReview",
        namespaced: true,
        type_name: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        strategy: &kinds::LOCAL_REVIEW,
        ..AUTHORIZATION
    },
    Resource {
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        kind: "SelfSubjectAccessReview",
        type_name: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        ..AUTHORIZATION
    },
    Resource {
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        kind: "SelfSubjectRulesReview",
        type_name: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        ..AUTHORIZATION
    },
    Resource {
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        kind: "SubjectAccessReview",
        type_name: "io.k8s.api.authorization.v1.SubjectAccessReview",
        ..AUTHORIZATION
    },
    // --- networking.k8s.io/v1 ---
    Resource {
        plural: "ipaddresses",
        singular: "ipaddress",
        kind: "IPAddress",
        list_kind: "IPAddressList",
        short_names: &["ip"],
        storage_prefix: "/registry/ipaddresses",
        type_name: "io.k8s.api.networking.v1.IPAddress",
        strategy: &kinds::IP_ADDRESS,
        ..NETWORKING
    },
    Resource {
        plural: "servicecidrs",
        singular: "servicecidr",
        kind: "ServiceCIDR",
        list_kind: "ServiceCIDRList",
        storage_prefix: "/registry/servicecidrs",
        type_name: "io.k8s.api.networking.v1.ServiceCIDR",
        subresources: &[own("status", EDIT, SERVICE_CIDR)],
        strategy: &kinds::SERVICE_CIDR,
        ..NETWORKING
    },
    // --- rbac.authorization.k8s.io/v1 ---
    Resource {
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        kind: "ClusterRoleBinding",
        list_kind: "ClusterRoleBindingList",
        namespaced: false,
        storage_prefix: "/registry/clusterrolebindings",
        type_name: "io.k8s.api.rbac.v1.ClusterRoleBinding",
        strategy: &kinds::CLUSTER_ROLE_BINDING,
        ..RBAC
    },
    Resource {
        plural: "clusterroles",
        singular: "clusterrole",
        kind: "ClusterRole",
        list_kind: "ClusterRoleList",
        namespaced: false,
        storage_prefix: "/registry/clusterroles",
        type_name: "io.k8s.api.rbac.v1.ClusterRole",
        strategy: &kinds::CLUSTER_ROLE,
        ..RBAC
    },
    Resource {
        plural: "rolebindings",
        singular: "rolebinding",
        kind: "RoleBinding",
        list_kind: "RoleBindingList",
        storage_prefix: "/registry/rolebindings",
        type_name: "io.k8s.api.rbac.v1.RoleBinding",
        strategy: &kinds::ROLE_BINDING,
        ..RBAC
    },
    Resource {
        plural: "roles",
        singular: "role",
        kind: "Role",
        list_kind: "RoleList",
        storage_prefix: "/registry/roles",
        type_name: "io.k8s.api.rbac.v1.Role",
        strategy: &kinds::ROLE,
        ..RBAC
    },
    // --- coordination.k8s.io/v1 ---
    Resource {
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        list_kind: "LeaseList",
        storage_prefix: "/registry/leases",
        type_name: "io.k8s.api.coordination.v1.Lease",
        strategy: &kinds::LEASE,
        ..COORDINATION
    },
    // --- discovery.k8s.io/v1 ---
    Resource {
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        list_kind: "EndpointSliceList",
        storage_prefix: "/registry/endpointslices",
        type_name: "io.k8s.api.discovery.v1.EndpointSlice",
        strategy: &kinds::ENDPOINT_SLICE,
        ..DISCOVERY
    },
];
