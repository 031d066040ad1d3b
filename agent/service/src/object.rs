//! What the tables need of a Service, taken from the object once. Everything else is ignored here.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use crate::balancing::Balancing;
use crate::reader::Reader;
use crate::source_ranges::SourceRanges;
use crate::{ObjectKey, Problem, Protocol};

/// A Service with this label is somebody else's to proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// A Service with this label is not proxied.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// sessionAffinityConfig.clientIP.timeoutSeconds when it is not set (upstream's default: three hours).
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// A Service that is to be proxied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceFacts {
    /// clusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// externalIPs.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses (ipMode VIP).
    pub balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer addresses.
    pub source_ranges: SourceRanges,
    /// Ports.
    pub ports: Vec<PortFacts>,
    /// internalTrafficPolicy=Local.
    pub internal_local: bool,
    /// externalTrafficPolicy=Local.
    pub external_local: bool,
    /// ClientIP affinity timeout in seconds, 0 without affinity.
    pub affinity_s: u32,
    /// How connections are spread.
    pub balancing: Balancing,
    /// healthCheckNodePort of a load balancer with externalTrafficPolicy=Local.
    pub health_port: Option<u16>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// Name, empty if it has none.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// Node port.
    pub node_port: Option<u16>,
}

/// Takes the facts of a Service; `None` if it is not to be proxied (headless, ExternalName, another proxy's).
pub fn service(key: &ObjectKey, service: &Service, problems: &mut Vec<Problem>) -> Option<ServiceFacts> {
    let labels = service.metadata.labels.as_ref();
    let labelled = |label: &str| labels.is_some_and(|labels| labels.contains_key(label));
    let spec = service.spec.as_ref()?;
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let unproxied =
        cluster_ip.is_empty() || cluster_ip == "None" || spec.type_.as_deref() == Some("ExternalName");
    if unproxied || labelled(PROXY_NAME_LABEL) || labelled(HEADLESS_LABEL) {
        return None;
    }
    let reader = &mut Reader::new(key, problems);
    let cluster_ips = match spec.cluster_ips.as_deref() {
        Some(addresses) if !addresses.is_empty() => addresses,
        _ => std::slice::from_ref(spec.cluster_ip.as_ref()?),
    };
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let mut facts = ServiceFacts {
        cluster_ips: addresses("spec.clusterIPs", cluster_ips, reader),
        external_ips: addresses("spec.externalIPs", spec.external_ips.iter().flatten(), reader),
        balancer_ips: balancer_ips(service, reader),
        source_ranges: SourceRanges::default(),
        ports: spec.ports.iter().flatten().filter_map(|port| port_facts(port, reader)).collect(),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity_s: affinity_s(spec),
        balancing: Balancing::of(service.metadata.annotations.as_ref(), reader),
        health_port: None,
    };
    if !facts.balancer_ips.is_empty() {
        facts.source_ranges = SourceRanges::of(service, reader);
    }
    let number = spec.health_check_node_port.filter(|number| *number != 0);
    if spec.type_.as_deref() == Some("LoadBalancer") && external_local {
        facts.health_port = number.and_then(|number| reader.port("spec.healthCheckNodePort", number));
    }
    Some(facts)
}

fn addresses<'a>(
    field: &str,
    texts: impl IntoIterator<Item = &'a String>,
    reader: &mut Reader<'_>,
) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> =
        texts.into_iter().filter_map(|text| reader.address(field, text)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.shrink_to_fit();
    addresses
}

/// The load balancer's addresses whose packets arrive with them as destination.
fn balancer_ips(service: &Service, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let balancer = service.status.iter().flat_map(|status| &status.load_balancer);
    let ingress = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
    let texts = ingress.filter(|point| point.ip_mode.as_deref() != Some("Proxy")).flat_map(|point| &point.ip);
    addresses("status.loadBalancer.ingress", texts, reader)
}

fn affinity_s(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_S)
}

