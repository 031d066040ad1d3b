//! DaemonSets in the fake cluster.
#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{NodeSpec, PodCondition, PodStatus, Taint};

use super::*;
use crate::fake::{Cluster, Fixture, NOW, describe, metadata, settings};
use crate::plan::Controller;

const DAEMON_SETS: Controller = Controller { name: "daemonset", watches: WATCHES, plan };

fn node(name: &str, taint: Option<(&str, &str)>) -> Node {
    let taints =
        taint.map(|(key, effect)| vec![Taint { key: key.into(), effect: effect.into(), ..Taint::default() }]);
    let mut meta = metadata(name);
    meta.namespace = None;
    Node { metadata: meta, spec: Some(NodeSpec { taints, ..NodeSpec::default() }), status: None }
}

fn daemon(image: &str) -> DaemonSet {
    DaemonSet {
        metadata: metadata("agent"),
        spec: Some(DaemonSetSpec {
            selector: Fixture::selector(),
            template: Fixture::template(image),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn cluster(nodes: &[Node]) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.iter().for_each(|it| cluster.add(it));
    cluster.add(&daemon("v1"));
    cluster
}

/// Binds and readies every pod, as scheduler and kubelet would.
fn run_pods(cluster: &mut Cluster) {
    for pod in cluster.view.pods.all() {
        let mut pod = Pod::clone(&pod);
        let node = place::node_of(&pod).to_owned();
        pod.spec.as_mut().unwrap().node_name = Some(node);
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        pod.status = Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![ready]),
            ..PodStatus::default()
        });
        cluster.add(&pod);
    }
}

fn check(cluster: &Cluster, want: Expect) {
    let settings = settings();
    let context = Context::at(NOW, &settings);
    want.assert_eq(&describe(&plan(&cluster.view, &Key::new("default", "agent"), &context)));
}

fn pods(cluster: &Cluster) -> Vec<String> {
    let images = |it: &Arc<Pod>| it.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let mut all: Vec<String> =
        cluster.view.pods.all().iter().map(|it| format!("{} {}", place::node_of(it), images(it))).collect();
    all.sort();
    all
}

#[test]
fn the_revision_comes_first_then_a_pod_for_each_node_it_fits() {
    let mut cluster = cluster(&[
        node("n1", None),
        node("n2", Some(("gpu", "NoSchedule"))),
        node("n3", Some(("node.kubernetes.io/not-ready", "NoExecute"))),
    ]);
    cluster.round(&[&DAEMON_SETS]);
    assert_eq!(cluster.view.controller_revisions.len(), 1);
    check(
        &cluster,
        expect![[r#"
        slow-start: create Pod agent-*; create Pod agent-*
        status DaemonSet agent: currentNumberScheduled=0 desiredNumberScheduled=2 numberMisscheduled=0 numberReady=0 numberUnavailable=2
    "#]],
    );
    cluster.settle(&[&DAEMON_SETS]);
    assert_eq!(pods(&cluster), ["n1 v1", "n3 v1"]);
}

#[test]
fn a_rolling_update_replaces_one_node_at_a_time() {
    let mut cluster = cluster(&[node("n1", None), node("n2", None), node("n3", None)]);
    cluster.settle(&[&DAEMON_SETS]);
    run_pods(&mut cluster);
    cluster.settle(&[&DAEMON_SETS]);
    let mut set = DaemonSet::clone(&cluster.view.daemon_sets.get("default", "agent").unwrap());
    set.spec.as_mut().unwrap().template = Fixture::template("v2");
    cluster.add(&set);
    let mut steps = Vec::new();
    for _ in 0..3 {
        cluster.settle(&[&DAEMON_SETS]);
        steps.push(pods(&cluster).iter().filter(|it| it.ends_with("v2")).count());
        run_pods(&mut cluster);
    }
    cluster.settle(&[&DAEMON_SETS]);
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!(cluster.view.controller_revisions.len(), 2);
    check(&cluster, expect![""]);
}

#[test]
fn undo_gives_the_old_revision_the_highest_number() {
    let mut cluster = cluster(&[node("n1", None)]);
    for image in ["v1", "v2", "v1"] {
        let mut set = DaemonSet::clone(&cluster.view.daemon_sets.get("default", "agent").unwrap());
        set.spec.as_mut().unwrap().template = Fixture::template(image);
        cluster.add(&set);
        cluster.settle(&[&DAEMON_SETS]);
        run_pods(&mut cluster);
        cluster.settle(&[&DAEMON_SETS]);
    }
    let mut numbers: Vec<i64> =
        cluster.view.controller_revisions.all().iter().map(|it| it.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    assert_eq!(pods(&cluster), ["n1 v1"]);
}

#[test]
fn a_node_that_no_longer_fits_loses_its_pod() {
    let mut cluster = cluster(&[node("n1", None)]);
    cluster.settle(&[&DAEMON_SETS]);
    run_pods(&mut cluster);
    cluster.add(&node("n1", Some(("gone", "NoExecute"))));
    cluster.settle(&[&DAEMON_SETS]);
    assert!(pods(&cluster).is_empty());
}
