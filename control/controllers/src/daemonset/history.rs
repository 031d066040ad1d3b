//! The revisions of a DaemonSet's template, kept as ControllerRevisions, for `kubectl rollout history` and `undo`.
//! It replaces no pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::Fleet;
use crate::ownership::{controller_of, controller_reference};
use crate::plan::{self, Action};
use crate::template_hash;
use crate::view::View;

/// The label that tells pods and revisions of different templates apart.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The state of the history.
pub struct History {
    /// The hash of the current template, once its revision exists.
    pub hash: Option<String>,
    /// What the history lacks.
    pub actions: Vec<Action>,
}

/// The patch that `kubectl rollout undo` applies to get back to this template.
fn data(spec: &DaemonSetSpec) -> Value {
    let mut template = plan::to_value(&spec.template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn own(view: &View, set: &DaemonSet) -> Vec<Arc<ControllerRevision>> {
    let mut revisions = view.controller_revisions.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    revisions.retain(|it| {
        controller_of(&it.metadata).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
    });
    revisions.sort_by_key(|it| it.revision);
    revisions
}

/// Finds the revision of the current template, or makes it; one that comes back gets the highest number.
pub fn keep(view: &View, set: &DaemonSet, spec: &DaemonSetSpec) -> History {
    let revisions = own(view, set);
    let wanted = data(spec);
    let highest = revisions.last().map_or(0, |it| it.revision);
    let matching = revisions.iter().rev().find(|it| it.data.as_ref().is_some_and(|it| it.0 == wanted));
    if let Some(found) = matching {
        let hash = found.metadata.labels.as_ref().and_then(|it| it.get(HASH_LABEL)).cloned();
        let raise = (found.revision < highest)
            .then(|| plan::guarded_patch(&**found, json!({"revision": highest + 1})));
        return History { hash, actions: raise.into_iter().collect() };
    }
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    // Another template with the same hash: the next salt.
    let free = (0..i32::MAX)
        .map(|salt| template_hash::of(&spec.template, salt))
        .find(|hash| view.controller_revisions.get(namespace, &format!("{name}-{hash}")).is_none());
    let hash = free.unwrap_or_default();
    let mut labels = spec.template.metadata.as_ref().and_then(|it| it.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: Some(namespace.into()),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: highest + 1,
    };
    History { hash: None, actions: vec![plan::create(&revision, None)] }
}

/// Deletes revisions that no pod has, beyond `revisionHistoryLimit`, oldest first.
pub fn retire(view: &View, fleet: &Fleet<'_>) -> Vec<Action> {
    let limit = fleet.spec.revision_history_limit.and_then(|it| usize::try_from(it).ok()).unwrap_or(10);
    let hash_of = |meta: &ObjectMeta| {
        meta.labels.as_ref().and_then(|it| it.get(HASH_LABEL)).cloned().unwrap_or_default()
    };
    let live: Vec<String> = fleet.pods.values().flatten().map(|it| hash_of(&it.metadata)).collect();
    let mut idle = own(view, fleet.set);
    idle.retain(|it| hash_of(&it.metadata) != fleet.hash && !live.contains(&hash_of(&it.metadata)));
    let surplus = idle.len().saturating_sub(limit);
    idle.into_iter().take(surplus).map(|it| plan::delete(&*it, None)).collect()
}
