//! Service variables: how programs found services before DNS. Pure.

use k8s_openapi::api::core::v1::{Pod, Service};

use crate::pods::state::{namespace, spec};

/// Variables for the services that a pod sees: those of its namespace, unless it turned them off, and always
/// `default/kubernetes`.
pub fn variables<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> Vec<(String, String)> {
    let links = spec(pod).enable_service_links != Some(false);
    let mut list: Vec<&Service> = services
        .filter(|service| {
            let own = service.metadata.namespace.as_deref() == Some(namespace(pod));
            is_kubernetes(service) || (links && own)
        })
        .filter(|service| cluster_ip(service).is_some())
        .collect();
    // The pod's own namespace wins over default/kubernetes when both have a service of that name.
    list.sort_by_key(|service| (!is_kubernetes(service), service.metadata.name.clone()));
    list.into_iter().flat_map(of_service).collect()
}

fn is_kubernetes(service: &Service) -> bool {
    let meta = &service.metadata;
    meta.namespace.as_deref() == Some("default") && meta.name.as_deref() == Some("kubernetes")
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let (Some(ip), Some(spec)) = (cluster_ip(service), &service.spec) else { return Vec::new() };
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut list = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    if let Some(first) = ports.first() {
        list.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            list.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            list.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{protocol}", port.port);
        list.push((port_prefix.clone(), url));
        list.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
        list.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        list.push((format!("{port_prefix}_ADDR"), ip.to_owned()));
    }
    list
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"name": "web", "port": 80}, {"port": 53, "protocol": "UDP"}]}}))
        .unwrap()
    }

    fn names(links: bool) -> Vec<String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"namespace": "ns"}, "spec": {"enableServiceLinks": links, "containers": []}}),
        )
        .unwrap();
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("ns", "my-db", "10.96.0.7"),
            service("ns", "headless", "None"),
            service("other", "x", "10.96.0.8"),
        ];
        variables(&pod, services.iter()).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_pod_sees_its_own_namespace_and_kubernetes() {
        let found = names(true);
        for expected in [
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "MY_DB_SERVICE_HOST=10.96.0.7",
            "MY_DB_SERVICE_PORT=80",
            "MY_DB_SERVICE_PORT_WEB=80",
            "MY_DB_PORT=tcp://10.96.0.7:80",
            "MY_DB_PORT_53_UDP=udp://10.96.0.7:53",
            "MY_DB_PORT_53_UDP_ADDR=10.96.0.7",
        ] {
            assert!(found.contains(&expected.to_owned()), "{expected} in {found:?}");
        }
        assert!(!found.iter().any(|line| line.starts_with("X_") || line.starts_with("HEADLESS")));
    }

    #[test]
    fn links_turned_off_leave_only_kubernetes() {
        assert!(names(false).iter().all(|line| line.starts_with("KUBERNETES_")));
        assert!(!names(false).is_empty());
    }
}
