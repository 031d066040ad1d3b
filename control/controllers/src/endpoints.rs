//! Keeps the Endpoints object of each Service with a selector, for clients that do not know EndpointSlices (upstream:
//! pkg/controller/endpoint). The first family of the Service only, at most 1000 addresses. Hand-made Endpoints of Services
//! without a selector are not its affair.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpointslice::{self, HEADLESS, desired, is_headless};
use crate::ownership;
use crate::plan::{self, Action, Context, Plan, Target};
use crate::table::Key;
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[
    Watch::Service(ownership::itself),
    Watch::Endpoints(ownership::itself),
    Watch::Pod(endpointslice::of_pod),
];

/// Most addresses in one Endpoints object; more are cut off and the object says so.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Decides about the Endpoints of the Service under `key`.
pub fn plan(view: &View, key: &Key, _: &Context<'_>) -> Plan {
    let existing = view.endpoints.at(key);
    let Some(service) = view.services.at(key) else {
        let ours =
            existing.filter(|it| it.metadata.labels.as_ref().is_some_and(|it| it.contains_key(MANAGED_BY)));
        return Plan::of(ours.map(|it| plan::delete(&*it, None)).into_iter().collect());
    };
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    let external = service.spec.as_ref().and_then(|it| it.type_.as_deref()) == Some("ExternalName");
    if external || selector.is_none_or(BTreeMap::is_empty) || service.metadata.deletion_timestamp.is_some() {
        return Plan::await_change();
    }
    let (subsets, cut) = subsets(view, &service);
    let wanted = Endpoints { metadata: metadata(&service, existing.as_deref(), cut), subsets: Some(subsets) };
    Plan::of(match existing {
        None => vec![plan::create(&wanted, None)],
        Some(old)
            if old.subsets.clone().unwrap_or_default() == wanted.subsets.clone().unwrap_or_default()
                && old.metadata == wanted.metadata =>
        {
            Vec::new()
        }
        Some(old) => vec![Action::Replace { target: Target::of(&*old), object: plan::to_value(&wanted) }],
    })
}

fn metadata(service: &Service, existing: Option<&Endpoints>, cut: bool) -> ObjectMeta {
    let mut metadata = existing.map(|it| it.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if cut {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    metadata
}

/// The subsets, one for each set of ports, and whether addresses had to be left out.
fn subsets(view: &View, service: &Service) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let family =
        spec.and_then(|it| it.ip_families.as_ref()?.first().cloned()).unwrap_or_else(|| "IPv4".into());
    let publishes_all = spec.and_then(|it| it.publish_not_ready_addresses) == Some(true);
    let mut left = MAX_ADDRESSES;
    let mut cut = false;
    let mut subsets = Vec::new();
    for (shape, endpoints) in
        desired::groups(view, service).into_iter().filter(|(it, _)| it.address_type == family)
    {
        let mut by_readiness: BTreeMap<bool, Vec<EndpointAddress>> = BTreeMap::new();
        for endpoint in endpoints.iter().filter(|it| publishes_all || !is_terminating(it)) {
            let Some(address) = address(endpoint) else { continue };
            cut |= left == 0;
            if left > 0 {
                left -= 1;
                by_readiness.entry(is_ready(endpoint)).or_default().push(address);
            }
        }
        let mut take = |ready| {
            by_readiness.remove(&ready).map(|mut all| {
                all.sort_by(|a, b| a.ip.cmp(&b.ip));
                all
            })
        };
        let (addresses, not_ready_addresses) = (take(true), take(false));
        if addresses.is_some() || not_ready_addresses.is_some() {
            let port = |(name, protocol, port, app): (String, String, i32, Option<String>)| EndpointPort {
                name: (!name.is_empty()).then_some(name),
                port,
                protocol: Some(protocol),
                app_protocol: app,
            };
            let ports: Vec<EndpointPort> = shape.ports.into_iter().map(port).collect();
            subsets.push(EndpointSubset {
                addresses,
                not_ready_addresses,
                ports: (!ports.is_empty()).then_some(ports),
            });
        }
    }
    (subsets, cut)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|it| it.ready) == Some(true)
}

fn is_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|it| it.terminating) == Some(true)
}

fn address(endpoint: &Endpoint) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: endpoint.addresses.first()?.clone(),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    use super::*;
    use crate::fake::{Cluster, Fixture, metadata, pod_line};

    fn check(pods: &[&str], want: Expect) {
        let mut cluster = Cluster::default();
        let spec = ServiceSpec {
            selector: Fixture::selector().match_labels,
            ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        };
        cluster.add(&Service { metadata: metadata("web"), spec: Some(spec), status: None });
        pods.iter().for_each(|it| cluster.add(&pod_line(it, None)));
        cluster.run(plan, "web");
        assert_eq!(cluster.run(plan, "web"), 0, "a second plan has nothing to do");
        let endpoints = cluster.view.endpoints.get("default", "web").unwrap();
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|it| it.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let lines = endpoints.subsets.iter().flatten().map(|it| {
            let ports: Vec<i32> = it.ports.iter().flatten().map(|it| it.port).collect();
            format!("{ports:?} ready {} not ready {}\n", ips(&it.addresses), ips(&it.not_ready_addresses))
        });
        want.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn ready_pods_and_others_are_told_apart_and_leaving_ones_left_out() {
        check(
            &["b n1 Ready 5m", "a n1 Ready 5m", "c n2 Running 1m", "d n2 Ready 1m terminating"],
            expect![[r#"
            [80] ready 10.0.0.97 10.0.0.98 not ready 10.0.0.99
        "#]],
        );
    }

    #[test]
    fn a_service_without_pods_has_an_empty_object() {
        check(&[], expect![""]);
    }

    #[test]
    fn the_object_goes_with_its_service() {
        let mut cluster = Cluster::default();
        let labels = BTreeMap::from([(MANAGED_BY.to_owned(), "endpoint-controller".to_owned())]);
        let metadata = ObjectMeta { labels: Some(labels), ..metadata("web") };
        cluster.add(&Endpoints { metadata, subsets: None });
        cluster.run(plan, "web");
        assert!(cluster.view.endpoints.is_empty());
    }
}
