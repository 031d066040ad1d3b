//! `perf service`: what a cluster's services cost its pods, on any cluster. A server, two clients and three Services are
//! deployed into a namespace of their own, measured from inside, and removed again.
//!
//! It talks to the cluster through `kubectl`, which knows how to log in everywhere. The address of the server's pod is
//! the reference; each way through a Service is alternated with it.

pub(crate) mod kubectl;
pub(crate) mod manifest;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::flags::Service as Args;
use crate::results::{Line, Outcome, Writer};
use kubectl::Kubectl;
use manifest::{HEADLESS, PORT, SERVER, SERVICE};

/// What was deployed, and where.
#[derive(Debug, PartialEq, Eq)]
struct Deployed {
    /// The server's pod.
    pod: IpAddr,
    /// An address of the server's node.
    node: IpAddr,
    /// An address of another node, if there is one.
    other_node: Option<IpAddr>,
    cluster_ip: IpAddr,
    node_port: u16,
    /// What the slice of the headless Service holds.
    headless: IpAddr,
}

impl Deployed {
    /// Ways to the server: name, where.
    fn ways(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut ways = vec![
            ("ClusterIP", SocketAddr::new(self.cluster_ip, PORT)),
            ("NodePort, server's node", SocketAddr::new(self.node, self.node_port)),
        ];
        if let Some(other) = self.other_node {
            ways.push(("NodePort, other node", SocketAddr::new(other, self.node_port)));
        }
        // The same address as the reference: what is seen here is noise.
        ways.push(("headless", SocketAddr::new(self.headless, PORT)));
        ways
    }
}

/// `perf service`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let kubectl = Kubectl::new(args.kubeconfig.as_deref(), &args.namespace);
    let result = deploy_and_measure(args, &kubectl);
    if args.keep {
        eprintln!("namespace {} is kept", args.namespace);
    } else {
        kubectl.delete_namespace().context("remove what was deployed")?;
    }
    result
}

fn deploy_and_measure(args: &Args, kubectl: &Kubectl) -> Result<()> {
    let nodes = kubectl.json(&["get", "nodes"])?;
    let (server_node, client_nodes) = choose(&nodes, args.server_node.as_deref())?;
    kubectl.apply(&manifest::namespace(&args.namespace))?;
    for object in manifest::objects(&args.image, &server_node, &client_nodes) {
        kubectl.apply(&object)?;
    }
    eprintln!("server on {server_node}, clients on {}", client_nodes.join(", "));
    kubectl.wait_for_pods(args.wait_seconds)?;
    let deployed = look(kubectl, &nodes, &server_node)?;
    let mut writer = Writer::new(args.out.as_deref())?;
    let mut told_environment = false;
    for node in &client_nodes {
        let place = if *node == server_node { "same node" } else { "other node" };
        let client = manifest::client(node, &server_node);
        for traffic in &args.traffic {
            for (way, target) in deployed.ways() {
                let lines =
                    ask(args, kubectl, client, SocketAddr::new(deployed.pod, PORT), target, traffic.name())
                        .with_context(|| format!("{way} from the {place}"))?;
                for line in lines {
                    let line = match line {
                        Line::Environment(_) if told_environment => continue,
                        Line::Environment(environment) => {
                            told_environment = true;
                            Line::Environment(environment)
                        }
                        Line::Result(outcome) => named(outcome, place, way),
                    };
                    tell(&line);
                    writer.write(&line)?;
                }
            }
        }
    }
    Ok(())
}

/// One measurement, made by this program in the client's pod.
fn ask(
    args: &Args,
    kubectl: &Kubectl,
    client: &str,
    reference: SocketAddr,
    target: SocketAddr,
    traffic: &str,
) -> Result<Vec<Line>> {
    let (reference, target) = (reference.to_string(), target.to_string());
    let (pairs, slice) = if args.quick { ("3", "5") } else { ("60", "20") };
    let command = [
        "exec",
        client,
        "--",
        "/perf",
        "ratio",
        "--reset",
        "--reference",
        &reference,
        "--target",
        &target,
        "--traffic",
        traffic,
        "--pairs",
        pairs,
        "--slice-ms",
        slice,
    ];
    let text = kubectl.output(&command)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("read {line:?}"))).collect()
}

/// A result under the name it has in reports.
fn named(mut outcome: Outcome, place: &str, way: &str) -> Line {
    outcome.group = format!("service, client on the {place}");
    outcome.lane = way.to_owned();
    outcome.reference = Some("direct".to_owned());
    Line::Result(outcome)
}

fn tell(line: &Line) {
    if let Line::Result(outcome) = line {
        let [low, high] = outcome.estimate.interval;
        let name = outcome.name();
        eprintln!("{name:<60} {:.3} of direct ({low:.3} to {high:.3})", outcome.estimate.value);
    }
}

