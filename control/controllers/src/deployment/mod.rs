//! Rolls ReplicaSets so that a Deployment's pods follow its template (upstream: pkg/controller/deployment).
//! Owns the Deployment's ReplicaSets (not their pods), its status and its revision annotation.
//! Woken by Deployments, ReplicaSets, and for `Recreate` by the end of pods.
//!
//! One file a concept: [`revision`] finds and makes ReplicaSets, [`scale`] sizes them, [`status`] reports.

pub mod revision;
pub mod scale;
pub mod status;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::ownership::{self, claim, controller_of};
use crate::plan::{self, Action, Context, EventKind, Plan};
use crate::pod;
use crate::selector;
use crate::table::{Change, Key};
use crate::view::{View, Watch};
use scale::Resize;

/// What wakes this controller.
pub const WATCHES: &[Watch] =
    &[Watch::Deployment(ownership::itself), Watch::ReplicaSet(of_replica_set), Watch::Pod(of_ended_pod)];

fn of_replica_set(view: &View, change: &Change<ReplicaSet>) -> Vec<Key> {
    ownership::controllers(view, change, |it: &Deployment| Some(&it.spec.as_ref()?.selector))
}

/// `Recreate` waits for old pods to end, and only their end concerns it.
fn of_ended_pod(view: &View, change: &Change<Pod>) -> Vec<Key> {
    if change.new.as_ref().is_some_and(|it| !pod::is_finished(it)) {
        return Vec::new();
    }
    let owner = || {
        let meta = &change.latest()?.metadata;
        let namespace = meta.namespace.as_deref()?;
        let set = view.replica_sets.get(namespace, &controller_of(meta)?.name)?;
        let key = Key::new(namespace, &controller_of(&set.metadata)?.name);
        let deployment = view.deployments.at(&key)?;
        (!is_rolling(deployment.spec.as_ref()?)).then_some(key)
    };
    owner().into_iter().collect()
}

/// A Deployment with its ReplicaSets sorted out.
pub struct Rollout<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// Its spec.
    pub spec: &'a DeploymentSpec,
    /// The ReplicaSet of the current template.
    pub new: Option<Arc<ReplicaSet>>,
    /// The ReplicaSets of former templates, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
    /// Now.
    pub now: Timestamp,
}

impl Rollout<'_> {
    /// All ReplicaSets, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// `spec.replicas`.
    pub fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// The Deployment's name.
    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }
}

/// `spec.replicas` of a ReplicaSet.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a ReplicaSet.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|it| it.available_replicas).unwrap_or(0)
}

/// Whether the strategy is RollingUpdate.
pub fn is_rolling(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|it| it.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Pods that may exist above, and be missing below, `spec.replicas`: (surge, unavailable). Percentages of the replicas
/// round up for surge and down for unavailable; when both come out as 0, one pod may be unavailable.
pub fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    let wanted = spec.replicas.unwrap_or(1);
    if !is_rolling(spec) || wanted == 0 {
        return (0, 0);
    }
    let rolling = spec.strategy.as_ref().and_then(|it| it.rolling_update.as_ref());
    let surge = share(rolling.and_then(|it| it.max_surge.as_ref()), wanted, true);
    let unavailable = share(rolling.and_then(|it| it.max_unavailable.as_ref()), wanted, false);
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        (surge, unavailable) => (surge, unavailable.min(wanted)),
    }
}

