//! Nodes and pods as one line each, decisions as text.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Node, NodeSpec, NodeStatus, Pod, PodSpec, ResourceRequirements, Taint,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;

fn quantities(list: &[(&str, &str)]) -> Option<BTreeMap<String, Quantity>> {
    Some(list.iter().map(|(name, text)| ((*name).to_owned(), Quantity((*text).into()))).collect())
}

/// `name cpu memory [cordoned] [taint=key:effect] [label=key:value] [pods=n]`
fn node(line: &str) -> Arc<Node> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |name: &str| words.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    let mut node = Node::default();
    node.metadata.name = Some(words[0].into());
    node.metadata.labels =
        value("label").and_then(|it| it.split_once(':')).map(|(k, v)| BTreeMap::from([(k.into(), v.into())]));
    let taints = value("taint").and_then(|it| it.split_once(':')).map(|(key, effect)| Taint {
        key: key.into(),
        effect: effect.into(),
        ..Taint::default()
    });
    node.spec = Some(NodeSpec {
        unschedulable: words.contains(&"cordoned").then_some(true),
        taints: taints.map(|it| vec![it]),
        ..NodeSpec::default()
    });
    let pods = value("pods").unwrap_or("110");
    node.status = Some(NodeStatus {
        allocatable: quantities(&[("cpu", words[1]), ("memory", words[2]), ("pods", pods)]),
        ..NodeStatus::default()
    });
    Arc::new(node)
}

/// `name cpu memory [on=node] [owner=uid] [port=n] [select=key:value] [tolerates=key]`
fn pod(line: &str) -> PodInfo {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = |name: &str| words.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    let requests = quantities(&[("cpu", words[1]), ("memory", words[2])]);
    let port = |text: &str| {
        vec![ContainerPort { host_port: text.parse().ok(), container_port: 80, ..ContainerPort::default() }]
    };
    let mut pod = Pod::default();
    pod.metadata.uid = Some(words[0].into());
    pod.metadata.owner_references = value("owner").map(|uid| {
        vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
    });
    pod.spec = Some(PodSpec {
        containers: vec![Container {
            resources: Some(ResourceRequirements { requests, ..ResourceRequirements::default() }),
            ports: value("port").map(port),
            ..Container::default()
        }],
        node_selector: value("select")
            .and_then(|it| it.split_once(':'))
            .map(|(k, v)| BTreeMap::from([(k.into(), v.into())])),
        node_name: value("on").map(Into::into),
        tolerations: value("tolerates").map(|key| {
            vec![Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                ..Toleration::default()
            }]
        }),
        ..PodSpec::default()
    });
    PodInfo::new(Arc::new(pod))
}

fn check(nodes: &[&str], pods: &[&str], wanted: &str, want: Expect) {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|it| snapshot.set_node(node(it)));
    for info in pods.iter().map(|it| pod(it)) {
        let node = info.node_name().to_owned();
        snapshot.place(info, &node, false);
    }
    let text = choose(&pod(wanted), &snapshot, 0).unwrap_or_else(|it| it.message);
    want.assert_eq(&text);
}

#[test]
fn every_node_says_why_it_refuses() {
    check(
        &["n1 1 1Gi", "n2 4 4Gi cordoned", "n3 4 4Gi taint=gpu:NoSchedule", "n4 4 4Gi pods=0"],
        &[],
        "p 2 1Gi",
        expect![
            "0/4 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn an_empty_cluster_has_its_own_words() {
    check(&[], &[], "p 1 1Gi", expect!["no nodes available to schedule pods"]);
}

#[test]
fn used_resources_and_ports_count() {
    check(&["n1 2 4Gi", "n2 2 4Gi"], &["a 1500m 1Gi on=n1"], "p 1 1Gi", expect!["n2"]);
    check(&["n1 2 4Gi", "n2 2 4Gi"], &["a 0 0 on=n1 port=80"], "p 0 0 port=80", expect!["n2"]);
    check(
        &["n1 2 4Gi"],
        &["a 0 0 on=n1 port=80"],
        "p 0 0 port=80",
        expect![
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
}

#[test]
fn selectors_names_and_tolerations_are_kept() {
    check(&["n1 2 4Gi label=disk:ssd", "n2 8 32Gi"], &[], "p 1 1Gi select=disk:ssd", expect!["n1"]);
    check(&["n1 2 4Gi", "n2 8 32Gi"], &[], "p 1 1Gi on=n1", expect!["n1"]);
    check(&["n1 2 4Gi taint=gpu:NoSchedule"], &[], "p 1 1Gi tolerates=gpu", expect!["n1"]);
    check(&["n1 8 32Gi taint=old:PreferNoSchedule", "n2 2 4Gi"], &[], "p 1 1Gi", expect!["n2"]);
}

#[test]
fn replicas_spread_and_emptier_nodes_win() {
    check(&["n1 4 8Gi", "n2 4 8Gi"], &["a 100m 100Mi on=n1 owner=x"], "p 100m 100Mi owner=x", expect!["n2"]);
    check(&["n1 4 8Gi", "n2 4 8Gi"], &["a 2 4Gi on=n1"], "p 100m 100Mi", expect!["n2"]);
}

#[test]
fn twenty_replicas_share_two_equal_nodes() {
    let mut snapshot = Snapshot::default();
    ["n1 4 8Gi", "n2 4 8Gi"].iter().for_each(|it| snapshot.set_node(node(it)));
    for turn in 0..20 {
        let info = pod(&format!("p{turn} 0 0 owner=x"));
        let chosen = choose(&info, &snapshot, turn).unwrap();
        snapshot.place(info, &chosen, true);
    }
    let counts: Vec<usize> = snapshot.nodes().map(|it| it.pods.len()).collect();
    assert_eq!(counts, [10, 10]);
}
