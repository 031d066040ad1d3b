//! The roles and bindings every cluster starts with: upstream's names and rights, as one table.
//!
//! Left out: roles of components and kinds that do not exist here (volumes, certificates, jobs, autoscaling).
//! A rule is `verbs | groups | resources | names`, or `verbs | /path /path`, lists separated by spaces. `core` is the
//! group `""`; `READ` stands for get, list and watch, `WRITE` for create, delete, deletecollection, patch and update.
//!
//! # See
//! kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata/*.yaml`.

/// A ClusterRole, or a Role when it has a namespace.
pub struct RoleRow {
    /// Namespace of a Role; empty for a ClusterRole.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// The roles (`admin`, `edit`, `view`) that gather this one's rules.
    pub aggregate_to: &'static [&'static str],
    /// This role gathers the rules of those with `aggregate-to-NAME`; empty for a role with rules of its own.
    pub gathers: &'static str,
    /// Rules in the form above.
    pub rules: &'static [&'static str],
}

/// A ClusterRoleBinding, or a RoleBinding when it has a namespace, to the role of the same name.
pub struct BindingRow {
    /// Namespace of a RoleBinding; empty for a ClusterRoleBinding.
    pub namespace: &'static str,
    /// Name of the binding.
    pub name: &'static str,
    /// Name of the role: a Role of the namespace, or a ClusterRole.
    pub role: &'static str,
    /// `user:NAME`, `group:NAME`, `account:NAMESPACE/NAME`.
    pub subjects: &'static [&'static str],
}

const CLUSTER: RoleRow = RoleRow { namespace: "", name: "", aggregate_to: &[], gathers: "", rules: &[] };
const EVENTS: &str = "create patch update | core events.k8s.io | events";
const REVIEW_TOKENS: &str = "create | authentication.k8s.io | tokenreviews";
const REVIEW_ACCESS: &str = "create | authorization.k8s.io | subjectaccessreviews";
const LEADER_LEASES: &[&str] =
    &["create get list patch update watch | coordination.k8s.io | leases leasecandidates"];

