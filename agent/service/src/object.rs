//! What the tables need of a Service and of an EndpointSlice, taken from the objects once. Everything else is ignored here.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::topology::Endpoint;
use crate::{Family, ObjectKey, Problem, Protocol};

/// A Service with this label is somebody else's to proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// A Service with this label is not proxied.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The Service that an EndpointSlice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// sessionAffinityConfig.clientIP.timeoutSeconds when it is not set (upstream's default: three hours).
const DEFAULT_AFFINITY_S: u32 = 10_800;

/// A Service that is to be proxied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceFacts {
    /// clusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// externalIPs and load balancer addresses (ipMode VIP).
    pub external_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<PortFacts>,
    /// internalTrafficPolicy=Local.
    pub internal_local: bool,
    /// externalTrafficPolicy=Local.
    pub external_local: bool,
    /// ClientIP affinity timeout in seconds, 0 without affinity.
    pub affinity_s: u32,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// Name, empty if it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// Node port.
    pub node_port: Option<u16>,
}

/// The endpoints of one EndpointSlice, by port name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// Family of all addresses.
    pub family: Family,
    /// Port name, protocol, number.
    pub ports: Vec<(String, Protocol, u16)>,
    /// Endpoints; `port` is zero here and filled in for each port.
    pub endpoints: Vec<Endpoint>,
}

/// Problems of one object, collected while it is read.
struct Reader<'a> {
    object: &'a ObjectKey,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            object: self.object.clone(),
            field: field.into(),
            message: message.into(),
        });
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = parse_address(text);
        if address.is_none() {
            self.problem(field, format!("\"{text}\" is no IP address"));
        }
        address
    }

    fn port(&mut self, field: &str, number: i32) -> Option<u16> {
        match u16::try_from(number) {
            Ok(port) if port != 0 => Some(port),
            _ => {
                self.problem(field, format!("{number} is no port (1-65535)"));
                None
            }
        }
    }
}

/// Reads an address. IPv4 octets with leading zeros, which old stores may hold, are decimal (as upstream reads them).
pub fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let octets: Vec<u8> = text.split('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
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
    let mut reader = Reader { object: key, problems };
    let cluster_ips = match spec.cluster_ips.as_deref() {
        Some(addresses) if !addresses.is_empty() => addresses.iter().map(String::as_str).collect(),
        _ => vec![cluster_ip],
    };
    let cluster_ips =
        cluster_ips.into_iter().filter_map(|text| reader.address("spec.clusterIPs", text)).collect();
    let mut external_ips: Vec<IpAddr> = Vec::new();
    for text in spec.external_ips.iter().flatten() {
        external_ips.extend(reader.address("spec.externalIPs", text));
    }
    let ingress = service
        .status
        .iter()
        .flat_map(|status| &status.load_balancer)
        .flat_map(|balancer| balancer.ingress.iter().flatten());
    for point in ingress.filter(|point| point.ip_mode.as_deref() != Some("Proxy")) {
        if let Some(text) = &point.ip {
            external_ips.extend(reader.address("status.loadBalancer.ingress", text));
        }
    }
    external_ips.sort();
    external_ips.dedup();
    let ports = spec.ports.iter().flatten().filter_map(|port| port_facts(port, &mut reader)).collect();
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let timeout =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(ServiceFacts {
        cluster_ips,
        external_ips,
        ports,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity_s: if affinity {
            timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_S)
        } else {
            0
        },
    })
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
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: reader.port("spec.ports.port", port.port)?,
        node_port: match port.node_port {
            Some(number) if number != 0 => reader.port("spec.ports.nodePort", number),
            _ => None,
        },
    })
}

/// The Service that a slice belongs to.
pub fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

/// Takes the facts of an EndpointSlice; `None` if it carries no IP addresses.
pub fn slice(key: &ObjectKey, slice: &EndpointSlice, problems: &mut Vec<Problem>) -> Option<SliceFacts> {
    let mut reader = Reader { object: key, problems };
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    let mut ports = Vec::new();
    for port in slice.ports.iter().flatten() {
        let Some(protocol) = Protocol::from_name(port.protocol.as_deref()) else {
            reader.problem(
                "ports.protocol",
                format!("\"{}\" is not supported", port.protocol.as_deref().unwrap_or_default()),
            );
            continue;
        };
        // A port without a number means "all ports", which a service cannot ask for.
        if let Some(number) = port.port.and_then(|number| reader.port("ports.port", number)) {
            ports.push((port.name.clone().unwrap_or_default(), protocol, number));
        }
    }
    let endpoints = slice.endpoints.iter().filter_map(|found| endpoint(found, family, &mut reader)).collect();
    Some(SliceFacts { family, ports, endpoints })
}

fn endpoint(endpoint: &ApiEndpoint, family: Family, reader: &mut Reader<'_>) -> Option<Endpoint> {
    // All addresses of an endpoint are fungible and consumers use the first (discovery/v1, field `addresses`).
    let Some(text) = endpoint.addresses.first() else {
        reader.problem("endpoints.addresses", "is empty");
        return None;
    };
    let address = reader.address("endpoints.addresses", text)?;
    if Family::from(address) != family {
        reader.problem("endpoints.addresses", format!("\"{text}\" is not of the slice's addressType"));
        return None;
    }
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        reader.problem("endpoints.addresses", format!("\"{text}\" cannot be an endpoint"));
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    Some(Endpoint {
        address,
        port: 0,
        ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: endpoint.node_name.clone().unwrap_or_default(),
        zone_hints: hints
            .into_iter()
            .flat_map(|hints| hints.for_zones.iter().flatten())
            .map(|zone| zone.name.clone())
            .collect(),
        node_hints: hints
            .into_iter()
            .flat_map(|hints| hints.for_nodes.iter().flatten())
            .map(|node| node.name.clone())
            .collect(),
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
        let texts: Vec<String> = facts.external_ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["198.51.100.1", "203.0.113.7"]);
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
    fn absent_conditions_mean_ready_and_bad_endpoints_are_named() {
        let json = serde_json::json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080}, {"name": "any"}], "endpoints": [
            {"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["fd00::1"]}, {"addresses": ["127.0.0.1"]}, {"addresses": []},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}, "nodeName": "n"}
        ]});
        let mut problems = Vec::new();
        let facts =
            slice(&ObjectKey::new("ns", "a-x"), &serde_json::from_value(json).unwrap(), &mut problems)
                .unwrap();
        assert_eq!(facts.ports, [("http".to_owned(), Protocol::Tcp, 8080)]);
        let states: Vec<_> = facts
            .endpoints
            .iter()
            .map(|e| (e.address.to_string(), e.ready, e.serving, e.terminating))
            .collect();
        assert_eq!(
            states,
            [("10.0.0.1".to_owned(), true, true, false), ("10.0.0.3".to_owned(), false, true, true)]
        );
        assert_eq!(problems.len(), 3);
    }
}
