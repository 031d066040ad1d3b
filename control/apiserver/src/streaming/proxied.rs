//! Which address `pods/NAME/proxy` and `services/NAME/proxy` lead to. A name may carry a scheme and a port:
//! `[http:]NAME[:PORT]`, where a service's port may be named.
//!
//! The server must have a route to pod addresses, as upstream's. Not here: the scheme `https`.

use std::net::{IpAddr, SocketAddr};

use api::status::{ApiError, quote};
use serde_json::Value;

use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Port of a pod that declares none.
const HTTP: u16 = 80;

/// Address and port behind `pods` or `services` of that name.
pub async fn address(
    registry: &Registry,
    resource: &str,
    namespace: &str,
    asked: &str,
) -> Result<SocketAddr, ApiError> {
    let Asked { name, port } = Asked::parse(asked)?;
    if resource == "pods" {
        let pod = registry.get(rows::pods(), namespace, name).await?.value();
        return of_pod(&pod, port).and_then(permitted);
    }
    let service = registry.get(rows::services(), namespace, name).await?.value();
    let slices: Vec<Value> = registry
        .list_cached(rows::endpoint_slices(), namespace)
        .iter()
        .filter(|slice| slice.meta.label(SERVICE_NAME) == Some(name))
        .map(|slice| slice.value())
        .collect();
    let mut ready = of_service(&service, &slices, port)?;
    permitted(ready.swap_remove(rand::random_range(0..ready.len())))
}

/// Who writes a pod's status or an endpoint must not thereby reach the control plane's own host.
fn permitted(address: SocketAddr) -> Result<SocketAddr, ApiError> {
    let local = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
    };
    if local { Err(ApiError::bad_request("address not allowed")) } else { Ok(address) }
}

#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [name] => Ok(Self { name, port: "" }),
            [name, port] if !matches!(*name, "http" | "https") => Ok(Self { name, port }),
            ["http" | "", name] => Ok(Self { name, port: "" }),
            ["http" | "", name, port] => Ok(Self { name, port }),
            ["https", ..] => {
                Err(ApiError::bad_request(format!("proxying by https is not supported: {}", quote(text))))
            }
            _ => Err(ApiError::bad_request(format!("invalid proxy request {}", quote(text)))),
        }
    }
}

fn of_pod(pod: &Value, port: &str) -> Result<SocketAddr, ApiError> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let ip: IpAddr = pod["status"]["podIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| ApiError::bad_request(format!("pod {} has no IP address", quote(name))))?;
    if !port.is_empty() {
        let number =
            port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {}", quote(port))))?;
        return Ok(SocketAddr::new(ip, number));
    }
    let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = containers.iter().find_map(|container| container["ports"][0]["containerPort"].as_u64());
    Ok(SocketAddr::new(ip, first.and_then(|port| u16::try_from(port).ok()).unwrap_or(HTTP)))
}

/// The ready endpoints of a service at one of its ports; never empty.
fn of_service(service: &Value, slices: &[Value], asked: &str) -> Result<Vec<SocketAddr>, ApiError> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = match asked {
        "" => ports.first().filter(|_| ports.len() == 1),
        _ => ports.iter().find(|port| {
            port["name"] == asked || asked.parse().is_ok_and(|number: u64| port["port"] == number)
        }),
    };
    let port = port.ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no service port {} found for service {}",
            quote(asked),
            quote(name)
        ))
    })?;
    let port_name = port["name"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for slice in slices {
        let numbers = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let number = numbers
            .iter()
            .find(|port| port["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(number) = number else { continue };
        let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let address =
                endpoint["addresses"][0].as_str().and_then(|address| address.parse::<IpAddr>().ok());
            found.extend(address.map(|address| SocketAddr::new(address, number)));
        }
    }
    if found.is_empty() {
        return Err(ApiError::service_unavailable(format!(
            "no endpoints available for service {}",
            quote(name)
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_may_carry_scheme_and_port() {
        for (text, expected) in [
            ("web", Some(("web", ""))),
            ("web:80", Some(("web", "80"))),
            ("http:web:", Some(("web", ""))),
            ("http:web:metrics", Some(("web", "metrics"))),
            ("http:web", Some(("web", ""))),
            ("https:web:443", None),
            ("a:b:c:d", None),
        ] {
            let parsed = Asked::parse(text).ok().map(|asked| (asked.name, asked.port));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_the_servers_own_host_are_refused() {
        for (address, expected) in [
            ("10.244.1.5:80", true),
            ("[fd00:10:244::5]:80", true),
            ("127.0.0.1:2379", false),
            ("[::1]:2379", false),
            ("169.254.169.254:80", false),
            ("[fe80::1]:80", false),
            ("0.0.0.0:80", false),
        ] {
            assert_eq!(
                address.parse().map(permitted).is_ok_and(|outcome| outcome.is_ok()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_unless_told() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"podIP": "10.244.1.5"},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]}});
        let at =
            |port: &str| of_pod(&pod, port).map(|address| address.to_string()).map_err(|error| error.message);
        assert_eq!(at(""), Ok("10.244.1.5:8080".into()));
        assert_eq!(at("9"), Ok("10.244.1.5:9".into()));
        assert_eq!(at("x"), Err(r#"invalid port "x""#.into()));
        let pending = json!({"metadata": {"name": "p"}});
        assert_eq!(
            of_pod(&pending, "").map_err(|error| error.message),
            Err(r#"pod "p" has no IP address"#.into())
        );
    }

    #[test]
    fn a_service_is_reached_at_ready_endpoints_of_the_port_asked_for() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "m", "port": 81}]}});
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}, {"name": "m", "port": 9090}],
            "endpoints": [
                {"addresses": ["10.244.1.5"], "conditions": {"ready": true}},
                {"addresses": ["10.244.2.6"], "conditions": {"ready": false}},
                {"addresses": ["10.244.2.7"]},
            ],
        });
        let at = |port: &str| {
            of_service(&service, std::slice::from_ref(&slice), port)
                .map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|error| error.message)
        };
        assert_eq!(at("http"), Ok("10.244.1.5:8080 10.244.2.7:8080".into()));
        assert_eq!(at("81"), Ok("10.244.1.5:9090 10.244.2.7:9090".into()));
        assert_eq!(at(""), Err(r#"no service port "" found for service "web""#.into()));
        let nobody = of_service(&service, &[], "http").map_err(|error| (error.code(), error.message));
        assert_eq!(nobody, Err((503, r#"no endpoints available for service "web""#.into())));
    }
}
