//! discovery.k8s.io/v1 EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata};
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
        let labels = |object: &Value| object.pointer("/metadata/labels").cloned();
        let changed = metadata::body_changed(new, old) || !field::same(labels(new).as_ref(), labels(old).as_ref());
        metadata::count_generation(new, old, changed);
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
        assert_eq!(row(&slice(many.into()))[1..4], ["IPv4", "80,x", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more..."].map(Value::from));
        assert_eq!(row(&slice(json!([])))[3], "<unset>");
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