/// The server's node, and the clients': the same one, and another if there is one.
pub(crate) fn choose(nodes: &Value, named: Option<&str>) -> Result<(String, Vec<String>)> {
    let ready: Vec<_> =
        nodes["items"].as_array().into_iter().flatten().filter(|node| takes_pods(node)).collect();
    let names: Vec<_> = ready.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
    let server = match named {
        Some(name) if names.contains(&name) => name,
        Some(name) => bail!("--server-node {name} is not a node that takes pods ({})", names.join(", ")),
        None => *names.first().context("no node takes pods")?,
    };
    let other = names.iter().find(|name| **name != server);
    Ok((server.to_owned(), [server].into_iter().chain(other.copied()).map(str::to_owned).collect()))
}

/// Ready, and without a taint that keeps pods away.
fn takes_pods(node: &Value) -> bool {
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().any(is_ready);
    let keeps_away = |taint: &Value| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute";
    ready && !node["spec"]["taints"].as_array().into_iter().flatten().any(keeps_away)
}

fn address(value: &Value, what: &str) -> Result<IpAddr> {
    let text = value.as_str().with_context(|| format!("{what} is not known"))?;
    text.parse().with_context(|| format!("{what}: {text:?}"))
}

fn internal_ip(nodes: &Value, wanted: impl Fn(&str) -> bool) -> Option<IpAddr> {
    let mut of_name = nodes["items"].as_array()?.iter().filter(|node| takes_pods(node));
    let node = of_name.find(|node| node["metadata"]["name"].as_str().is_some_and(&wanted))?;
    let mut addresses = node["status"]["addresses"].as_array()?.iter();
    addresses.find(|address| address["type"] == "InternalIP")?["address"].as_str()?.parse().ok()
}

fn look(kubectl: &Kubectl, nodes: &Value, server_node: &str) -> Result<Deployed> {
    let pod = kubectl.json(&["get", "pod", SERVER])?;
    let service = kubectl.json(&["get", "service", SERVICE])?;
    let selector = format!("kubernetes.io/service-name={HEADLESS}");
    let slices = kubectl.json(&["get", "endpointslices", "-l", &selector])?;
    let pod_ip = address(&pod["status"]["podIP"], "the server's address")?;
    let slice = slices["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|slice| slice["addressType"] == if pod_ip.is_ipv4() { "IPv4" } else { "IPv6" });
    let slice = slice.context("the headless Service has no EndpointSlice")?;
    let port = &service["spec"]["ports"][0]["nodePort"];
    let node_port =
        port.as_u64().and_then(|port| u16::try_from(port).ok()).context("the Service has no node port")?;
    let deployed = Deployed {
        pod: pod_ip,
        node: internal_ip(nodes, |name| name == server_node)
            .context("the server's node has no InternalIP")?,
        other_node: internal_ip(nodes, |name| name != server_node),
        cluster_ip: address(&service["spec"]["clusterIP"], "the Service's clusterIP")?,
        node_port,
        headless: address(&slice["endpoints"][0]["addresses"][0], "the headless Service's endpoint")?,
    };
    ensure!(deployed.cluster_ip.is_ipv4() == pod_ip.is_ipv4(), "pod and Service are of two families");
    Ok(deployed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn nodes() -> Value {
        let node = |name: &str, ready: &str, taints: Value, last: u8| {
            json!({
                "metadata": {"name": name}, "spec": {"taints": taints},
                "status": {
                    "conditions": [{"type": "Ready", "status": ready}],
                    "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": format!("172.30.0.{last}")}],
                },
            })
        };
        json!({"items": [
            node("control", "True", json!([{"effect": "NoSchedule"}]), 1),
            node("a", "True", json!(null), 11),
            node("dead", "Unknown", json!(null), 12),
            node("b", "True", json!([{"effect": "PreferNoSchedule"}]), 13),
        ]})
    }

    #[test]
    fn clients_run_beside_the_server_and_on_another_node() {
        assert_eq!(choose(&nodes(), None).unwrap(), ("a".into(), vec!["a".into(), "b".into()]));
        assert_eq!(choose(&nodes(), Some("b")).unwrap(), ("b".into(), vec!["b".into(), "a".into()]));
        let error = choose(&nodes(), Some("dead")).unwrap_err();
        assert_eq!(error.to_string(), "--server-node dead is not a node that takes pods (a, b)");
        assert!(choose(&json!({"items": []}), None).is_err());
    }

    #[test]
    fn a_node_port_is_asked_on_both_nodes() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let deployed = Deployed {
            pod: ip("10.244.1.5"),
            node: internal_ip(&nodes(), |name| name == "a").unwrap(),
            other_node: internal_ip(&nodes(), |name| name != "a"),
            cluster_ip: ip("10.96.0.7"),
            node_port: 30123,
            headless: ip("10.244.1.5"),
        };
        let ways: Vec<_> =
            deployed.ways().into_iter().map(|(way, target)| format!("{way} {target}")).collect();
        let expected = [
            "ClusterIP 10.96.0.7:9090",
            "NodePort, server's node 172.30.0.11:30123",
            "NodePort, other node 172.30.0.13:30123",
            "headless 10.244.1.5:9090",
        ];
        assert_eq!(ways, expected);
    }
}
