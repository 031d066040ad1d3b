//! Services and EndpointSlices in terms of rules. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::peers::services::{Protocol, ServicePort};

/// Ports of Services with an IPv4 address and ready endpoints, in the order of their names: the same objects give the same rules.
pub(super) fn service_ports(services: &Value, slices: &Value) -> Vec<ServicePort> {
    let mut found: Vec<_> = items(services)
        .flat_map(|service| {
            items(&service["spec"]["ports"]).filter_map(move |port| one(service, port, slices))
        })
        .collect();
    found.sort_by_key(ServicePort::name);
    found
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().or_else(|| list["items"].as_array()).into_iter().flatten()
}

fn one(service: &Value, port: &Value, slices: &Value) -> Option<ServicePort> {
    let (spec, metadata) = (&service["spec"], &service["metadata"]);
    let ips = items(&spec["clusterIPs"]).filter_map(Value::as_str);
    let found = ServicePort {
        namespace: metadata["namespace"].as_str()?.to_owned(),
        service: metadata["name"].as_str()?.to_owned(),
        port_name: port["name"].as_str().unwrap_or_default().to_owned(),
        protocol: match port["protocol"].as_str() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => return None,
        },
        cluster_ip: ips.filter_map(|text| text.parse().ok()).next()?,
        port: number(&port["port"])?,
        node_port: number(&port["nodePort"]),
        endpoints: Vec::new(),
    };
    let endpoints = endpoints(&found, slices);
    (!endpoints.is_empty()).then_some(ServicePort { endpoints, ..found })
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn endpoints(of: &ServicePort, slices: &Value) -> Vec<(Ipv4Addr, u16)> {
    let own = items(slices).filter(|slice| {
        let metadata = &slice["metadata"];
        slice["addressType"] == "IPv4"
            && metadata["namespace"] == of.namespace.as_str()
            && metadata["labels"]["kubernetes.io/service-name"] == of.service.as_str()
    });
    let mut found = BTreeSet::new();
    for slice in own {
        let named = |port: &&Value| {
            port["name"].as_str().unwrap_or_default() == of.port_name
                && port["protocol"].as_str().unwrap_or("TCP").eq_ignore_ascii_case(of.protocol.as_str())
        };
        let Some(port) = items(&slice["ports"]).find(named).and_then(|port| number(&port["port"])) else {
            continue;
        };
        let ready = items(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok());
        found.extend(addresses.map(|address| (address, port)));
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, ips: Value, ports: Value) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIPs": ips, "ports": ports}})
    }

    fn slice(service: &str, family: &str, endpoints: Value) -> Value {
        json!({
            "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
            "addressType": family, "endpoints": endpoints,
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        })
    }

    #[test]
    fn ports_find_their_ready_endpoints_and_the_rest_has_no_rules() {
        let web = json!([{"name": "web", "port": 80, "protocol": "TCP", "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "absent", "port": 81, "protocol": "TCP"}, {"name": "web", "port": 82, "protocol": "SCTP"}]);
        let services = json!({"items": [
            service("both", json!(["fd00::7", "10.96.0.7"]), web.clone()),
            service("headless", json!(["None"]), web.clone()),
            service("empty", json!(["10.96.0.8"]), web),
        ]});
        let slices = json!({"items": [
            slice("both", "IPv6", json!([{"addresses": ["fd00::1"]}])),
            slice("both", "IPv4", json!([
                {"addresses": ["10.244.1.3"], "conditions": {"ready": true}},
                {"addresses": ["10.244.1.2"], "conditions": {}},
                {"addresses": ["10.244.1.9"], "conditions": {"ready": false}},
            ])),
            slice("empty", "IPv4", json!([])),
        ]});
        let seen: Vec<_> = service_ports(&services, &slices)
            .into_iter()
            .map(|port| {
                format!(
                    "{} {} {}:{} {:?} {:?}",
                    port.name(),
                    port.protocol.as_str(),
                    port.cluster_ip,
                    port.port,
                    port.node_port,
                    port.endpoints
                )
            })
            .collect();
        let expected = [
            "ns/both:dns udp 10.96.0.7:53 None [(10.244.1.2, 5353), (10.244.1.3, 5353)]",
            "ns/both:web tcp 10.96.0.7:80 Some(30080) [(10.244.1.2, 8080), (10.244.1.3, 8080)]",
        ];
        assert_eq!(seen, expected);
    }
}
