//! What is deployed, as objects.

use serde_json::{Value, json};

/// The server's pod.
pub(super) const SERVER: &str = "perf-server";
/// The Service with a cluster IP and a node port.
pub(super) const SERVICE: &str = "perf-server";
/// The Service without an address.
pub(super) const HEADLESS: &str = "perf-server-headless";
/// echo's port of lines and datagrams.
pub(crate) const PORT: u16 = 9090;

/// The namespace of all the rest.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The client's pod on `node`.
pub(super) fn client(node: &str, server_node: &str) -> &'static str {
    if node == server_node { "perf-client-same" } else { "perf-client-other" }
}

/// Pods and Services.
pub(super) fn objects(image: &str, server_node: &str, client_nodes: &[String]) -> Vec<Value> {
    let clients = client_nodes.iter().map(|node| pod(client(node, server_node), image, node));
    [pod(SERVER, image, server_node), service(), headless()].into_iter().chain(clients).collect()
}

/// A pod that runs `echo` on `node`.
pub(crate) fn pod(name: &str, image: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{
                "name": "perf", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/echo"],
                "ports": [{"containerPort": PORT}, {"containerPort": PORT, "protocol": "UDP"}],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            }],
        },
    })
}

fn ports() -> Value {
    json!([
        {"name": "tcp", "port": PORT, "targetPort": PORT, "protocol": "TCP"},
        {"name": "udp", "port": PORT, "targetPort": PORT, "protocol": "UDP"},
    ])
}

/// The node port of both protocols must be the same number, so it is named: a cluster gives each its own otherwise.
fn service() -> Value {
    let mut ports = ports();
    for port in ports.as_array_mut().into_iter().flatten() {
        port["nodePort"] = json!(30_993);
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"type": "NodePort", "selector": {"app": SERVER}, "ports": ports},
    })
}

fn headless() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": HEADLESS},
        "spec": {"clusterIP": "None", "selector": {"app": SERVER}, "ports": ports()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_runs_on_each_of_its_nodes() {
        let objects = objects("perf", "a", &["a".into(), "b".into()]);
        let pods: Vec<_> = objects
            .iter()
            .filter(|object| object["kind"] == "Pod")
            .map(|pod| (pod["metadata"]["name"].as_str(), pod["spec"]["nodeName"].as_str()))
            .collect();
        let expected = [("perf-server", "a"), ("perf-client-same", "a"), ("perf-client-other", "b")];
        assert_eq!(pods, expected.map(|(name, node)| (Some(name), Some(node))));
    }
}
