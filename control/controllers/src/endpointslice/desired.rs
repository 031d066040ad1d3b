//! Which endpoints a Service has, in groups that can share a slice: one address family and one set of ports each.
//! It does not look at existing slices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::is_headless;
use crate::pod;
use crate::selector;
use crate::view::View;

/// Label of nodes.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What all endpoints of a slice have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// `IPv4` or `IPv6`.
    pub address_type: String,
    /// Ports, in order of name, as (name, protocol, port, app protocol).
    pub ports: Vec<(String, String, i32, Option<String>)>,
}

impl Shape {
    /// The ports as the slice carries them.
    pub fn endpoint_ports(&self) -> Vec<EndpointPort> {
        let port = |(name, protocol, number, app): &(String, String, i32, Option<String>)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*number),
            app_protocol: app.clone(),
        };
        self.ports.iter().map(port).collect()
    }

    /// The shape of existing ports.
    pub fn of(address_type: &str, ports: Option<&Vec<EndpointPort>>) -> Self {
        let port = |it: &EndpointPort| {
            let protocol = it.protocol.clone().unwrap_or_else(|| "TCP".into());
            (it.name.clone().unwrap_or_default(), protocol, it.port.unwrap_or(0), it.app_protocol.clone())
        };
        let mut ports: Vec<_> = ports.into_iter().flatten().map(port).collect();
        ports.sort();
        Self { address_type: address_type.to_owned(), ports }
    }
}

/// Endpoints by shape. A family without endpoints has one empty group without ports, so that watchers see "none".
pub type Groups = BTreeMap<Shape, Vec<Endpoint>>;

/// The endpoints of `service`: every pod that it selects, has an address and has not finished.
pub fn groups(view: &View, service: &Service) -> Groups {
    let Some(spec) = service.spec.as_ref() else { return Groups::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut families = spec.ip_families.clone().unwrap_or_default();
    if families.is_empty() {
        families.push("IPv4".into());
    }
    let mut groups = Groups::new();
    for pod in view.pods.in_namespace(namespace) {
        if pod::is_finished(&pod) || !selector::selects(spec.selector.as_ref(), pod.metadata.labels.as_ref())
        {
            continue;
        }
        let ports = ports(service, &pod);
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|it| !it.is_empty()) {
            continue;
        }
        for family in &families {
            let addresses = addresses(&pod, family);
            if !addresses.is_empty() {
                let shape = Shape { address_type: family.clone(), ports: ports.clone() };
                groups.entry(shape).or_default().push(endpoint(view, service, &pod, addresses));
            }
        }
    }
    for family in families {
        if !groups.keys().any(|it| it.address_type == family) {
            groups.insert(Shape { address_type: family, ports: Vec::new() }, Vec::new());
        }
    }
    groups
}

/// When the latest event happened that shaped the Service's endpoints: a pod turned Ready or not, or began to leave.
pub fn triggered(view: &View, service: &Service) -> Option<Timestamp> {
    let selector = service.spec.as_ref().and_then(|it| it.selector.as_ref());
    let left = |pod: &Pod| {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        pod.metadata.deletion_timestamp.as_ref().map(|it| it.0 - jiff::SignedDuration::from_secs(grace))
    };
    let turned = |pod: &Pod| {
        pod::condition(pod, "Ready").and_then(|it| it.last_transition_time.as_ref()).map(|it| it.0)
    };
    let pods = view.pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    let selected = pods.iter().filter(|it| selector::selects(selector, it.metadata.labels.as_ref()));
    selected.flat_map(|it| [left(it), turned(it)]).flatten().max()
}

fn addresses(pod: &Pod, family: &str) -> Vec<String> {
    let ips = pod.status.as_ref().and_then(|it| it.pod_ips.as_ref());
    let fits = |text: &&str| text.parse().is_ok_and(|it: IpAddr| it.is_ipv6() == (family == "IPv6"));
    ips.into_iter().flatten().map(|it| it.ip.as_str()).filter(fits).map(Into::into).collect()
}

/// The pod's ports for the Service's; a named target port that the pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<(String, String, i32, Option<String>)> {
    let wanted = service.spec.as_ref().and_then(|it| it.ports.as_ref());
    let mut ports: Vec<_> = wanted
        .into_iter()
        .flatten()
        .filter_map(|it| {
            let protocol = it.protocol.clone().unwrap_or_else(|| "TCP".into());
            let number = target_port(it, &protocol, pod)?;
            Some((it.name.clone().unwrap_or_default(), protocol, number, it.app_protocol.clone()))
        })
        .collect();
    ports.sort();
    ports
}

fn target_port(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|it| it.restart_policy.as_deref() == Some("Always"));
            let mut declared =
                spec.containers.iter().chain(sidecars).flat_map(|it| it.ports.iter().flatten());
            let named = declared.find(|it| {
                it.name.as_ref() == Some(name) && it.protocol.as_deref().unwrap_or("TCP") == protocol
            })?;
            Some(named.container_port)
        }
    }
}

fn endpoint(view: &View, service: &Service, pod: &Pod, addresses: Vec<String>) -> Endpoint {
    let publishes_all = service.spec.as_ref().and_then(|it| it.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (pod::is_ready(pod), pod::is_terminating(pod));
    let node = pod::node_name(pod);
    let zone = view.nodes.get("", node).and_then(|it| it.metadata.labels.as_ref()?.get(ZONE).cloned());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// The name under which DNS knows the pod below its headless Service.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name && is_headless(service);
    spec.hostname.clone().filter(|it| named && !it.is_empty())
}