/// An absolute number or a percentage of `total`; 25% when absent, as the API defaults it.
pub fn share(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return (*count).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    let scaled = i64::from(total) * i64::from(percent.max(0));
    let rounded = if round_up { (scaled + 99) / 100 } else { scaled / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// Decides about the Deployment under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let Some(deployment) = view.deployments.at(key) else { return Plan::await_change() };
    let Some(spec) = deployment.spec.as_ref() else { return Plan::await_change() };
    if selector::is_empty(&spec.selector) {
        let text = "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
        return Plan::of(vec![plan::event(&*deployment, EventKind::Warning, "SelectingAll", text)]);
    }
    let sets = claim(&*deployment, &spec.selector, view.replica_sets.in_namespace(&key.namespace));
    if !sets.actions.is_empty() {
        return Plan::of(sets.actions);
    }
    let rollout = revision::sort_out(&deployment, spec, sets.owned, context.now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return status::report(&rollout, Plan::await_change(), status::Detail::Counts, context);
    }
    if spec.paused == Some(true) || scale::size_changed(&rollout) {
        let resizes = scale::proportionally(&rollout);
        let mut actions = apply(&rollout, resizes);
        if spec.paused == Some(true) {
            actions.extend(revision::retire(&rollout));
        }
        return status::report(&rollout, Plan::of(actions), status::Detail::Counts, context);
    }
    let plan = if is_rolling(spec) { roll(view, &rollout) } else { recreate(view, &rollout) };
    let detail =
        if revision::collides(view, &rollout) { status::Detail::Collision } else { status::Detail::Progress };
    status::report(&rollout, plan, detail, context)
}

fn roll(view: &View, rollout: &Rollout<'_>) -> Plan {
    let Some(new) = &rollout.new else { return make_new(view, rollout) };
    let resizes = scale::rolling(rollout, new);
    finish(rollout, resizes)
}

fn recreate(view: &View, rollout: &Rollout<'_>) -> Plan {
    let shrink: Vec<Resize> =
        rollout.old.iter().filter(|it| size(it) > 0).map(|it| Resize::to(it, 0)).collect();
    if !shrink.is_empty() {
        return finish(rollout, shrink);
    }
    let runs = |set: &Arc<ReplicaSet>| {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        view.pods.owned_by(uid).iter().any(|it| !pod::is_finished(it))
    };
    if rollout.old.iter().any(runs) {
        return Plan::await_change();
    }
    let Some(new) = &rollout.new else { return make_new(view, rollout) };
    let resizes =
        if size(new) == rollout.wanted() { Vec::new() } else { vec![Resize::to(new, rollout.wanted())] };
    finish(rollout, resizes)
}

fn make_new(view: &View, rollout: &Rollout<'_>) -> Plan {
    Plan::of(revision::create(view, rollout))
}

fn finish(rollout: &Rollout<'_>, resizes: Vec<Resize>) -> Plan {
    let settled = resizes.is_empty();
    let mut actions = apply(rollout, resizes);
    if settled && status::is_complete(rollout, &status::counts(rollout)) {
        actions.extend(revision::retire(rollout));
    }
    Plan::of(actions)
}

/// Turns resizes, and what the new ReplicaSet's annotations lack, into one patch a ReplicaSet.
fn apply(rollout: &Rollout<'_>, resizes: Vec<Resize>) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut seen_new = false;
    for Resize { set, size: target } in resizes {
        let is_new = rollout.new.as_ref().is_some_and(|new| Arc::ptr_eq(new, &set));
        seen_new |= is_new;
        let mut annotations = scale::size_annotations(rollout);
        if is_new {
            annotations.extend(revision::missing_annotations(rollout, &set));
        }
        let mut patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": target}});
        if is_new {
            patch["spec"]["minReadySeconds"] = json!(rollout.spec.min_ready_seconds.unwrap_or(0));
        }
        actions.push(plan::guarded_patch(&*set, patch));
        let from = size(&set);
        if from != target {
            let direction = if from < target { "up" } else { "down" };
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let text = format!("Scaled {direction} replica set {name} from {from} to {target}");
            actions.push(plan::event(rollout.deployment, EventKind::Normal, "ScalingReplicaSet", text));
        }
    }
    if let Some(new) = rollout.new.as_ref().filter(|_| !seen_new) {
        actions.extend(revision::refresh(rollout, new));
    }
    actions
}

#[cfg(test)]
mod tests;
