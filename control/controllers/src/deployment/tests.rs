//! Rollouts in the fake cluster: what a plan says step by step, and that no step ever breaks the limits.
#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;
use crate::fake::{Cluster, Fixture, NOW, describe, settings};
use crate::plan::Controller;
use crate::replicaset;

const DEPLOYMENTS: Controller = Controller { name: "deployment", watches: WATCHES, plan };
const REPLICA_SETS: Controller =
    Controller { name: "replicaset", watches: replicaset::WATCHES, plan: replicaset::plan };

fn planned(cluster: &Cluster) -> String {
    let settings = settings();
    let context = Context { since: NOW, ..Context::at(cluster.now, &settings) };
    describe(&plan(&cluster.view, &Key::new("default", "web"), &context))
}

/// Every pod turns Ready.
fn make_ready(cluster: &mut Cluster, pod: &Pod) {
    let mut pod = pod.clone();
    pod.status = Some(PodStatus {
        phase: Some("Running".into()),
        conditions: Some(vec![PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(cluster.now)),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
    cluster.add(&pod);
}

fn settle(cluster: &mut Cluster) {
    for _ in 0..100 {
        cluster.settle(&[&DEPLOYMENTS, &REPLICA_SETS]);
        let waiting: Vec<_> = cluster.view.pods.all().into_iter().filter(|it| !pod::is_ready(it)).collect();
        if waiting.is_empty() {
            return;
        }
        waiting.iter().for_each(|it| make_ready(cluster, it));
    }
    panic!("the rollout does not end");
}

fn edit(cluster: &mut Cluster, change: impl FnOnce(&mut Deployment)) {
    let mut deployment = Deployment::clone(&cluster.view.deployments.get("default", "web").unwrap());
    change(&mut deployment);
    *deployment.metadata.generation.as_mut().unwrap() += 1;
    cluster.add(&deployment);
}

fn sets(cluster: &Cluster) -> String {
    let mut sets = cluster.view.replica_sets.all();
    sets.sort_by_key(|it| revision::revision(&it.metadata));
    let line = |it: &std::sync::Arc<ReplicaSet>| {
        format!("revision {}: {}/{}", revision::revision(&it.metadata), available(it), size(it))
    };
    sets.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn conditions(cluster: &Cluster) -> String {
    let deployment = cluster.view.deployments.get("default", "web").unwrap();
    let status = deployment.status.clone().unwrap_or_default();
    let line = |it: &k8s_openapi::api::apps::v1::DeploymentCondition| {
        format!(
            "{}={}/{} {}",
            it.type_,
            it.status,
            it.reason.as_deref().unwrap_or_default(),
            it.message.as_deref().unwrap_or_default()
        )
    };
    status.conditions.iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

fn web(replicas: i32) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.add(&Fixture::deployment("web", replicas, "v1"));
    cluster
}

#[test]
fn a_new_deployment_makes_its_replica_set_and_says_so() {
    let cluster = web(3);
    expect![[r#"
        create ReplicaSet web-7df75cd9d4
        event Normal ScalingReplicaSet Scaled up replica set web-7df75cd9d4 from 0 to 3
        status Deployment web: Available=False/MinimumReplicasUnavailable Progressing=True/NewReplicaSetCreated
        requeue after 601s
    "#]]
    .assert_eq(&planned(&cluster));
}

#[test]
fn a_finished_rollout_is_available_and_complete() {
    let mut cluster = web(3);
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 1: 3/3");
    let hash = cluster.view.replica_sets.all()[0].metadata.name.clone().unwrap();
    assert_eq!(
        conditions(&cluster),
        format!(
            "Available=True/MinimumReplicasAvailable Deployment has minimum availability.\n\
             Progressing=True/NewReplicaSetAvailable ReplicaSet \"{hash}\" has successfully progressed."
        )
    );
    assert_eq!(planned(&cluster), "");
}

#[test]
fn undo_brings_the_old_replica_set_back_under_a_new_revision() {
    let mut cluster = web(2);
    settle(&mut cluster);
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v2"));
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 1: 0/0, revision 2: 2/2");
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v1"));
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 2: 0/0, revision 3: 2/2");
    let newest = cluster.view.replica_sets.all().into_iter().find(|it| size(it) == 2).unwrap();
    assert_eq!(newest.metadata.annotations.as_ref().unwrap()[revision::REVISION_HISTORY], "1");
    let deployment = cluster.view.deployments.get("default", "web").unwrap();
    assert_eq!(revision::revision(&deployment.metadata), 3);
}

#[test]
fn old_replica_sets_beyond_the_history_limit_go() {
    let mut cluster = web(1);
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().revision_history_limit = Some(1));
    for image in ["v1", "v2", "v3", "v4"] {
        edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template(image));
        settle(&mut cluster);
    }
    assert_eq!(sets(&cluster), "revision 3: 0/0, revision 4: 1/1");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut cluster = web(2);
    settle(&mut cluster);
    edit(&mut cluster, |it| {
        let spec = it.spec.as_mut().unwrap();
        (spec.paused, spec.replicas, spec.template) = (Some(true), Some(4), Fixture::template("v2"));
    });
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 1: 4/4");
    assert!(conditions(&cluster).contains("Progressing=Unknown/DeploymentPaused Deployment is paused"));
}

#[test]
fn recreate_ends_all_old_pods_before_it_makes_new_ones() {
    let mut cluster = web(3);
    edit(&mut cluster, |it| {
        it.spec.as_mut().unwrap().strategy =
            Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    });
    settle(&mut cluster);
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v2"));
    cluster.round(&[&DEPLOYMENTS]);
    assert_eq!(sets(&cluster), "revision 1: 3/0");
    cluster.round(&[&DEPLOYMENTS]);
    assert_eq!(cluster.view.replica_sets.len(), 1);
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 1: 0/0, revision 2: 3/3");
}

#[test]
fn a_rollout_that_stands_still_passes_its_deadline() {
    let mut cluster = web(1);
    cluster.settle(&[&DEPLOYMENTS, &REPLICA_SETS]);
    cluster.now = NOW + jiff::SignedDuration::from_secs(700);
    cluster.settle(&[&DEPLOYMENTS, &REPLICA_SETS]);
    assert!(
        conditions(&cluster).contains("Progressing=False/ProgressDeadlineExceeded"),
        "{}",
        conditions(&cluster)
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_shares_in_proportion() {
    let mut cluster = web(10);
    settle(&mut cluster);
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v2"));
    cluster.settle(&[&DEPLOYMENTS, &REPLICA_SETS]);
    assert_eq!(sets(&cluster), "revision 1: 8/8, revision 2: 0/5");
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().replicas = Some(20));
    cluster.round(&[&DEPLOYMENTS]);
    assert_eq!(sets(&cluster), "revision 1: 8/15, revision 2: 0/10");
}

#[test]
fn a_switch_to_recreate_in_the_middle_of_a_rollout_and_a_new_size_do_not_block_each_other() {
    let mut cluster = web(4);
    settle(&mut cluster);
    edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v2"));
    cluster.settle(&[&DEPLOYMENTS, &REPLICA_SETS]);
    edit(&mut cluster, |it| {
        let spec = it.spec.as_mut().unwrap();
        spec.replicas = Some(2);
        spec.strategy = Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    });
    settle(&mut cluster);
    assert_eq!(sets(&cluster), "revision 1: 0/0, revision 2: 2/2");
}

fn check_fenceposts(replicas: i32, surge: &str, unavailable: &str, want: Expect) {
    let value =
        |text: &str| Some(text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int));
    let mut deployment = Fixture::deployment("web", replicas, "v1");
    deployment.spec.as_mut().unwrap().strategy = Some(DeploymentStrategy {
        type_: None,
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: value(surge),
            max_unavailable: value(unavailable),
        }),
    });
    want.assert_eq(&format!("{:?}", fenceposts(deployment.spec.as_ref().unwrap())));
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailable() {
    check_fenceposts(10, "25%", "25%", expect!["(3, 2)"]);
    check_fenceposts(1, "25%", "25%", expect!["(1, 0)"]);
    check_fenceposts(3, "0", "10%", expect!["(0, 1)"]);
    check_fenceposts(3, "0", "7", expect!["(0, 3)"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever pods become Ready in whatever order, a rollout never has more pods than replicas + maxSurge, nor fewer
    /// available ones than replicas - maxUnavailable, and it ends.
    #[test]
    fn a_rollout_never_breaks_surge_or_unavailable(
        replicas in 1..12_i32, surge in 0..5_i32, unavailable in 0..5_i32, luck in prop::collection::vec(any::<u8>(), 300),
    ) {
        let mut cluster = web(replicas);
        edit(&mut cluster, |it| it.spec.as_mut().unwrap().strategy = Some(DeploymentStrategy {
            type_: None,
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(surge)),
                max_unavailable: Some(IntOrString::Int(unavailable)),
            }),
        }));
        settle(&mut cluster);
        edit(&mut cluster, |it| it.spec.as_mut().unwrap().template = Fixture::template("v2"));
        let deployment = cluster.view.deployments.get("default", "web").unwrap();
        let (surge, unavailable) = fenceposts(deployment.spec.as_ref().unwrap());
        for chance in luck {
            match chance % 3 {
                0 => { cluster.round(&[&DEPLOYMENTS]); }
                1 => { cluster.round(&[&REPLICA_SETS]); }
                _ => {
                    let waiting: Vec<_> = cluster.view.pods.all().into_iter().filter(|it| !pod::is_ready(it)).collect();
                    if !waiting.is_empty() {
                        make_ready(&mut cluster, &waiting[usize::from(chance) % waiting.len()]);
                    }
                }
            }
            let pods = cluster.view.pods.all();
            let ready = pods.iter().filter(|it| pod::is_ready(it)).count();
            prop_assert!(pods.len() <= usize::try_from(replicas + surge).unwrap(), "{} pods", pods.len());
            prop_assert!(ready >= usize::try_from(replicas - unavailable).unwrap(), "{ready} ready");
        }
        settle(&mut cluster);
        prop_assert_eq!(cluster.view.pods.len(), usize::try_from(replicas).unwrap());
    }
}
