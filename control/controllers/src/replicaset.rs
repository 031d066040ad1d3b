//! Keeps `spec.replicas` pods alive for each ReplicaSet (upstream: pkg/controller/replicaset). Owns the pods it controls
//! and the ReplicaSet's status; reads pods of the namespace, and sibling ReplicaSets to spread deletions over nodes.
//! Woken by ReplicaSets and pods. It never changes a pod's spec.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};

use crate::ownership::{self, claim, controller_of, controller_reference};
use crate::plan::{self, Action, Announcement, Context, Plan, reference};
use crate::pod;
use crate::selector;
use crate::table::{Change, Key, NOBODY};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[Watch::ReplicaSet(ownership::itself), Watch::Pod(of_pod)];

/// Most pods that one plan creates or deletes.
const BURST: usize = 500;

/// Annotation by which a user says which pod to give up first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn of_pod(view: &View, change: &Change<Pod>) -> Vec<Key> {
    ownership::controllers(view, change, |set: &ReplicaSet| Some(&set.spec.as_ref()?.selector))
}

/// Decides about the ReplicaSet under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let Some(set) = view.replica_sets.at(key) else { return Plan::await_change() };
    let Some(spec) = set.spec.as_ref() else { return Plan::await_change() };
    if selector::is_empty(&spec.selector) {
        return Plan::await_change();
    }
    let claim = claim(&*set, &spec.selector, candidates(view, &set, &spec.selector));
    let (active, rest): (Vec<_>, Vec<_>) = claim.owned.into_iter().partition(|it| pod::is_active(it));
    let terminating = rest.iter().filter(|it| pod::is_terminating(it) && !pod::is_finished(it)).count();

    let mut plan = Plan::of(claim.actions);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if set.metadata.deletion_timestamp.is_none() && plan.actions.is_empty() {
        match active.len().cmp(&wanted) {
            Ordering::Less => plan.actions.push(create(&set, spec, (wanted - active.len()).min(BURST))),
            Ordering::Greater => plan.actions.push(delete(
                view,
                &set,
                &active,
                (active.len() - wanted).min(BURST),
                context.now,
            )),
            Ordering::Equal => {}
        }
    }
    let status = status(&set, spec, &active, terminating, wanted, context);
    if set.status.as_ref() != Some(&status) {
        let mut updated = ReplicaSet::clone(&set);
        updated.status = Some(status.clone());
        plan.status = Some(plan::replace_status(&updated));
    }
    if let Some(delay) = until_available(spec, &active, context.now) {
        plan.requeue_after(delay);
    }
    plan
}

/// Pods that this set owns or could own: its own by owner index, orphans by selector.
fn candidates(view: &View, set: &ReplicaSet, wanted: &LabelSelector) -> Vec<Arc<Pod>> {
    let mut pods = view.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    pods.extend(view.pods.owned_by(NOBODY).into_iter().filter(|it| {
        it.metadata.namespace == set.metadata.namespace
            && pod::is_active(it)
            && selector::matches(wanted, it.metadata.labels.as_ref())
    }));
    pods
}

fn create(set: &ReplicaSet, spec: &ReplicaSetSpec, count: usize) -> Action {
    let template = spec.template.clone().unwrap_or_default();
    let pod = pod::from_template(&template, set.metadata.namespace.as_deref(), controller_reference(set));
    let announce = Announcement {
        regarding: reference(set),
        success: ("SuccessfulCreate", "Created pod: {name}"),
        failure: ("FailedCreate", "Error creating: {error}"),
    };
    Action::SlowStart(vec![plan::create(&pod, Some(announce)); count])
}

fn delete(view: &View, set: &ReplicaSet, active: &[Arc<Pod>], count: usize, now: Timestamp) -> Action {
    let announce = Announcement {
        regarding: reference(set),
        success: ("SuccessfulDelete", "Deleted pod: {name}"),
        failure: ("FailedDelete", "Error deleting: {error}"),
    };
    let crowd = related_pods_by_node(view, set);
    let mut order: Vec<&Arc<Pod>> = active.iter().collect();
    order.sort_by(|a, b| keep_last(a, b, &crowd, now));
    Action::Concurrent(
        order.into_iter().take(count).map(|it| plan::delete(&**it, Some(announce.clone()))).collect(),
    )
}

