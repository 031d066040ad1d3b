//! Which ReplicaSet belongs to a Deployment's current template, how a new one is made, and what the revision annotations
//! remember for `kubectl rollout history` and `undo`. It does not size ReplicaSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{Rollout, scale, size};
use crate::ownership::controller_reference;
use crate::plan::{self, Action, EventKind};
use crate::template_hash;
use crate::view::View;

/// The label that tells the pods of one ReplicaSet from its siblings'.
pub const HASH_LABEL: &str = "pod-template-hash";
/// The revision that a ReplicaSet holds, and that a Deployment is at.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that a ReplicaSet held before.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Length at which the history forgets its oldest entries (upstream's maxRevHistoryLengthInChars).
const MAX_HISTORY_CHARS: usize = 2000;

/// Annotations of a Deployment that are its own affair and never reach its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    scale::DESIRED,
    scale::MAX,
    "deprecated.deployment.rollback.to",
];

/// The revision that an object's annotation names, 0 if none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations
        .as_ref()
        .and_then(|all| all.get(REVISION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Finds the new ReplicaSet among `sets`: the oldest one with the Deployment's template.
pub fn sort_out<'a>(
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    mut sets: Vec<Arc<ReplicaSet>>,
    now: Timestamp,
) -> Rollout<'a> {
    sets.sort_by(|a, b| {
        let age = |it: &ReplicaSet| it.metadata.creation_timestamp.clone();
        age(a).cmp(&age(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    let found = sets.iter().position(|set| {
        set.spec
            .as_ref()
            .and_then(|it| it.template.as_ref())
            .is_some_and(|it| same_template(it, &spec.template))
    });
    let new = found.map(|at| sets.remove(at));
    Rollout { deployment, spec, new, old: sets, now }
}

fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let labels = |it: &PodTemplateSpec| {
        let mut labels = it.metadata.as_ref().and_then(|it| it.labels.clone()).unwrap_or_default();
        labels.remove(HASH_LABEL);
        labels
    };
    let annotations =
        |it: &PodTemplateSpec| it.metadata.as_ref().and_then(|it| it.annotations.clone()).unwrap_or_default();
    a.spec == b.spec && labels(a) == labels(b) && annotations(a) == annotations(b)
}

/// The revision that the new ReplicaSet must hold: one above all others.
fn next_revision(rollout: &Rollout<'_>) -> i64 {
    rollout.old.iter().map(|it| revision(&it.metadata)).max().unwrap_or(0) + 1
}

/// The revision that the Deployment is at, once its new ReplicaSet stands.
pub fn current(rollout: &Rollout<'_>) -> Option<i64> {
    rollout.new.as_ref().map(|new| revision(&new.metadata).max(next_revision(rollout)))
}

/// Annotations that the new ReplicaSet lacks: the Deployment's own, and a revision above its siblings'.
pub fn missing_annotations(rollout: &Rollout<'_>, new: &ReplicaSet) -> BTreeMap<String, String> {
    let empty = BTreeMap::new();
    let have = new.metadata.annotations.as_ref().unwrap_or(&empty);
    let mut missing: BTreeMap<String, String> = inherited(rollout.deployment)
        .filter(|(name, value)| have.get(*name) != Some(value))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let (old, next) = (revision(&new.metadata), next_revision(rollout));
    if old < next {
        missing.insert(REVISION.into(), next.to_string());
        if old > 0 {
            missing.insert(REVISION_HISTORY.into(), remember(have.get(REVISION_HISTORY), old));
        }
    }
    missing
}

fn inherited(deployment: &Deployment) -> impl Iterator<Item = (&String, &String)> {
    deployment.metadata.annotations.iter().flatten().filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
}

fn remember(history: Option<&String>, revision: i64) -> String {
    let mut entries: Vec<&str> =
        history.map(|it| it.split(',').filter(|it| !it.is_empty()).collect()).unwrap_or_default();
    let latest = revision.to_string();
    entries.push(&latest);
    while entries.len() > 1 && entries.iter().map(|it| it.len() + 1).sum::<usize>() > MAX_HISTORY_CHARS {
        entries.remove(0);
    }
    entries.join(",")
}

/// Brings annotations and minReadySeconds of the new ReplicaSet up to date, when they are not.
pub fn refresh(rollout: &Rollout<'_>, new: &ReplicaSet) -> Option<Action> {
    let annotations = missing_annotations(rollout, new);
    let wanted = rollout.spec.min_ready_seconds.unwrap_or(0);
    let have = new.spec.as_ref().and_then(|it| it.min_ready_seconds).unwrap_or(0);
    if annotations.is_empty() && wanted == have {
        return None;
    }
    let patch = json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": wanted}});
    Some(plan::guarded_patch(new, patch))
}

/// The name that a new ReplicaSet gets, with the hash in it.
pub fn new_name(rollout: &Rollout<'_>) -> (String, String) {
    let collisions = rollout.deployment.status.as_ref().and_then(|it| it.collision_count).unwrap_or(0);
    let hash = template_hash::of(&rollout.spec.template, collisions);
    (format!("{}-{hash}", rollout.name()), hash)
}

/// Whether the name for the new ReplicaSet is taken by something else, so that another hash is needed.
pub fn collides(view: &View, rollout: &Rollout<'_>) -> bool {
    let namespace = rollout.deployment.metadata.namespace.as_deref().unwrap_or_default();
    rollout.new.is_none() && view.replica_sets.get(namespace, &new_name(rollout).0).is_some()
}

/// Creates the ReplicaSet of the current template.
pub fn create(view: &View, rollout: &Rollout<'_>) -> Vec<Action> {
    if collides(view, rollout) {
        return Vec::new();
    }
    let (name, hash) = new_name(rollout);
    let mut template = rollout.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = rollout.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash);
    let mut annotations: BTreeMap<String, String> =
        inherited(rollout.deployment).map(|(k, v)| (k.clone(), v.clone())).collect();
    annotations.insert(REVISION.into(), next_revision(rollout).to_string());
    annotations.extend(scale::size_annotations(rollout));
    let replicas = scale::new_size(rollout, 0);
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: rollout.deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(rollout.deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: rollout.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let mut actions = vec![plan::create(&set, None)];
    if replicas > 0 {
        let text = format!("Scaled up replica set {name} from 0 to {replicas}");
        actions.push(plan::event(rollout.deployment, EventKind::Normal, "ScalingReplicaSet", text));
    }
    actions
}

/// Deletes old ReplicaSets beyond `revisionHistoryLimit`, lowest revision first, if they are empty and observed as such.
pub fn retire(rollout: &Rollout<'_>) -> Vec<Action> {
    let Some(limit) = rollout.spec.revision_history_limit.and_then(|it| usize::try_from(it).ok()) else {
        return Vec::new();
    };
    let mut old: Vec<_> = rollout.old.iter().filter(|it| it.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(limit);
    old.sort_by_key(|it| revision(&it.metadata));
    let idle = |set: &ReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        size(set) == 0 && status.replicas == 0 && set.metadata.generation <= status.observed_generation
    };
    old.into_iter().take(surplus).filter(|it| idle(it)).map(|it| plan::delete(&**it, None)).collect()
}
