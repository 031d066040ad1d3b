//! Who controls an object, and how a controller takes in or lets go the objects that its selector matches
//! (upstream: controller_ref_manager.go). It does not decide what happens to them afterwards.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::plan::{Action, PatchStyle, Target};
use crate::selector;
use crate::table::{Change, Key};
use crate::view::{View, Watched};

/// The owner that manages this object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|it| it.controller == Some(true))
}

/// A reference by which `owner` controls another object.
pub fn controller_reference<K: Watched>(owner: &K) -> OwnerReference {
    let resource = K::WATCHED.resource();
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Objects that belong to an owner, and the patches that make it so.
pub struct Claim<K> {
    /// The owner's objects, those about to be adopted not yet among them.
    pub owned: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
}

/// Sorts `candidates` (of the owner's namespace) into those that `owner` controls, and says whom to adopt and release.
/// An object that is being deleted, or whose owner is, is never adopted.
pub fn claim<O: Watched, K: Watched>(
    owner: &O,
    selector: &LabelSelector,
    candidates: Vec<Arc<K>>,
) -> Claim<K> {
    let uid = owner.metadata().uid.clone().unwrap_or_default();
    let owner_is_leaving = owner.metadata().deletion_timestamp.is_some();
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new() };
    for object in candidates {
        let meta = object.metadata();
        let matched = selector::matches(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if controller.uid != uid => {}
            Some(_) if matched => claim.owned.push(object),
            Some(_) if owner_is_leaving => {}
            Some(_) => claim.actions.push(release(&*object, &uid)),
            None if matched && !owner_is_leaving && meta.deletion_timestamp.is_none() => {
                claim.actions.push(adopt(&*object, owner));
            }
            None => {}
        }
    }
    claim
}

fn adopt<O: Watched, K: Watched>(object: &K, owner: &O) -> Action {
    let reference = controller_reference(owner);
    Action::Patch {
        target: Target::of(object),
        subresource: None,
        style: PatchStyle::Strategic,
        patch: json!({"metadata": {"ownerReferences": [reference], "uid": object.metadata().uid}}),
    }
}

fn release<K: Watched>(object: &K, owner_uid: &str) -> Action {
    Action::Patch {
        target: Target::of(object),
        subresource: None,
        style: PatchStyle::Strategic,
        patch: json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": object.metadata().uid}}),
    }
}

/// Wakes the object that changed.
pub fn itself<K: Watched>(_: &View, change: &Change<K>) -> Vec<Key> {
    change.latest().map(|it| Key::of(it.metadata())).into_iter().collect()
}

/// Wakes the `O`s that control the object, before and after; for an orphan, those whose selector matches it.
pub fn controllers<O: Watched, K: Watched>(
    view: &View,
    change: &Change<K>,
    selector: fn(&O) -> Option<&LabelSelector>,
) -> Vec<Key> {
    let kind = O::WATCHED.resource().kind;
    let mut keys = Vec::new();
    for object in change.states() {
        let meta = object.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        match controller_of(meta) {
            Some(controller) if controller.kind == kind => keys.push(Key::new(namespace, &controller.name)),
            Some(_) => {}
            None => {
                let adopts = |it: &Arc<O>| {
                    selector(it).is_some_and(|it| {
                        !selector::is_empty(it) && selector::matches(it, meta.labels.as_ref())
                    })
                };
                let found = O::table(view).in_namespace(namespace).into_iter().filter(adopts);
                keys.extend(found.map(|it| Key::of(it.metadata())));
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}