/// How many active pods of this set and its siblings (same controller, e.g. one Deployment) run on each node.
fn related_pods_by_node(view: &View, set: &ReplicaSet) -> HashMap<String, usize> {
    let siblings = match controller_of(&set.metadata) {
        Some(owner) => {
            view.replica_sets.owned_by(&owner.uid).iter().filter_map(|it| it.metadata.uid.clone()).collect()
        }
        None => vec![set.metadata.uid.clone().unwrap_or_default()],
    };
    let mut crowd = HashMap::new();
    for uid in siblings {
        for pod in view.pods.owned_by(&uid).iter().filter(|it| pod::is_active(it)) {
            *crowd.entry(pod::node_name(pod).to_owned()).or_insert(0) += 1;
        }
    }
    crowd
}

/// Orders pods so that those to give up come first: unbound, not yet running, not ready, cheap, crowded, young.
fn keep_last(a: &Pod, b: &Pod, crowd: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let bound = |it: &Pod| !pod::node_name(it).is_empty();
    let progress = |it: &Pod| match pod::phase(it) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let neighbours = |it: &Pod| crowd.get(pod::node_name(it)).copied().unwrap_or(0);
    let ready = |it: &Pod| ready_age(it, now);
    let created = |it: &Pod| it.metadata.creation_timestamp.as_ref().map(|it| age_bucket(it.0, now));
    bound(a)
        .cmp(&bound(b))
        .then_with(|| progress(a).cmp(&progress(b)))
        .then_with(|| pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| neighbours(b).cmp(&neighbours(a)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(a).cmp(&created(b)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn ready_age(it: &Pod, now: Timestamp) -> Option<u32> {
    pod::ready_since(it).map(|since| age_bucket(since, now))
}

/// Ages count by powers of two, so that among pods of about the same age the choice is as good as random (by uid).
fn age_bucket(since: Timestamp, now: Timestamp) -> u32 {
    let nanoseconds = u64::try_from(now.duration_since(since).as_nanos()).unwrap_or(0);
    nanoseconds.checked_ilog2().map_or(0, |log| log + 1)
}

fn deletion_cost(it: &Pod) -> i32 {
    it.metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(DELETION_COST))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn restarts(it: &Pod) -> i32 {
    let statuses = it.status.as_ref().and_then(|it| it.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|it| it.restart_count).max().unwrap_or(0)
}

fn status(
    set: &ReplicaSet,
    spec: &ReplicaSetSpec,
    active: &[Arc<Pod>],
    terminating: usize,
    wanted: usize,
    context: &Context<'_>,
) -> ReplicaSetStatus {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|it| it.metadata.as_ref())
        .and_then(|it| it.labels.clone())
        .unwrap_or_default();
    let fully_labeled = |it: &Arc<Pod>| {
        let labels = it.metadata.labels.clone().unwrap_or_default();
        template_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let count = |test: &dyn Fn(&Arc<Pod>) -> bool| {
        i32::try_from(active.iter().filter(|it| test(it)).count()).unwrap_or(i32::MAX)
    };
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some_positive(count(&fully_labeled)),
        ready_replicas: some_positive(count(&|it| pod::is_ready(it))),
        available_replicas: some_positive(count(&|it| pod::is_available(it, min_ready, context.now))),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: failure_condition(&old, active.len().cmp(&wanted), context),
    }
}

/// Counters that upstream leaves out when zero.
fn some_positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// The conditions with ReplicaFailure as the last attempt left it.
fn failure_condition(
    old: &ReplicaSetStatus,
    lacking: Ordering,
    context: &Context<'_>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().position(|it| it.type_ == "ReplicaFailure").map(|at| conditions.remove(at));
    let reason = match lacking {
        Ordering::Less => "FailedCreate",
        _ => "FailedDelete",
    };
    if let Some(failure) = context.failure.filter(|_| lacking != Ordering::Equal) {
        let kept = known.filter(|it| it.reason.as_deref() == Some(reason));
        conditions.push(kept.unwrap_or_else(|| ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(failure.to_owned()),
            last_transition_time: Some(Time(context.now)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

/// When the next Ready pod becomes available.
fn until_available(spec: &ReplicaSetSpec, active: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let wait = i64::from(spec.min_ready_seconds.unwrap_or(0));
    active
        .iter()
        .filter_map(|it| pod::ready_since(it))
        .map(|since| wait - now.duration_since(since).as_secs())
        .filter(|left| *left > 0)
        .min()
        .and_then(|left| u64::try_from(left).ok())
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::fake::{Fixture, NOW, describe, pod_line, settings};

    /// `pods`: one line a pod, see [`pod_line`].
    fn check(replicas: i32, pods: &[&str], want: Expect) {
        let view = View::default();
        let set: ReplicaSet = Fixture::replica_set("web", replicas);
        view.replica_sets.apply(set.clone());
        for line in pods {
            view.pods.apply(pod_line(line, Some(controller_reference(&set))));
        }
        let settings = settings();
        let context = Context::at(NOW, &settings);
        let plan = plan(&view, &Key::new("default", "web"), &context);
        want.assert_eq(&describe(&plan));
    }

    #[test]
    fn creates_what_is_missing_in_one_slow_start() {
        check(
            3,
            &["a n1 Ready 5m"],
            expect![[r#"
            slow-start: create Pod web-*; create Pod web-*
            status ReplicaSet web: replicas=1 ready=1 available=1
        "#]],
        );
    }

    #[test]
    fn scales_down_the_youngest_not_ready_first() {
        check(
            2,
            &["a n1 Ready 5m", "b n2 Ready 1m", "c n1 Pending 9s"],
            expect![[r#"
            concurrent: delete Pod c
            status ReplicaSet web: replicas=3 ready=2 available=2
        "#]],
        );
    }

    #[test]
    fn scales_down_where_its_pods_crowd() {
        check(
            2,
            &["a n1 Ready 5m", "b n2 Ready 5m", "c n2 Ready 20m"],
            expect![[r#"
            concurrent: delete Pod b
            status ReplicaSet web: replicas=3 ready=3 available=3
        "#]],
        );
    }

    #[test]
    fn a_terminating_pod_is_replaced_at_once() {
        check(
            1,
            &["a n1 Ready 5m terminating"],
            expect![[r#"
            slow-start: create Pod web-*
            status ReplicaSet web: replicas=0
        "#]],
        );
    }

    #[test]
    fn a_finished_pod_does_not_count() {
        check(
            1,
            &["a n1 Failed 5m", "b n1 Ready 5m"],
            expect![[r#"
            status ReplicaSet web: replicas=1 ready=1 available=1
        "#]],
        );
    }

    #[test]
    fn adopts_a_matching_orphan_before_it_creates() {
        let view = View::default();
        view.replica_sets.apply(Fixture::replica_set("web", 1));
        view.pods.apply(pod_line("a n1 Ready 5m", None));
        let settings = settings();
        let plan = plan(&view, &Key::new("default", "web"), &Context::at(NOW, &settings));
        expect![[r#"
            patch Pod a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}],"uid":"uid-a"}}
            status ReplicaSet web: replicas=0
        "#]].assert_eq(&describe(&plan));
    }

    #[test]
    fn a_failed_creation_shows_in_the_status() {
        let view = View::default();
        view.replica_sets.apply(Fixture::replica_set("web", 1));
        let settings = settings();
        let context = Context { failure: Some("quota exceeded"), ..Context::at(NOW, &settings) };
        let plan = plan(&view, &Key::new("default", "web"), &context);
        expect![[r#"
            slow-start: create Pod web-*
            status ReplicaSet web: replicas=0 ReplicaFailure=True/FailedCreate
        "#]]
        .assert_eq(&describe(&plan));
    }
}
