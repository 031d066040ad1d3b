//! What the cluster's controllers decide, as pure functions: `plan(view, key, context) -> Plan`. One file a controller, each with
//! what wakes it, its decision and its tests. No I/O, no clock, no randomness: `beeline-control` feeds the [`View`] and executes plans.

#[macro_use]
pub mod view;

pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod selector;
pub mod service_account;
pub mod table;
pub mod taint_eviction;
pub mod template_hash;

#[cfg(test)]
mod fake;

pub use plan::{Action, Context, Controller, Plan, Settings};
pub use table::{Change, Key, Table};
pub use view::{Kind, Resource, View, Watch, Watched};

/// Every controller. `beeline-control` drives them all in the same way and knows none by name.
pub const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "serviceaccount-controller",
        watches: service_account::WATCHES,
        plan: service_account::plan,
    },
    Controller { name: "root-ca-certificate-publisher", watches: root_ca::WATCHES, plan: root_ca::plan },
    Controller {
        name: "endpointslice-controller",
        watches: endpointslice::WATCHES,
        plan: endpointslice::plan,
    },
    Controller { name: "endpoint-controller", watches: endpoints::WATCHES, plan: endpoints::plan },
    Controller { name: "replicaset-controller", watches: replicaset::WATCHES, plan: replicaset::plan },
    Controller { name: "daemonset-controller", watches: daemonset::WATCHES, plan: daemonset::plan },
    Controller { name: "deployment-controller", watches: deployment::WATCHES, plan: deployment::plan },
    Controller { name: "cidrAllocator", watches: node_ipam::WATCHES, plan: node_ipam::plan },
    Controller { name: "node-controller", watches: node_lifecycle::WATCHES, plan: node_lifecycle::plan },
    Controller {
        name: "taint-eviction-controller",
        watches: taint_eviction::WATCHES,
        plan: taint_eviction::plan,
    },
    Controller { name: "pod-garbage-collector", watches: pod_gc::WATCHES, plan: pod_gc::plan },
];
