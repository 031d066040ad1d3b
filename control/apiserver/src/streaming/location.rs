//! Where a request for a pod goes: which container, which path and parameters of the kubelet, which address.
//!
//! Pure, on the pod's and the node's JSON.

use std::net::{IpAddr, SocketAddr};

use api::status::ApiError;
use form_urlencoded::Serializer;
use http::Uri;
use serde_json::Value;

use super::log_options::LogOptions;

/// Port of a kubelet whose node does not say otherwise.
const KUBELET_PORT: u16 = 10250;
/// Which of a node's addresses is dialled, best first.
const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// How the other side is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS, both sides with certificates of the cluster's authority.
    Kubelet,
    /// Plain HTTP.
    Plain,
}

/// A path (with parameters) at a kubelet or a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Address and port.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
    /// How to speak to it.
    pub transport: Transport,
}

/// The node a pod runs on.
pub fn node_name(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())
}

/// Address of a node's kubelet.
pub fn kubelet_address(node: &Value) -> Option<SocketAddr> {
    let status = &node["status"];
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port =
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    let addresses = status["addresses"].as_array()?;
    let address = ADDRESS_TYPES.iter().find_map(|wanted| {
        addresses
            .iter()
            .filter(|address| address["type"] == *wanted)
            .find_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok())
    })?;
    Some(SocketAddr::new(address, port))
}

/// The container that is meant: the one asked for, or a pod's only one.
pub fn container<'a>(pod: &'a Value, asked: &'a str) -> Result<&'a str, ApiError> {
    let names = |list: &str| -> Vec<&'a str> {
        let containers = pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().filter_map(|container| container["name"].as_str()).collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (containers, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let ephemeral = names("ephemeralContainers");
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|name| *name == asked);
        let error = || ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}"));
        return known.then_some(asked).ok_or_else(error);
    }
    match containers.as_slice() {
        [only] => Ok(only),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        several => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// Path of the log of a container.
pub fn log_path(pod: &Value, container: &str, options: &LogOptions) -> String {
    with_query(format!("/containerLogs/{}/{container}", place(pod)), &options.kubelet_parameters())
}

/// Path of exec, attach or port-forward; `query` has the API's parameters.
pub fn connect_path(pod: &Value, subresource: &str, query: &str) -> Result<String, ApiError> {
    let given: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let all = |name: &'static str| {
        given.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    let mut parameters: Vec<(&str, String)> = Vec::new();
    if subresource == "portforward" {
        parameters.extend(all("ports").map(|port| ("port", port.to_owned())));
        return Ok(with_query(format!("/portForward/{}", place(pod)), &parameters));
    }
    let container = container(pod, all("container").next().unwrap_or_default())?;
    for (ours, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if all(ours).next().is_some_and(|value| !matches!(value, "false" | "0")) {
            parameters.push((kubelets, "1".to_owned()));
        }
    }
    parameters.extend(all("command").map(|word| ("command", word.to_owned())));
    Ok(with_query(format!("/{subresource}/{}/{container}", place(pod)), &parameters))
}

/// What follows `.../NAME/proxy` in the path of a request, with its query.
pub fn proxy_path(uri: &Uri, namespaced: bool) -> String {
    // "", "api", "v1", ["namespaces", NAMESPACE,] RESOURCE, NAME, "proxy", REST
    let before = if namespaced { 8 } else { 6 };
    let path = format!("/{}", uri.path().splitn(before + 1, '/').nth(before).unwrap_or_default());
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

fn place(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn with_query(path: String, parameters: &[(&str, String)]) -> String {
    if parameters.is_empty() {
        return path;
    }
    let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Value {
        let list = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"containers": list(containers), "initContainers": list(init), "nodeName": "n1"},
        })
    }

    #[test]
    fn the_container_is_the_one_named_or_the_only_one() {
        for (containers, init, asked, expected) in [
            (&["a"][..], &[][..], "", Ok("a")),
            (&["a", "b"], &[], "b", Ok("b")),
            (&["a"], &["i"], "i", Ok("i")),
            (&["a"], &[], "x", Err("container x is not valid for pod web")),
            (
                &["a", "b"],
                &[],
                "",
                Err("a container name must be specified for pod web, choose one of: [a b]"),
            ),
            (
                &["a", "b"],
                &["i", "j"],
                "",
                Err(
                    "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i j]",
                ),
            ),
        ] {
            let pod = pod(containers, init);
            let outcome = container(&pod, asked).map_err(|error| (error.code(), error.message));
            assert_eq!(outcome, expected.map_err(|message| (400, message.to_owned())));
        }
    }

    #[test]
    fn parameters_take_the_kubelets_names() {
        let pod = pod(&["a"], &[]);
        for (subresource, query, expected) in [
            (
                "exec",
                "command=sh&command=-c&command=echo+%26&stdin=true&stdout=true&stderr=false&tty=1",
                "/exec/shop/web/a?input=1&output=1&tty=1&command=sh&command=-c&command=echo+%26",
            ),
            ("attach", "container=a&stdout=true&stderr=true", "/attach/shop/web/a?output=1&error=1"),
            ("portforward", "ports=80&ports=81", "/portForward/shop/web?port=80&port=81"),
            ("portforward", "", "/portForward/shop/web"),
        ] {
            assert_eq!(connect_path(&pod, subresource, query).unwrap(), expected);
        }
    }

    #[test]
    fn a_kubelet_is_dialled_at_its_internal_address() {
        let node = |addresses: Value, port: Value| json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        let both = json!([
            {"type": "Hostname", "address": "10.9.9.9"},
            {"type": "ExternalIP", "address": "1.2.3.4"},
            {"type": "InternalIP", "address": "172.30.0.11"},
            {"type": "InternalIP", "address": "fd30::11"},
        ]);
        assert_eq!(kubelet_address(&node(both, Value::Null)).unwrap().to_string(), "172.30.0.11:10250");
        let v6 = json!([{"type": "InternalIP", "address": "fd30::11"}]);
        assert_eq!(kubelet_address(&node(v6, json!(9999))).unwrap().to_string(), "[fd30::11]:9999");
        assert_eq!(kubelet_address(&node(json!([]), Value::Null)), None);
        assert_eq!(kubelet_address(&json!({})), None);
    }

    #[test]
    fn a_proxy_passes_path_and_query() {
        for (uri, namespaced, expected) in [
            ("/api/v1/nodes/n1/proxy/stats/summary?only=cpu", false, "/stats/summary?only=cpu"),
            ("/api/v1/nodes/n1/proxy", false, "/"),
            ("/api/v1/nodes/proxy-1/proxy/a/proxy/b/", false, "/a/proxy/b/"),
            ("/api/v1/namespaces/shop/services/http:web:80/proxy/a%20b", true, "/a%20b"),
            ("/api/v1/namespaces/shop/pods/web/proxy/", true, "/"),
        ] {
            assert_eq!(proxy_path(&uri.parse().unwrap(), namespaced), expected, "{uri}");
        }
    }
}
