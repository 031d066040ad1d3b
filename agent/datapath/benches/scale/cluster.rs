//! A cluster that exists in numbers only: its Services and EndpointSlices, each made when it is asked for.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use service::NodeFacts;

/// Endpoints of one EndpointSlice, as the controller writes them (maxEndpointsPerSlice).
const PER_SLICE: usize = 100;
/// Nodes over which endpoints are spread.
const NODES: usize = 100;

/// Its size.
#[derive(Clone, Copy)]
pub struct Cluster {
    pub services: usize,
    pub endpoints: usize,
    pub dual: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { services: 10_000, endpoints: 3, dual: false }
    }
}

impl Cluster {
    pub fn nodes(&self) -> Vec<NodeFacts> {
        let address = |index: usize| format!("172.30.{}.{}", index / 200, 11 + index % 200);
        let facts = |index| NodeFacts {
            name: format!("node{index}"),
            number: index as u16 + 1,
            addresses: address(index).parse().into_iter().collect(),
        };
        (0..NODES).map(facts).collect()
    }

    /// The Service with this number: a cluster IP in each family, one port.
    pub fn service(&self, index: usize) -> Service {
        let mut ips = vec![format!("10.{}.{}.{}", 96 + (index >> 16), index >> 8 & 255, index & 255)];
        if self.dual {
            ips.push(format!("fd00:96::{index:x}"));
        }
        object(json!({
            "metadata": {"namespace": "default", "name": format!("s{index}")},
            "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
        }))
    }

    /// Its EndpointSlices.
    pub fn slices(&self, index: usize) -> Vec<EndpointSlice> {
        let families: &[bool] = if self.dual { &[false, true] } else { &[false] };
        let slices = self.endpoints.div_ceil(PER_SLICE);
        families.iter().flat_map(|six| (0..slices).map(|part| self.slice(index, part, *six, None))).collect()
    }

    /// The slice that the change with this number brings: its last endpoint is another one.
    pub fn changed(&self, change: usize) -> EndpointSlice {
        // A step that meets every service before it meets one again.
        let index = change.wrapping_mul(7919) % self.services;
        self.slice(index, 0, false, Some(change))
    }

    fn slice(&self, index: usize, part: usize, six: bool, change: Option<usize>) -> EndpointSlice {
        let first = part * PER_SLICE;
        let last = self.endpoints.min(first + PER_SLICE);
        let endpoint = |position: usize| {
            let mut number = index * self.endpoints + position;
            if let Some(change) = change.filter(|_| position + 1 == last) {
                // Beyond all that were ever in use.
                number = self.services * self.endpoints + change % 4096;
            }
            let address = if six {
                format!("fd00:128::{:x}:{:x}", number >> 16, number & 0xffff)
            } else {
                format!("10.{}.{}.{}", 128 + (number >> 16), number >> 8 & 255, number & 255)
            };
            json!({
                "addresses": [address], "nodeName": format!("node{}", number % NODES),
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("s{index}-{number}")},
            })
        };
        let family = if six { "IPv6" } else { "IPv4" };
        object(json!({
            "metadata": {"namespace": "default", "name": format!("s{index}-{family}-{part}"), "labels": {"kubernetes.io/service-name": format!("s{index}")}},
            "addressType": family,
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": (first..last).map(endpoint).collect::<Vec<_>>(),
        }))
    }
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("an object of this file: {error}"))
}