fn port_facts(port: &ServicePort, reader: &mut Reader<'_>) -> Option<PortFacts> {
    let Some(protocol) = Protocol::from_name(port.protocol.as_deref()) else {
        reader.problem(
            "spec.ports.protocol",
            format!("\"{}\" is not supported", port.protocol.as_deref().unwrap_or_default()),
        );
        return None;
    };
    Some(PortFacts {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol,
        port: reader.port("spec.ports.port", port.port)?,
        node_port: match port.node_port {
            Some(number) if number != 0 => reader.port("spec.ports.nodePort", number),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(json: serde_json::Value) -> (Option<ServiceFacts>, Vec<String>) {
        let mut problems = Vec::new();
        let facts =
            service(&ObjectKey::new("ns", "a"), &serde_json::from_value(json).unwrap(), &mut problems);
        (facts, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn services_that_are_not_ours_are_ignored() {
        for json in [
            serde_json::json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
            serde_json::json!({"spec": {"clusterIP": "", "ports": [{"port": 80}]}}),
            serde_json::json!({"spec": {"type": "ExternalName", "externalName": "x"}}),
            serde_json::json!({"metadata": {"labels": {PROXY_NAME_LABEL: "other"}}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}),
            serde_json::json!({"metadata": {"labels": {HEADLESS_LABEL: ""}}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}),
        ] {
            assert_eq!(read(json).0, None);
        }
    }

    #[test]
    fn load_balancer_addresses_count_unless_the_balancer_terminates() {
        let (facts, problems) = read(serde_json::json!({
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "externalIPs": ["203.0.113.7"], "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "x"}]}}
        }));
        let facts = facts.unwrap();
        let texts = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&facts.external_ips), ["203.0.113.7"]);
        assert_eq!(texts(&facts.balancer_ips), ["198.51.100.1"]);
        assert_eq!(facts.cluster_ips.len(), 2);
        assert!(problems.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_named() {
        let (facts, problems) = read(serde_json::json!({"spec": {
            "clusterIP": "10.96.0.9", "externalIPs": ["1.2.3", "010.000.0.007"],
            "ports": [{"port": 80, "protocol": "DCCP"}, {"port": 0}, {"port": 81, "nodePort": 70000}]
        }}));
        let facts = facts.unwrap();
        assert_eq!(facts.external_ips, [IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(facts.ports.len(), 1);
        assert_eq!(facts.ports[0].node_port, None);
        assert_eq!(
            problems,
            [
                "ns/a: spec.externalIPs: \"1.2.3\" is no IP address",
                "ns/a: spec.ports.protocol: \"DCCP\" is not supported",
                "ns/a: spec.ports.port: 0 is no port (1-65535)",
                "ns/a: spec.ports.nodePort: 70000 is no port (1-65535)",
            ]
        );
    }

    #[test]
    fn affinity_has_upstreams_default_timeout() {
        let spec = |extra: serde_json::Value| {
            let mut json =
                serde_json::json!({"spec": {"clusterIP": "10.96.0.9", "sessionAffinity": "ClientIP"}});
            json["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            read(json).0.unwrap().affinity_s
        };
        assert_eq!(spec(serde_json::json!({})), 10_800);
        assert_eq!(
            spec(serde_json::json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}})),
            7
        );
        assert_eq!(spec(serde_json::json!({"sessionAffinity": "None"})), 0);
    }

    #[test]
    fn a_health_check_belongs_to_load_balancers_with_local_policy() {
        for (kind, policy, port, expected) in [
            ("LoadBalancer", "Local", 32_000, Some(32_000)),
            ("LoadBalancer", "Cluster", 32_000, None),
            ("NodePort", "Local", 32_000, None),
            ("LoadBalancer", "Local", 0, None),
        ] {
            let facts = read(serde_json::json!({"spec": {
                "clusterIP": "10.96.0.9", "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port
            }}));
            assert_eq!(facts.0.unwrap().health_port, expected, "{kind} {policy} {port}");
        }
    }
}
