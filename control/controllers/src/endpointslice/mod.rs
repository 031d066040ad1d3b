//! Keeps the EndpointSlices of each Service with a selector (upstream: pkg/controller/endpointslice and
//! k8s.io/endpointslice). Owns the slices labelled as its own; reads pods, and nodes for their zone. Woken by Services,
//! slices, and pods whose part in a Service may have changed. Hand-made slices and Endpoints are not its affair.
//!
//! [`desired`] says which endpoints a Service has; [`pack`] puts them into slices with few writes.

pub mod desired;
pub mod pack;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::ownership;
use crate::plan::{self, Context, Plan};
use crate::pod;
use crate::selector;
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] =
    &[Watch::Service(ownership::itself), Watch::EndpointSlice(of_slice), Watch::Pod(of_pod)];

/// Label: who writes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller's value of [`MANAGED_BY`].
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label: the Service that a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: the Service has no cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

fn of_slice(_: &View, change: &Change<EndpointSlice>) -> Vec<Key> {
    let key = |slice: &Arc<EndpointSlice>| {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        Some(Key::new(slice.metadata.namespace.clone()?, name))
    };
    let mut keys: Vec<Key> = change.states().filter_map(key).collect();
    keys.dedup();
    keys
}

/// The Services that select the pod, before or after a change that can matter to them.
pub fn of_pod(view: &View, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && same_endpoint(old, new)
    {
        return Vec::new();
    }
    let Some(namespace) = change.latest().and_then(|it| it.metadata.namespace.clone()) else {
        return Vec::new();
    };
    let selected = |service: &Arc<Service>| {
        let wanted = service.spec.as_ref().and_then(|it| it.selector.as_ref());
        change.states().any(|it| selector::selects(wanted, it.metadata.labels.as_ref()))
    };
    view.services
        .in_namespace(&namespace)
        .iter()
        .filter(|it| selected(it))
        .map(|it| Key::of(&it.metadata))
        .collect()
}

fn same_endpoint(old: &Pod, new: &Pod) -> bool {
    let ips = |it: &Pod| it.status.as_ref().and_then(|it| it.pod_ips.clone());
    let host = |it: &Pod| it.spec.as_ref().map(|it| (it.hostname.clone(), it.subdomain.clone()));
    old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && pod::is_terminating(old) == pod::is_terminating(new)
        && pod::is_finished(old) == pod::is_finished(new)
        && pod::is_ready(old) == pod::is_ready(new)
        && pod::node_name(old) == pod::node_name(new)
        && ips(old) == ips(new)
        && host(old) == host(new)
}

/// Decides about the slices of the Service under `key`.
pub fn plan(view: &View, key: &Key, _: &Context<'_>) -> Plan {
    let Some(service) = view.services.at(key) else { return Plan::await_change() };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::await_change();
    }
    let slices = view
        .endpoint_slices
        .indexed(&key.name)
        .into_iter()
        .filter(|it| is_ours(it, &key.namespace))
        .collect::<Vec<_>>();
    let Some(spec) = service.spec.as_ref() else { return Plan::await_change() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Plan::of(slices.iter().map(|it| plan::delete(&**it, None)).collect());
    }
    if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
        return Plan::await_change();
    }
    let groups = desired::groups(view, &service);
    Plan::of(pack::pack(&service, &slices, groups, desired::triggered(view, &service)))
}

fn is_ours(slice: &EndpointSlice, namespace: &str) -> bool {
    slice.metadata.namespace.as_deref() == Some(namespace)
        && slice.metadata.deletion_timestamp.is_none()
        && slice.metadata.labels.as_ref().and_then(|it| it.get(MANAGED_BY)).is_some_and(|it| it == MANAGER)
}

/// Whether the Service has no cluster IP.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|it| it.cluster_ip.as_deref()) == Some("None")
}

#[cfg(test)]
mod tests;
