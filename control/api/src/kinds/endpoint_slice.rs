//! discovery.k8s.io/v1 EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;

use super::at::At;
use super::{address, cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// discovery.k8s.io/v1 EndpointSlice.
#[derive(Debug, Clone, Copy)]
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for port in field::list_mut(object, "/ports") {
            if let Some(port) = port.as_object_mut() {
                field::set_if_absent(port, "name", "");
                field::set_if_absent(port, "protocol", "TCP");
            }
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let [now, before] = [&*new, old].map(|object| field::at(object, "/metadata/labels"));
        let changed = metadata::body_changed(new, old) || !field::same(now, before);
        metadata::count_generation(new, old, changed);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let family = field::text(object, "/addressType");
        match family {
            "" => errors.push(FieldError::required("addressType", "")),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.push(FieldError::not_supported("addressType", other, &["FQDN", "IPv4", "IPv6"])),
        }
        let endpoints = field::list(object, "/endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
        } else {
            for (index, endpoint) in endpoints.iter().enumerate() {
                validate_endpoint(endpoint, family, &format!("endpoints[{index}]"), &mut errors);
            }
        }
        validate_ports(object, &mut errors);
        errors
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        metadata::immutable(new, old, "/addressType", "addressType").into_iter().collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("AddressType", "Family of all addresses of the slice."),
            Column::text("Ports", "Ports of all endpoints of the slice."),
            Column::text("Endpoints", "Addresses of the endpoints."),
            Column::AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        const UNSET: &str = "<unset>";
        let ports: Vec<String> = field::list(object, "/ports")
            .iter()
            .map(|port| match field::integer(port, "/port") {
                Some(number) => number.to_string(),
                None => port.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
            })
            .collect();
        let addresses: Vec<String> = field::list(object, "/endpoints")
            .iter()
            .flat_map(|endpoint| field::items(endpoint, "/addresses"))
            .map(ToOwned::to_owned)
            .collect();
        vec![
            cell::name(object),
            field::text(object, "/addressType").into(),
            cell::first_three(&ports, UNSET).into(),
            cell::first_three(&addresses, UNSET).into(),
            cell::age(object, now),
        ]
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

fn validate_endpoint(endpoint: &Value, family: &str, path: &str, errors: &mut Vec<FieldError>) {
    let addresses: Vec<&str> = field::items(endpoint, "/addresses").collect();
    if addresses.is_empty() {
        errors.push(FieldError::required(format!("{path}.addresses"), "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(format!("{path}.addresses"), addresses.len(), ADDRESSES_MAX));
    }
    for (index, text) in addresses.iter().enumerate() {
        let path = format!("{path}.addresses[{index}]");
        match family {
            "IPv4" | "IPv6" => {
                let wrong = address::of_family(&path, text, family);
                errors.extend(wrong.or_else(|| address::special_ip(&path, text)));
            }
            "FQDN" => metadata::invalid(
                errors,
                &path,
                text,
                names::dns_subdomain(text.strip_suffix('.').unwrap_or(text)),
            ),
            _ => {}
        }
    }
    let named =
        [("nodeName", names::dns_subdomain as fn(&str) -> Vec<String>), ("hostname", names::dns_label)];
    for (key, rule) in named {
        if let Some(text) = field::at(endpoint, &format!("/{key}")).and_then(Value::as_str) {
            metadata::invalid(errors, &format!("{path}.{key}"), text, rule(text));
        }
    }
    for key in ["forZones", "forNodes"] {
        let hints = field::list(endpoint, &format!("/hints/{key}")).len();
        if hints > HINTS_MAX {
            errors.push(FieldError::too_many(format!("{path}.hints.{key}"), hints, HINTS_MAX));
        }
    }
}

fn validate_ports(object: &Value, errors: &mut Vec<FieldError>) {
    let slice = At::new(object, "");
    let count = slice.len("ports");
    if count > PORTS_MAX {
        errors.push(FieldError::too_many("ports", count, PORTS_MAX));
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for port in slice.items("ports") {
        port.check_text("name", names::dns_label, errors);
        let name = port.text("name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(port.path_of("name"), name));
        }
        seen.push(name);
        port.check_protocol(errors);
        port.check_text("appProtocol", names::qualified_name, errors);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_some_of_the_endpoints() {
        let slice = |endpoints: Value| json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}], "endpoints": endpoints});
        let row = |object: &Value| EndpointSlice.cells(object, "2026-01-01T00:00:00Z".parse().unwrap());
        let many: Vec<Value> = (1..6).map(|i| json!({"addresses": [format!("10.0.0.{i}")]})).collect();
        assert_eq!(
            row(&slice(many.into()))[1..4],
            ["IPv4", "80,x", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."].map(Value::from)
        );
        assert_eq!(row(&slice(json!([])))[3], "<unset>");
    }

    #[test]
    fn endpoints_have_addresses_of_the_family() {
        let check = |object: Value, expected: &[&str]| {
            assert_eq!(
                EndpointSlice.validate(&object).iter().map(ToString::to_string).collect::<Vec<_>>(),
                expected
            );
        };
        check(
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "protocol": "TCP"}]}),
            &[],
        );
        check(
            json!({
                "addressType": "IPv6",
                "endpoints": [{"addresses": []}, {"addresses": ["10.0.0.1", "::1"]}],
                "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "QUIC"}],
            }),
            &[
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                "endpoints[1].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address",
                "endpoints[1].addresses[1]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "ports[1].name: Duplicate value: \"a\"",
                "ports[1].protocol: Unsupported value: \"QUIC\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
        let many: Vec<Value> = (0..1001).map(|_| json!({"addresses": ["10.0.0.1"]})).collect();
        check(
            json!({"addressType": "IPv4", "endpoints": many}),
            &["endpoints: Too many: 1001: must have at most 1000 items"],
        );
        let moved = EndpointSlice
            .validate_transition(&json!({"addressType": "IPv6"}), &json!({"addressType": "IPv4"}));
        assert_eq!(moved[0].to_string(), "addressType: Invalid value: \"IPv6\": field is immutable");
    }

    #[test]
    fn generation_counts_what_proxies_act_on() {
        let old = json!({"metadata": {"generation": 1}, "endpoints": []});
        let mut same = json!({"metadata": {"annotations": {"a": "b"}}, "endpoints": []});
        EndpointSlice.prepare_update(&mut same, &old);
        assert_eq!(same["metadata"]["generation"], 1);
        let mut changed = json!({"metadata": {}, "endpoints": [{"addresses": ["10.0.0.1"]}]});
        EndpointSlice.prepare_update(&mut changed, &old);
        assert_eq!(changed["metadata"]["generation"], 2);
    }
}
