//! What a new cluster holds before anybody asks for anything, and what is mended at each start: system namespaces,
//! roles and bindings, the service range, the `kubernetes` service with its endpoints.
//!
//! Not here: `kube-root-ca.crt` and the default service accounts, which controllers put into every namespace.

pub mod policy;
pub mod rbac;
pub mod rows;

use std::net::IpAddr;

use api::registry::{Resource, by_kind};
use api::status::{ApiError, Reason};
use serde_json::{Value, json};

use crate::allocate::{Allocator, Family};
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Namespaces that every cluster has.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// Name of the service by which pods reach this server, and of its endpoints and of the default ServiceCIDR.
const KUBERNETES: &str = "kubernetes";
/// Port of that service.
const HTTPS: u16 = 443;

/// Where this server is reached.
#[derive(Debug, Clone)]
pub struct BootstrapOptions {
    /// Address that the `kubernetes` service leads to.
    pub advertise_address: IpAddr,
    /// Port at that address.
    pub secure_port: u16,
}

/// Makes what is missing and mends what differs. Runs at each start, before requests are served.
pub async fn run(
    registry: &Registry,
    allocator: &Allocator,
    options: &BootstrapOptions,
) -> Result<(), ApiError> {
    for name in NAMESPACES {
        ensure(registry, rows::namespaces(), namespace(name), |_, _| None).await?;
    }
    for object in rbac::objects() {
        let kind = object["kind"].as_str().unwrap_or_default();
        let row = by_kind("rbac.authorization.k8s.io", "v1", kind)
            .ok_or_else(|| ApiError::internal(format!("no resource of kind {kind}")))?;
        ensure(registry, row, object, rbac::reconciled).await?;
    }
    let cidrs: Vec<String> = allocator.configured().iter().map(ToString::to_string).collect();
    ensure(registry, rows::service_cidrs(), service_cidr(&cidrs), with_part("spec")).await?;
    allocator.repair().await?;
    kubernetes_service(registry, allocator, options).await?;
    ensure(registry, rows::endpoints(), endpoints(options), with_part("subsets")).await?;
    ensure(registry, rows::endpoint_slices(), endpoint_slice(options), with_part("endpoints")).await?;
    Ok(())
}

/// Creates `desired`, or replaces the object of that name by what `mend(existing, desired)` gives.
async fn ensure(
    registry: &Registry,
    row: &'static Resource,
    desired: Value,
    mend: impl Fn(&Value, &Value) -> Option<Value>,
) -> Result<(), ApiError> {
    let text = |field: &str| desired["metadata"][field].as_str().unwrap_or_default();
    match registry.get(row, text("namespace"), text("name")).await {
        Ok(existing) => match mend(&existing.value(), &desired) {
            Some(mended) => registry.update(row, mended).await.map(|_| ()),
            None => Ok(()),
        },
        Err(error) if error.reason == Reason::NotFound => match registry.create(row, desired).await {
            // Another server was faster; both make the same.
            Err(error) if error.reason != Reason::AlreadyExists => Err(error),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    }
}

/// Puts `part` (and `ports` beside it) of the desired object into the existing one when they differ.
fn with_part(part: &'static str) -> impl Fn(&Value, &Value) -> Option<Value> {
    move |existing, desired| {
        let mut mended = existing.clone();
        for field in [part, "ports"] {
            if !desired[field].is_null() {
                mended[field] = desired[field].clone();
            }
        }
        (mended != *existing).then_some(mended)
    }
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    })
}

fn service_cidr(cidrs: &[String]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": KUBERNETES },
        "spec": { "cidrs": cidrs },
    })
}

/// Single-stack, as upstream: the first address of the first range.
async fn kubernetes_service(
    registry: &Registry,
    allocator: &Allocator,
    options: &BootstrapOptions,
) -> Result<(), ApiError> {
    match registry.get(rows::services(), "default", KUBERNETES).await {
        Ok(existing) => {
            let existing = existing.value();
            let mut mended = existing.clone();
            mended["spec"]["ports"] = service_ports(options);
            if mended == existing {
                return Ok(());
            }
            return registry.update(rows::services(), mended).await.map(|_| ());
        }
        Err(error) if error.reason == Reason::NotFound => {}
        Err(error) => return Err(error),
    }
    let Some(range) = allocator.configured().first() else {
        return Err(ApiError::internal("no service range is configured"));
    };
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": KUBERNETES,
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": range.first().to_string(),
            "clusterIPs": [range.first().to_string()],
            "sessionAffinity": "None",
            "ports": service_ports(options),
        },
    });
    let allocation = allocator.before_create(&mut service, false).await?;
    registry.create(rows::services(), service).await?;
    allocation.commit();
    Ok(())
}

fn service_ports(options: &BootstrapOptions) -> Value {
    json!([{ "name": "https", "protocol": "TCP", "port": HTTPS, "targetPort": options.secure_port }])
}

fn endpoint_ports(options: &BootstrapOptions) -> Value {
    json!([{ "name": "https", "port": options.secure_port, "protocol": "TCP" }])
}

fn endpoints(options: &BootstrapOptions) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": KUBERNETES,
            "namespace": "default",
            // The slice below is made here too: nobody shall make a second one from these.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": options.advertise_address.to_string() }],
            "ports": endpoint_ports(options),
        }],
    })
}

fn endpoint_slice(options: &BootstrapOptions) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": KUBERNETES,
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": KUBERNETES },
        },
        "addressType": Family::of(options.advertise_address).name(),
        "endpoints": [{
            "addresses": [options.advertise_address.to_string()],
            "conditions": { "ready": true },
        }],
        "ports": endpoint_ports(options),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(address: &str) -> BootstrapOptions {
        BootstrapOptions { advertise_address: address.parse().unwrap(), secure_port: 6443 }
    }

    #[test]
    fn endpoints_follow_the_advertised_address_and_keep_the_rest() {
        let mut existing = endpoint_slice(&options("172.30.0.2"));
        existing["metadata"]["uid"] = "u".into();
        let mend = with_part("endpoints");
        assert_eq!(mend(&existing, &endpoint_slice(&options("172.30.0.2"))), None);
        let mended = mend(&existing, &endpoint_slice(&options("172.30.0.9"))).unwrap();
        assert_eq!(mended["endpoints"][0]["addresses"], json!(["172.30.0.9"]));
        assert_eq!(mended["metadata"]["uid"], "u");
    }

    #[test]
    fn the_slice_has_the_family_of_the_address() {
        assert_eq!(endpoint_slice(&options("172.30.0.2"))["addressType"], "IPv4");
        assert_eq!(endpoint_slice(&options("fd30::2"))["addressType"], "IPv6");
    }
}
