//! The row that `kubectl get services` shows (kubernetes `printService`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::{cell, field};
use crate::strategy::Column;

/// Columns of services.
pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Type", "How far the service is published."),
    Column::text("Cluster-IP", "Address of the service inside the cluster."),
    Column::text("External-IP", "Addresses of the service outside the cluster."),
    Column::text("Port(s)", "Ports, node ports and protocols."),
    Column::AGE,
    Column::wide("Selector", "Labels of the pods behind the service."),
];

/// One row of `COLUMNS`.
#[must_use]
pub fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = field::items(service, "/spec/clusterIPs").next().unwrap_or(cell::NONE);
    vec![
        cell::name(service),
        field::text(service, "/spec/type").into(),
        cluster_ip.into(),
        external_addresses(service).into(),
        cell::or_none(ports(service)).into(),
        cell::age(service, now),
        cell::labels(service, "/spec/selector").into(),
    ]
}

fn external_addresses(service: &Value) -> String {
    let external = field::items(service, "/spec/externalIPs").map(ToOwned::to_owned);
    match field::text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => cell::or_none(external.collect::<Vec<_>>().join(",")),
        "LoadBalancer" => {
            let given: BTreeSet<&str> = field::list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|ingress| match field::text(ingress, "/ip") {
                    "" => field::text(ingress, "/hostname"),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            let all: Vec<String> = given.into_iter().map(ToOwned::to_owned).chain(external).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => field::text(service, "/spec/externalName").to_owned(),
        _ => cell::UNKNOWN.to_owned(),
    }
}

fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        let number = field::integer(port, "/port").unwrap_or(0);
        let protocol = field::text(port, "/protocol");
        match field::integer(port, "/nodePort") {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    field::list(service, "/spec/ports").iter().map(port).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_addresses_and_ports() {
        let check = |spec: Value, status: Value, expected: [&str; 4]| {
            let service = json!({"metadata": {"name": "s"}, "spec": spec, "status": status});
            let row = cells(&service, "2026-01-01T00:00:00Z".parse().unwrap());
            assert_eq!(row[1..5], expected.map(Value::from));
            assert_eq!(row.len(), COLUMNS.len());
        };
        check(
            json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"port": 443, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!({}),
            ["ClusterIP", "10.96.0.1", "<none>", "443/TCP,53/UDP"],
        );
        check(
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.2"], "externalIPs": ["1.1.1.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}),
            json!({}),
            ["NodePort", "10.96.0.2", "1.1.1.1", "80:30080/TCP"],
        );
        check(json!({"type": "LoadBalancer"}), json!({}), ["LoadBalancer", "<none>", "<pending>", "<none>"]);
        check(
            json!({"type": "LoadBalancer", "clusterIPs": ["None"]}),
            json!({"loadBalancer": {"ingress": [{"hostname": "b"}, {"ip": "a"}]}}),
            ["LoadBalancer", "None", "a,b", "<none>"],
        );
        check(
            json!({"type": "ExternalName", "externalName": "a.b"}),
            json!({}),
            ["ExternalName", "<none>", "a.b", "<none>"],
        );
    }
}
