//! What `perf control` creates, as objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::flags::Family;
use crate::service::manifest::PORT;

/// Label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The pods between which endpoints are flipped.
pub(super) const SERVERS: [&str; 2] = ["perf-server-a", "perf-server-b"];
/// The prober's pod.
pub(super) const CLIENT: &str = "perf-client";
/// The Service whose endpoints are flipped, and its slice.
pub(super) const FLIPPED: &str = "perf-flipped";
/// The Service of the pods that are started one after another, and their label.
pub(super) const STARTED: &str = "perf-started";
/// Endpoints of each Service that is only there.
pub(super) const ENDPOINTS: usize = 3;
/// As many have addresses of their own.
pub(super) const MOST_SERVICES: usize = (1 << 17) / ENDPOINTS - 1;

impl Family {
    /// As the API calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// Whether an address is of it.
    pub(super) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ipv4)
    }

    /// An address that is nobody's: of the ranges for benchmarks (RFC 2544 and RFC 5180).
    fn nobodys(self, number: usize) -> IpAddr {
        let number = u32::try_from(number + 1).unwrap_or(u32::MAX);
        match self {
            Self::Ipv4 => Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 0]) + number).into(),
            Self::Ipv6 => Ipv6Addr::from_bits((0x2001_0002_u128 << 96) + u128::from(number)).into(),
        }
    }
}

/// The name of a Service that is only there, and of its slice.
pub(super) fn background(index: usize) -> String {
    format!("perf-background-{index}")
}

/// The endpoints of a Service that is only there: nothing is sent to them.
pub(super) fn background_endpoints(family: Family, index: usize) -> Vec<IpAddr> {
    (0..ENDPOINTS).map(|endpoint| family.nobodys(index * ENDPOINTS + endpoint)).collect()
}

/// A Service without selector. The API server chooses its address if none is given.
pub(super) fn service(name: &str, family: Family, address: Option<IpAddr>) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "ipFamilies": [family.name()], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "udp", "port": PORT, "targetPort": PORT, "protocol": "UDP"}],
        },
    });
    if let Some(address) = address {
        service["spec"]["clusterIP"] = json!(address);
        service["spec"]["clusterIPs"] = json!([address]);
    }
    service
}

/// The Service of pods that carry its name as a label.
pub(super) fn service_of_pods(name: &str, family: Family) -> Value {
    let mut service = service(name, family, None);
    service["spec"]["selector"] = json!({"app": name});
    service
}

/// The EndpointSlice of a Service, by the same name.
pub(super) fn slice(service: &str, family: Family, endpoints: &[IpAddr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": service, "labels": {
            (SERVICE_NAME): service, "endpointslice.kubernetes.io/managed-by": "perf",
        }},
        "addressType": family.name(),
        "ports": [{"name": "udp", "port": PORT, "protocol": "UDP"}],
        "endpoints": endpoint_list(endpoints),
    })
}

/// What changes of a slice when its endpoints do.
pub(super) fn change(endpoints: &[IpAddr]) -> Value {
    json!({"endpoints": endpoint_list(endpoints)})
}

fn endpoint_list(endpoints: &[IpAddr]) -> Vec<Value> {
    endpoints.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect()
}

/// A pod of the Service of started pods: without a probe, so that it is Ready as soon as it runs, and without a node, so
/// that a scheduler chooses one. Without environment variables of Services: those of ten thousand are more than a program
/// can be started with.
pub(super) fn started(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": STARTED}},
        "spec": {
            "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{
                "name": "perf", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/echo"],
                "ports": [{"containerPort": PORT, "protocol": "UDP"}],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::*;

    #[test]
    fn objects_are_what_the_api_takes() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let endpoints = background_endpoints(family, 7);
            let slice: EndpointSlice = serde_json::from_value(slice("a", family, &endpoints)).unwrap();
            assert_eq!((slice.endpoints.len(), slice.address_type.as_str()), (ENDPOINTS, family.name()));
            let given = endpoints[0];
            let service: Service = serde_json::from_value(service("a", family, Some(given))).unwrap();
            assert_eq!(service.spec.unwrap().cluster_ip, Some(given.to_string()));
        }
        let pod: Pod = serde_json::from_value(started("p", "perf")).unwrap();
        assert_eq!(pod.spec.unwrap().node_name, None);
    }

    #[test]
    fn endpoints_that_nobody_has_differ_and_stay_in_their_range() {
        let all: BTreeSet<_> =
            (0..10_000).flat_map(|index| background_endpoints(Family::Ipv4, index)).collect();
        assert_eq!(all.len(), 10_000 * ENDPOINTS);
        let last = background_endpoints(Family::Ipv4, MOST_SERVICES - 1);
        assert!(last.iter().all(|address| *address < IpAddr::from([198, 20, 0, 0])), "{last:?}");
        let of_six = background_endpoints(Family::Ipv6, 0);
        assert_eq!(of_six[0], "2001:2::1".parse::<IpAddr>().unwrap());
    }
}
