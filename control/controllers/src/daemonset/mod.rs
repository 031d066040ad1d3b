//! Runs one pod of a DaemonSet on each node that it fits (upstream: pkg/controller/daemon). Owns the pods and the
//! ControllerRevisions of DaemonSets; reads nodes. Woken by all four.
//! Placement is left to the scheduler: each pod carries an affinity to its node's name.
//!
//! One file a concept: [`place`] says which node wants a pod, [`history`] keeps revisions, [`rollout`] replaces old pods.

pub mod history;
pub mod place;
pub mod rollout;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::ownership::{self, claim, controller_reference};
use crate::plan::{self, Action, Announcement, Context, EventKind, Plan, reference};
use crate::pod;
use crate::selector;
use crate::table::{Change, Key, NOBODY};
use crate::view::{View, Watch};

/// What wakes this controller.
pub const WATCHES: &[Watch] = &[
    Watch::DaemonSet(ownership::itself),
    Watch::Pod(of_pod),
    Watch::Node(of_node),
    Watch::ControllerRevision(of_revision),
];

/// Most pods that one plan creates or deletes.
const BURST: usize = 250;

fn of_pod(view: &View, change: &Change<Pod>) -> Vec<Key> {
    ownership::controllers(view, change, |it: &DaemonSet| Some(&it.spec.as_ref()?.selector))
}

fn of_revision(view: &View, change: &Change<ControllerRevision>) -> Vec<Key> {
    ownership::controllers(view, change, |it: &DaemonSet| Some(&it.spec.as_ref()?.selector))
}

fn of_node(view: &View, change: &Change<Node>) -> Vec<Key> {
    let matters = |it: &Arc<Node>| {
        (it.metadata.labels.clone(), it.spec.as_ref().map(|it| (it.taints.clone(), it.unschedulable)))
    };
    if change.old.as_ref().map(matters) == change.new.as_ref().map(matters) {
        return Vec::new();
    }
    view.daemon_sets.all().iter().map(|it| Key::of(&it.metadata)).collect()
}

/// A DaemonSet with its pods by node.
pub struct Fleet<'a> {
    /// The DaemonSet.
    pub set: &'a DaemonSet,
    /// Its spec.
    pub spec: &'a DaemonSetSpec,
    /// The hash of the current template.
    pub hash: String,
    /// Its pods by the node they run on or are meant for, oldest first.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// All nodes, with whether a pod should be started there and whether one may stay.
    pub nodes: Vec<(Arc<Node>, place::Fitness)>,
    /// When this is decided, and with what.
    pub context: Context<'a>,
}

impl Fleet<'_> {
    /// The pods of a node.
    pub fn on(&self, node: &Node) -> &[Arc<Pod>] {
        self.pods
            .get(node.metadata.name.as_deref().unwrap_or_default())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Whether `pod` has the current template.
    pub fn is_current(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|it| it.get(history::HASH_LABEL)) == Some(&self.hash)
    }

    /// Whether `pod` counts as available.
    pub fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.context.now)
    }
}

/// Decides about the DaemonSet under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let Some(set) = view.daemon_sets.at(key) else { return Plan::await_change() };
    let Some(spec) = set.spec.as_ref() else { return Plan::await_change() };
    if selector::is_empty(&spec.selector) {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
        return Plan::of(vec![plan::event(&*set, EventKind::Warning, "SelectingAll", text)]);
    }
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::await_change();
    }
    let mut candidates = view.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    let orphans = view.pods.owned_by(NOBODY).into_iter();
    candidates.extend(orphans.filter(|it| it.metadata.namespace == set.metadata.namespace));
    let pods = claim(&*set, &spec.selector, candidates);
    let history = history::keep(view, &set, spec);
    let Some(hash) = history.hash.clone().filter(|_| pods.actions.is_empty()) else {
        // The pods' label names a revision, so the revision comes first.
        return Plan::of([pods.actions, history.actions].concat());
    };
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods.owned {
        by_node.entry(place::node_of(&pod).to_owned()).or_default().push(pod);
    }
    by_node.values_mut().for_each(|it| it.sort_by_key(|it| it.metadata.creation_timestamp.clone()));
    let template = place::pod_template(spec, &hash);
    let nodes = view.nodes.all().into_iter().map(|it| (it.clone(), place::fitness(&template, &it))).collect();
    let fleet = Fleet { set: &set, spec, hash, pods: by_node, nodes, context: *context };

    let mut plan = Plan::of(history.actions);
    plan.actions.extend(manage(&fleet));
    if plan.actions.is_empty() {
        plan.actions.extend(rollout::replace(&fleet));
        plan.actions.extend(history::retire(view, &fleet));
    }
    let status = status(&fleet);
    if set.status.as_ref() != Some(&status) {
        plan.status =
            Some(plan::replace_status(&DaemonSet { status: Some(status), ..DaemonSet::clone(&set) }));
    }
    plan
}

