//! core/v1 Endpoints: the older, single-object form of endpoint slices.

use jiff::Timestamp;
use serde_json::Value;

use super::at::At;
use super::{address, cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// core/v1 Endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in field::list_mut(object, "/subsets") {
            for port in field::list_mut(subset, "/ports") {
                if let Some(port) = port.as_object_mut() {
                    field::set_if_zero(port, "protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, subset) in field::list(object, "/subsets").iter().enumerate() {
            validate_subset(subset, &format!("subsets[{index}]"), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[Column::NAME, Column::text("Endpoints", "Addresses and ports that are ready."), Column::AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut ready = Vec::new();
        for subset in field::list(object, "/subsets") {
            let addresses =
                || field::list(subset, "/addresses").iter().map(|address| field::text(address, "/ip"));
            let ports = field::list(subset, "/ports");
            if ports.is_empty() {
                ready.extend(addresses().map(ToOwned::to_owned));
            }
            for port in ports {
                let port = field::integer(port, "/port").unwrap_or(0);
                ready.extend(addresses().map(|ip| {
                    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
                }));
            }
        }
        vec![cell::name(object), cell::first_three(&ready, cell::NONE).into(), cell::age(object, now)]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_subset(subset: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| field::list(subset, &format!("/{list}")).is_empty()) {
        errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for list in lists {
        for (index, entry) in field::list(subset, &format!("/{list}")).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            let ip = field::text(entry, "/ip");
            let wrong = address::invalid_ip(&format!("{path}.ip"), ip);
            errors.extend(wrong.or_else(|| address::special_ip(&format!("{path}.ip"), ip)));
            let hostname = field::text(entry, "/hostname");
            if !hostname.is_empty() {
                metadata::invalid(errors, &format!("{path}.hostname"), hostname, names::dns_label(hostname));
            }
        }
    }
    let subset = At::new(subset, path);
    let named = subset.len("ports") > 1;
    for port in subset.items("ports") {
        if named {
            port.demand("name", errors);
        }
        port.check_text("name", names::dns_label, errors);
        port.check_port("port", errors);
        port.check_protocol(errors);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_addresses_with_ports() {
        let cell = |subsets: Value| {
            Endpoints.cells(
                &json!({"metadata": {"name": "e"}, "subsets": subsets}),
                "2026-01-01T00:00:00Z".parse().unwrap(),
            )[1]
            .clone()
        };
        assert_eq!(
            cell(json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}])),
            "10.0.0.1:80,[fd00::1]:80"
        );
        assert_eq!(cell(json!([{"addresses": [{"ip": "10.0.0.1"}]}])), "10.0.0.1");
        assert_eq!(cell(json!([])), "<none>");
    }

    #[test]
    fn subsets_have_addresses_and_ports() {
        let errors = Endpoints.validate(&json!({"subsets": [{}, {"addresses": [{"ip": "x"}], "ports": [{"port": 0, "protocol": "TCP"}]}]}));
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
