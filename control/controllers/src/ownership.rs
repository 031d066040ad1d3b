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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::fake::{Fixture, NOW, describe, pod_line};
    use crate::plan::Plan;

    /// A pod of the set (`own`), of nobody (`free`) or of another one (`other`), with matching labels or not.
    fn pod(name: &str, owner: &str, matches: bool) -> Arc<Pod> {
        let of = |name: &str| controller_reference(&Fixture::replica_set(name, 1));
        let owner = match owner {
            "own" => Some(of("web")),
            "other" => Some(of("else")),
            _ => None,
        };
        let mut pod = pod_line(&format!("{name} n1 Ready 1m"), owner);
        if !matches {
            pod.metadata.labels = None;
        }
        Arc::new(pod)
    }

    fn check(owner_leaves: bool, want: Expect) {
        let mut set: ReplicaSet = Fixture::replica_set("web", 1);
        set.metadata.deletion_timestamp = owner_leaves.then_some(Time(NOW));
        let candidates = vec![
            pod("mine", "own", true),
            pod("strayed", "own", false),
            pod("orphan", "free", true),
            pod("stranger", "free", false),
            pod("taken", "other", true),
        ];
        let claim = claim(&set, &Fixture::selector(), candidates);
        let owned: Vec<&str> = claim.owned.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
        want.assert_eq(&format!("owns {}\n{}", owned.join(" "), describe(&Plan::of(claim.actions))));
    }

    #[test]
    fn orphans_are_adopted_and_strayed_objects_released() {
        check(
            false,
            expect![[r#"
            owns mine
            patch Pod strayed {"metadata":{"ownerReferences":[{"$patch":"delete","uid":"uid-web"}],"uid":"uid-strayed"}}
            patch Pod orphan {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-web"}],"uid":"uid-orphan"}}
        "#]],
        );
    }

    #[test]
    fn an_owner_that_leaves_neither_adopts_nor_releases() {
        check(
            true,
            expect![[r#"
            owns mine
        "#]],
        );
    }
}