/// Creates what is missing, deletes what is too much.
fn manage(fleet: &Fleet<'_>) -> Vec<Action> {
    let mut missing: Vec<&Node> = Vec::new();
    let mut surplus: Vec<&Arc<Pod>> = Vec::new();
    let mut notes = Vec::new();
    for (node, fitness) in &fleet.nodes {
        let pods = fleet.on(node);
        let mut living: Vec<&Arc<Pod>> = pods.iter().filter(|it| !pod::is_terminating(it)).collect();
        if !fitness.may_stay {
            surplus.extend(living);
            continue;
        }
        for dead in living.iter().filter(|it| pod::is_finished(it)) {
            notes.push(obituary(fleet, dead, node));
            surplus.push(dead);
        }
        living.retain(|it| !pod::is_finished(it));
        let (current, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            living.iter().copied().partition(|it| fleet.is_current(it));
        // During a surge one old and one new pod stand side by side; beyond that the oldest of each kind stays.
        let surges = rollout::limits(fleet).1 > 0;
        if surges {
            surplus.extend(current.into_iter().skip(1).chain(old.into_iter().skip(1)));
        } else {
            surplus.extend(living.iter().skip(1));
        }
        if pods.is_empty() && fitness.should_start {
            missing.push(node);
        }
    }
    let known = |name: &str| fleet.nodes.iter().any(|(node, _)| node.metadata.name.as_deref() == Some(name));
    let lost = fleet.pods.iter().filter(|(node, _)| !known(node)).flat_map(|(_, it)| it);
    surplus.extend(lost.filter(|it| pod::node_name(it).is_empty() && !pod::is_terminating(it)));
    if !surplus.is_empty() {
        notes.push(delete(fleet, &surplus));
    }
    if !missing.is_empty() {
        notes.push(Action::SlowStart(missing.iter().take(BURST).map(|it| create(fleet, it)).collect()));
    }
    notes
}

fn obituary(fleet: &Fleet<'_>, dead: &Pod, node: &Node) -> Action {
    let (namespace, name) = (
        dead.metadata.namespace.as_deref().unwrap_or_default(),
        dead.metadata.name.as_deref().unwrap_or_default(),
    );
    let node = node.metadata.name.as_deref().unwrap_or_default();
    let (kind, reason, word) = match pod::phase(dead) {
        "Failed" => (EventKind::Warning, "FailedDaemonPod", "failed"),
        _ => (EventKind::Normal, "SucceededDaemonPod", "succeeded"),
    };
    let rest = if word == "failed" { "will try to kill it" } else { "will try to delete it" };
    plan::event(
        fleet.set,
        kind,
        reason,
        format!("Found {word} daemon pod {namespace}/{name} on node {node}, {rest}"),
    )
}

fn announcement(fleet: &Fleet<'_>) -> Announcement {
    Announcement {
        regarding: reference(fleet.set),
        success: ("SuccessfulCreate", "Created pod: {name}"),
        failure: ("FailedCreate", "Error creating: {error}"),
    }
}

/// A pod for `node`.
pub fn create(fleet: &Fleet<'_>, node: &Node) -> Action {
    let template = place::pod_template(fleet.spec, &fleet.hash);
    let mut pod = pod::from_template(
        &template,
        fleet.set.metadata.namespace.as_deref(),
        controller_reference(fleet.set),
    );
    place::aim(&mut pod, node.metadata.name.as_deref().unwrap_or_default());
    plan::create(&pod, Some(announcement(fleet)))
}

/// Deletes `pods`.
pub fn delete(fleet: &Fleet<'_>, pods: &[&Arc<Pod>]) -> Action {
    let announce = Announcement {
        success: ("SuccessfulDelete", "Deleted pod: {name}"),
        failure: ("FailedDelete", "Error deleting: {error}"),
        ..announcement(fleet)
    };
    Action::Concurrent(
        pods.iter().take(BURST).map(|it| plan::delete(&***it, Some(announce.clone()))).collect(),
    )
}

fn status(fleet: &Fleet<'_>) -> DaemonSetStatus {
    let old = fleet.set.status.clone().unwrap_or_default();
    let (mut desired, mut scheduled, mut misscheduled, mut ready, mut available, mut updated) =
        (0, 0, 0, 0, 0, 0);
    for (node, fitness) in &fleet.nodes {
        let pods = fleet.on(node);
        if !fitness.should_start {
            misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        scheduled += i32::from(!pods.is_empty());
        // Of several pods, the one that is up to date speaks for the node.
        let Some(pod) = pods.iter().find(|it| fleet.is_current(it)).or(pods.first()) else { continue };
        ready += i32::from(pods.iter().any(|it| pod::is_ready(it)));
        available += i32::from(pods.iter().any(|it| pod::is_ready(it) && fleet.is_available(it)));
        updated += i32::from(fleet.is_current(pod));
    }
    let positive = |count: i32| (count > 0).then_some(count);
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: scheduled,
        number_misscheduled: misscheduled,
        number_ready: ready,
        number_available: positive(available),
        number_unavailable: positive(desired - available),
        updated_number_scheduled: positive(updated),
        observed_generation: fleet.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests;
