//! What the tables need of an EndpointSlice, taken from the object once.

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::balancing;
use crate::places::Places;
use crate::reader::Reader;
use crate::topology::{Endpoint, Marks};
use crate::{Family, ObjectKey, Problem, Protocol};

/// The Service that an EndpointSlice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The endpoints of one EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// metadata.name.
    pub name: Box<str>,
    /// Family of all addresses.
    pub family: Family,
    /// Weight of all endpoints.
    pub weight: u8,
    /// Ports that every endpoint has.
    pub ports: Box<[SlicePort]>,
    /// Endpoints.
    pub endpoints: Box<[Endpoint]>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port, empty if it has none.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Target port.
    pub port: u16,
}

/// Name of the Service that a slice belongs to, in the slice's namespace.
pub fn owner(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL).map(String::as_str)
}

/// Takes the facts of an EndpointSlice; `None` if it carries no IP addresses.
pub fn slice(
    key: &ObjectKey,
    slice: &EndpointSlice,
    places: &mut Places,
    problems: &mut Vec<Problem>,
) -> Option<SliceFacts> {
    let reader = &mut Reader::new(key, problems);
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
        if let Some(port_number) = port.port.and_then(|number| reader.port("ports.port", number)) {
            let name = port.name.as_deref().unwrap_or_default().into();
            ports.push(SlicePort { name, protocol, port: port_number });
        }
    }
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    endpoints.extend(slice.endpoints.iter().filter_map(|found| endpoint(found, family, places, reader)));
    Some(SliceFacts {
        name: key.name.as_str().into(),
        family,
        weight: balancing::weight(slice.metadata.annotations.as_ref(), reader),
        ports: ports.into(),
        endpoints: endpoints.into(),
    })
}

fn endpoint(
    endpoint: &ApiEndpoint,
    family: Family,
    places: &mut Places,
    reader: &mut Reader<'_>,
) -> Option<Endpoint> {
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
    let condition = |value: Option<bool>, absent: bool| value.unwrap_or(absent);
    let hints = endpoint.hints.as_ref();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    Some(Endpoint {
        address,
        marks: Marks::default()
            .with(Marks::READY, condition(conditions.and_then(|conditions| conditions.ready), true))
            .with(Marks::SERVING, condition(conditions.and_then(|conditions| conditions.serving), true))
            .with(
                Marks::TERMINATING,
                condition(conditions.and_then(|conditions| conditions.terminating), false),
            )
            .with(Marks::NODE_HINTS, !nodes.is_empty())
            .with(Marks::HINTED_HERE, nodes.iter().any(|node| node.name == places.name())),
        node: places.node(endpoint.node_name.as_deref().unwrap_or_default()),
        zones: places.zones(zones.iter().map(|zone| zone.name.as_str())),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn absent_conditions_mean_ready_and_bad_endpoints_are_named() {
        let json = serde_json::json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080}, {"name": "any"}], "endpoints": [
            {"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["fd00::1"]}, {"addresses": ["127.0.0.1"]}, {"addresses": []},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}, "nodeName": "n"}
        ]});
        let (mut places, mut problems) = (Places::new("here".into()), Vec::new());
        let facts = slice(
            &ObjectKey::new("ns", "a-x"),
            &serde_json::from_value(json).unwrap(),
            &mut places,
            &mut problems,
        )
        .unwrap();
        let http = SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 };
        assert_eq!((&*facts.ports, facts.weight), (&[http][..], 1));
        let states: Vec<_> = facts
            .endpoints
            .iter()
            .map(|found| (found.address.to_string(), found.marks, found.node == places.node("n")))
            .collect();
        assert_eq!(
            states,
            [
                ("10.0.0.1".to_owned(), Marks::READY.with(Marks::SERVING, true), false),
                ("10.0.0.3".to_owned(), Marks::SERVING.with(Marks::TERMINATING, true), true)
            ]
        );
        assert_eq!(problems.len(), 3);
    }
}