/// All roles.
pub const ROLES: &[RoleRow] = &[
    RoleRow { name: "cluster-admin", rules: &["* | * | *", "* | *"], ..CLUSTER },
    RoleRow { name: "admin", gathers: "admin", ..CLUSTER },
    RoleRow { name: "edit", gathers: "edit", aggregate_to: &["admin"], ..CLUSTER },
    RoleRow { name: "view", gathers: "view", aggregate_to: &["edit"], ..CLUSTER },
    RoleRow {
        name: "system:aggregate-to-admin",
        aggregate_to: &["admin"],
        rules: &[
            "create | authorization.k8s.io | localsubjectaccessreviews",
            "READ WRITE | rbac.authorization.k8s.io | roles rolebindings",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:aggregate-to-edit",
        aggregate_to: &["edit"],
        rules: &[
            "READ | core | pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            "impersonate | core | serviceaccounts",
            "WRITE | core | pods pods/attach pods/exec pods/portforward pods/proxy",
            "create | core | pods/eviction",
            "WRITE | core | configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            "create | core | serviceaccounts/token",
            "WRITE | apps | daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            "WRITE | autoscaling | horizontalpodautoscalers",
            "WRITE | batch | cronjobs jobs",
            "WRITE | policy | poddisruptionbudgets",
            "WRITE | networking.k8s.io | ingresses networkpolicies",
            "READ WRITE | coordination.k8s.io | leases",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:aggregate-to-view",
        aggregate_to: &["view"],
        rules: &[
            "READ | core | configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            "READ | core | bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            "READ | core | namespaces",
            "READ | discovery.k8s.io | endpointslices",
            "READ | apps | controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            "READ | autoscaling | horizontalpodautoscalers horizontalpodautoscalers/status",
            "READ | batch | cronjobs cronjobs/status jobs jobs/status",
            "READ | policy | poddisruptionbudgets poddisruptionbudgets/status",
            "READ | networking.k8s.io | ingresses ingresses/status networkpolicies",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:basic-user",
        rules: &[
            "create | authorization.k8s.io | selfsubjectaccessreviews selfsubjectrulesreviews",
            "create | authentication.k8s.io | selfsubjectreviews",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:discovery",
        rules: &[
            "get | /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:public-info-viewer",
        rules: &["get | /healthz /livez /readyz /version /version/"],
        ..CLUSTER
    },
    RoleRow {
        name: "system:monitoring",
        rules: &["get | /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"],
        ..CLUSTER
    },
    RoleRow {
        name: "system:service-account-issuer-discovery",
        rules: &["get | /.well-known/openid-configuration /openid/v1/jwks /openid/v1/jwks/"],
        ..CLUSTER
    },
    RoleRow { name: "system:auth-delegator", rules: &[REVIEW_TOKENS, REVIEW_ACCESS], ..CLUSTER },
    RoleRow {
        name: "system:kubelet-api-admin",
        rules: &[
            "READ | core | nodes",
            "proxy | core | nodes",
            "* | core | nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:node",
        rules: &[
            REVIEW_TOKENS,
            "create | authorization.k8s.io | localsubjectaccessreviews subjectaccessreviews",
            "READ | core | services",
            "READ create patch update | core | nodes",
            "patch update | core | nodes/status",
            "create patch update | core | events",
            "READ create delete | core | pods",
            "patch update | core | pods/status",
            "create | core | pods/eviction",
            "READ | core | configmaps secrets",
            "get | core | endpoints persistentvolumeclaims persistentvolumes",
            "create delete get patch update | coordination.k8s.io | leases",
            "create | core | serviceaccounts/token",
            "get | core | serviceaccounts",
            "READ | node.k8s.io | runtimeclasses",
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:node-proxier",
        rules: &[
            "list watch | core | endpoints services",
            "READ | core | nodes",
            EVENTS,
            "list watch | discovery.k8s.io | endpointslices",
            "READ | networking.k8s.io | servicecidrs",
        ],
        ..CLUSTER
    },
    RoleRow { name: "system:kube-dns", rules: &["list watch | core | endpoints services"], ..CLUSTER },
    RoleRow {
        name: "system:kube-scheduler",
        rules: &[
            EVENTS,
            "create | coordination.k8s.io | leases",
            "get patch update | coordination.k8s.io | leases | kube-scheduler",
            "READ | core | nodes namespaces replicationcontrollers services persistentvolumeclaims persistentvolumes",
            "READ delete | core | pods",
            "create | core | bindings pods/binding",
            "patch update | core | pods/status",
            "READ | apps | replicasets statefulsets",
            "READ | policy | poddisruptionbudgets",
            REVIEW_TOKENS,
            REVIEW_ACCESS,
        ],
        ..CLUSTER
    },
    RoleRow {
        name: "system:kube-controller-manager",
        rules: &[
            EVENTS,
            "create | coordination.k8s.io | leases",
            "get patch update | coordination.k8s.io | leases | kube-controller-manager",
            "create update | core | secrets serviceaccounts",
            "delete | core | secrets",
            "get | core | configmaps namespaces secrets serviceaccounts",
            REVIEW_TOKENS,
            REVIEW_ACCESS,
            "list watch | * | *",
            "create | core | serviceaccounts/token",
        ],
        ..CLUSTER
    },
    RoleRow {
        namespace: "kube-system",
        name: "system::leader-locking-kube-controller-manager",
        rules: LEADER_LEASES,
        ..CLUSTER
    },
    RoleRow {
        namespace: "kube-system",
        name: "system::leader-locking-kube-scheduler",
        rules: LEADER_LEASES,
        ..CLUSTER
    },
];

/// Roles of the controllers that run here. Each is bound to its service account, as upstream, and to the user
/// `system:kube-controller-manager`, under whose name they all run. `patch` stands beside upstream's `update`:
/// our controllers write by either.
pub const CONTROLLER_ROLES: &[(&str, &[&str])] = &[
    (
        "daemon-set-controller",
        &[
            "READ | apps | daemonsets",
            "patch update | apps | daemonsets/status daemonsets/finalizers",
            "list watch | core | nodes",
            "create delete get list patch watch | core | pods",
            "create | core | pods/binding",
            "create delete get list patch update watch | apps | controllerrevisions",
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            "READ patch update | apps | deployments",
            "patch update | apps | deployments/status deployments/finalizers",
            "create delete get list patch update watch | apps | replicasets",
            "get list patch update watch | core | pods",
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            "READ | core | pods services",
            "create delete get list patch update watch | core | endpoints",
            "create | core | endpoints/restricted",
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            "READ | core | nodes pods services",
            "update | core | services/finalizers",
            "create delete get list patch update watch | discovery.k8s.io | endpointslices",
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &["delete get list patch update watch | * | *", EVENTS]),
    (
        "namespace-controller",
        &[
            "READ delete | core | namespaces",
            "patch update | core | namespaces/finalize namespaces/status",
            "delete deletecollection get list watch | * | *",
        ],
    ),
    (
        "node-controller",
        &[
            "READ delete patch update | core | nodes",
            "patch update | core | nodes/status pods/status",
            "READ delete | core | pods",
            "READ | coordination.k8s.io | leases",
            EVENTS,
        ],
    ),
    (
        "replicaset-controller",
        &[
            "READ patch update | apps | replicasets",
            "patch update | apps | replicasets/status replicasets/finalizers",
            "create delete get list patch watch | core | pods",
            EVENTS,
        ],
    ),
    ("root-ca-cert-publisher", &["create get patch update | core | configmaps", EVENTS]),
    ("service-account-controller", &["create get | core | serviceaccounts", EVENTS]),
];

/// All bindings but those of [`CONTROLLER_ROLES`].
pub const BINDINGS: &[BindingRow] = &[
    cluster("cluster-admin", &["group:system:masters"]),
    cluster("system:basic-user", &["group:system:authenticated"]),
    cluster("system:discovery", &["group:system:authenticated"]),
    cluster("system:public-info-viewer", &["group:system:authenticated", "group:system:unauthenticated"]),
    cluster("system:monitoring", &["group:system:monitoring"]),
    cluster("system:service-account-issuer-discovery", &["group:system:serviceaccounts"]),
    cluster("system:kube-controller-manager", &["user:system:kube-controller-manager"]),
    cluster("system:kube-scheduler", &["user:system:kube-scheduler"]),
    cluster("system:kube-dns", &["account:kube-system/kube-dns"]),
    // Upstream leaves this one without subjects and lets its node authorizer decide; there is none here.
    cluster("system:node", &["group:system:nodes"]),
    // One agent is both kubelet and service proxy, under the node's name.
    cluster("system:node-proxier", &["user:system:kube-proxy", "group:system:nodes"]),
    cluster("system:kubelet-api-admin", &["user:kube-apiserver-kubelet-client"]),
    BindingRow {
        namespace: "kube-system",
        name: "system::leader-locking-kube-controller-manager",
        role: "system::leader-locking-kube-controller-manager",
        subjects: &["user:system:kube-controller-manager", "account:kube-system/kube-controller-manager"],
    },
    BindingRow {
        namespace: "kube-system",
        name: "system::leader-locking-kube-scheduler",
        role: "system::leader-locking-kube-scheduler",
        subjects: &["user:system:kube-scheduler", "account:kube-system/kube-scheduler"],
    },
];

const fn cluster(name: &'static str, subjects: &'static [&'static str]) -> BindingRow {
    BindingRow { namespace: "", name, role: name, subjects }
}
