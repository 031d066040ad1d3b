//! The built-in kinds, one file (or folder) each: defaults, preparation, validation, selectable fields, table columns.
//!
//! `registry` names the statics below, one a resource. The files `cell`, `field`, `metadata`, `names` and `workload` hold what several kinds
//! share. Nothing here reads a clock, a store or the network; what a kind needs beyond its own object (allocated addresses, the
//! namespace's state) is admission's or the allocators' business.

pub mod address;
pub mod at;
pub mod cell;
pub mod config_map;
pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod field;
pub mod ip_address;
pub mod lease;
pub mod metadata;
pub mod names;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod rbac;
pub mod replica_set;
pub mod review;
pub mod scale;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod workload;

/// core/v1 Namespace.
pub static NAMESPACE: namespace::Namespace = namespace::Namespace;
/// core/v1 Node.
pub static NODE: node::Node = node::Node;
/// core/v1 Pod.
pub static POD: pod::Pod = pod::Pod;
/// core/v1 Service.
pub static SERVICE: service::Service = service::Service;
/// core/v1 Endpoints.
pub static ENDPOINTS: endpoints::Endpoints = endpoints::Endpoints;
/// core/v1 ConfigMap.
pub static CONFIG_MAP: config_map::ConfigMap = config_map::ConfigMap;
/// core/v1 Secret.
pub static SECRET: secret::Secret = secret::Secret;
/// core/v1 ServiceAccount.
pub static SERVICE_ACCOUNT: service_account::ServiceAccount = service_account::ServiceAccount;
/// core/v1 Event.
pub static EVENT: event::CoreEvent = event::CoreEvent;
/// events.k8s.io/v1 Event: another face of the same stored object, see `event::to_core` and `event::to_events`.
pub static EVENTS_EVENT: event::EventsEvent = event::EventsEvent;
/// core/v1 Binding, which is created and never stored.
pub static BINDING: review::PassThrough = review::PassThrough { namespaced: true };
/// apps/v1 Deployment.
pub static DEPLOYMENT: deployment::Deployment = deployment::Deployment;
/// apps/v1 ReplicaSet.
pub static REPLICA_SET: replica_set::ReplicaSet = replica_set::ReplicaSet;
/// apps/v1 DaemonSet.
pub static DAEMON_SET: daemon_set::DaemonSet = daemon_set::DaemonSet;
/// apps/v1 ControllerRevision.
pub static CONTROLLER_REVISION: controller_revision::ControllerRevision =
    controller_revision::ControllerRevision;
/// discovery.k8s.io/v1 EndpointSlice.
pub static ENDPOINT_SLICE: endpoint_slice::EndpointSlice = endpoint_slice::EndpointSlice;
/// coordination.k8s.io/v1 Lease.
pub static LEASE: lease::Lease = lease::Lease;
/// rbac.authorization.k8s.io/v1 Role.
pub static ROLE: rbac::Role = rbac::Role { namespaced: true };
/// rbac.authorization.k8s.io/v1 ClusterRole.
pub static CLUSTER_ROLE: rbac::Role = rbac::Role { namespaced: false };
/// rbac.authorization.k8s.io/v1 RoleBinding.
pub static ROLE_BINDING: rbac::Binding = rbac::Binding { namespaced: true };
/// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
pub static CLUSTER_ROLE_BINDING: rbac::Binding = rbac::Binding { namespaced: false };
/// networking.k8s.io/v1 ServiceCIDR.
pub static SERVICE_CIDR: service_cidr::ServiceCidr = service_cidr::ServiceCidr;
/// networking.k8s.io/v1 IPAddress.
pub static IP_ADDRESS: ip_address::IpAddress = ip_address::IpAddress;
/// Reviews of the cluster (SelfSubjectAccessReview, SubjectAccessReview, TokenReview ..): created, answered, never stored.
pub static REVIEW: review::PassThrough = review::PassThrough { namespaced: false };
/// Reviews in a namespace (LocalSubjectAccessReview) and subresource bodies.
pub static LOCAL_REVIEW: review::PassThrough = review::PassThrough { namespaced: true };

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::registry::RESOURCES;

    /// Objects as broken as decoding lets them through: fields absent, `null`, empty.
    fn bare_objects() -> Vec<Value> {
        vec![
            json!({}),
            json!({"metadata": null, "spec": null, "status": null}),
            json!({"metadata": {}, "spec": {}, "status": {}}),
            json!({"metadata": {"labels": null}, "spec": {"template": null, "ports": null, "containers": [{}]}, "subsets": [{}], "endpoints": [{}]}),
        ]
    }

    #[test]
    fn every_kind_survives_bare_objects_and_fills_its_columns() {
        for resource in RESOURCES {
            let strategy = resource.strategy;
            for bare in bare_objects() {
                let mut object = bare.clone();
                strategy.default(&mut object);
                let once = object.clone();
                strategy.default(&mut object);
                assert_eq!(object, once, "defaults of {resource:?} must be idempotent");
                strategy.prepare_create(&mut object);
                let _ = strategy.validate_create(&object);
                let _ = strategy.warnings(&object, None);
                strategy.prepare_update(&mut object, &bare);
                let _ = strategy.validate_update(&object, &bare);
                strategy.prepare_status_update(&mut object, &bare);
                let _ = strategy.validate_status_update(&object, &bare);
                let row = strategy.cells(&object, Timestamp::UNIX_EPOCH);
                assert_eq!(row.len(), strategy.columns().len(), "{resource:?}");
            }
        }
    }

    #[test]
    fn selectable_fields_do_not_depend_on_the_object() {
        let names = |resource: &crate::Resource, object: &Value| -> Vec<&'static str> {
            resource.strategy.selectable_fields(object).into_iter().map(|(name, _)| name).collect()
        };
        for resource in RESOURCES {
            assert_eq!(
                names(resource, &Value::Null),
                names(resource, &json!({"spec": {"nodeName": "n"}})),
                "{resource:?}"
            );
        }
    }

    #[test]
    fn rows_and_strategies_agree_on_scope() {
        for resource in RESOURCES {
            assert_eq!(resource.namespaced, resource.strategy.namespaced(), "{resource:?}");
            let status = resource.subresource("status").is_some();
            assert_eq!(status, resource.strategy.has_status(), "{resource:?}: status subresource");
        }
    }
}
