//! Deletes what lost its owners, and carries out foreground deletion and orphaning (upstream: pkg/controller/garbagecollector).
//! Holds a graph of owners over all kinds, by uid, made of metadata alone. It asks nobody: where the graph cannot know whether
//! an owner exists, the decision is a question, and `beeline-control` (`driving::collector`) puts it to the API.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::plan::{Action, PatchStyle, Plan, Target};
use crate::table::Key;
use crate::view::Resource;

/// The finalizer of an object that waits for its dependents to go.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that waits for its dependents to be set free.
const ORPHAN: &str = "orphan";

/// An object of which only metadata matters.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    resource: Resource,
    key: Key,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    is_leaving: bool,
}

impl Entry {
    fn waits_for(&self, finalizer: &str) -> bool {
        self.is_leaving && self.finalizers.iter().any(|it| it == finalizer)
    }

    fn target(&self, uid: &str) -> Target {
        Target { resource: self.resource.clone(), key: self.key.clone(), uid: Some(uid.to_owned()) }
    }
}

/// Owners and dependents of everything.
#[derive(Debug, Default)]
pub struct Graph {
    entries: HashMap<String, Entry>,
    dependents: HashMap<String, BTreeSet<String>>,
}

/// What to do about an object.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// These writes, perhaps none.
    Act(Plan),
    /// First find out whether these owners exist with this uid.
    Ask(Vec<OwnerReference>),
}

/// How an owner stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Solid,
    Absent,
    /// It is being deleted in the foreground and waits for its dependents.
    Waiting,
}

impl Graph {
    /// Takes in an object that was added or changed; the uids to decide about because of it.
    pub fn apply(&mut self, resource: &Resource, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let entry = Entry {
            resource: resource.clone(),
            key: Key::of(meta),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            is_leaving: meta.deletion_timestamp.is_some(),
        };
        let old = self.entries.get(&uid);
        if old == Some(&entry) {
            return Vec::new();
        }
        let began_to_wait = [FOREGROUND, ORPHAN]
            .iter()
            .any(|it| entry.waits_for(it) && !old.is_some_and(|old| old.waits_for(it)));
        self.unlink(&uid);
        for owner in &entry.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let has_part = !entry.owners.is_empty() || began_to_wait;
        // An owner that waits for this one may be unblocked by the change.
        let mut concerned: Vec<String> =
            entry.owners.iter().filter(|it| self.is_waiting(&it.uid)).map(|it| it.uid.clone()).collect();
        self.entries.insert(uid.clone(), entry);
        if began_to_wait {
            concerned.extend(self.dependents_of(&uid));
        }
        if has_part {
            concerned.push(uid);
        }
        concerned
    }

    /// Takes in that an object is gone; the uids to decide about because of it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let owners = self.entries.get(uid).map(|it| it.owners.clone()).unwrap_or_default();
        self.unlink(uid);
        self.entries.remove(uid);
        let mut concerned = self.dependents_of(uid);
        concerned.extend(owners.into_iter().map(|it| it.uid).filter(|it| self.is_waiting(it)));
        concerned
    }

    /// The uids of all objects of a resource, to find those that a new list does not hold.
    pub fn uids_of(&self, resource: &Resource) -> Vec<String> {
        self.entries.iter().filter(|(_, it)| it.resource == *resource).map(|(uid, _)| uid.clone()).collect()
    }

    /// The namespace of an object, in which its namespaced owners are looked for.
    pub fn namespace_of(&self, uid: &str) -> String {
        self.entries.get(uid).map(|it| it.key.namespace.clone()).unwrap_or_default()
    }

    fn is_waiting(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|it| it.waits_for(FOREGROUND) || it.waits_for(ORPHAN))
    }

    fn unlink(&mut self, uid: &str) {
        let owners = self.entries.get(uid).map(|it| it.owners.clone()).unwrap_or_default();
        for owner in owners {
            if let Some(all) = self.dependents.get_mut(&owner.uid) {
                all.remove(uid);
                if all.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn blocking_dependents(&self, uid: &str) -> Vec<(&String, &Entry)> {
        let blocks = |it: &Entry| {
            it.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        let all = self.dependents.get(uid).into_iter().flatten();
        all.filter_map(|it| Some((it, self.entries.get(it)?))).filter(|(_, it)| blocks(it)).collect()
    }

    /// Decides about the object `uid`. `absent` are owners' uids that the API said do not exist.
    pub fn plan(&self, uid: &str, absent: &BTreeSet<String>) -> Decision {
        let Some(entry) = self.entries.get(uid) else { return Decision::Act(Plan::await_change()) };
        if entry.waits_for(ORPHAN) {
            return Decision::Act(self.set_free(uid, entry));
        }
        if entry.waits_for(FOREGROUND) {
            return Decision::Act(self.finish_foreground(uid, entry));
        }
        if entry.is_leaving || entry.owners.is_empty() {
            return Decision::Act(Plan::await_change());
        }
        let unknown: Vec<OwnerReference> = entry
            .owners
            .iter()
            .filter(|it| !self.entries.contains_key(&it.uid) && !absent.contains(&it.uid))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Decision::Ask(unknown);
        }
        Decision::Act(self.by_owners(uid, entry, absent))
    }

    fn standing(&self, owner: &OwnerReference, absent: &BTreeSet<String>) -> Standing {
        match self.entries.get(&owner.uid) {
            None if absent.contains(&owner.uid) => Standing::Absent,
            Some(it) if it.waits_for(FOREGROUND) => Standing::Waiting,
            _ => Standing::Solid,
        }
    }

    fn by_owners(&self, uid: &str, entry: &Entry, absent: &BTreeSet<String>) -> Plan {
        let standings: BTreeMap<&str, Standing> =
            entry.owners.iter().map(|it| (it.uid.as_str(), self.standing(it, absent))).collect();
        let any = |wanted: Standing| standings.values().any(|it| *it == wanted);
        if any(Standing::Solid) {
            let lost: Vec<&str> =
                standings.iter().filter(|(_, it)| **it != Standing::Solid).map(|(uid, _)| *uid).collect();
            return if lost.is_empty() {
                Plan::await_change()
            } else {
                Plan::of(vec![without_owners(uid, entry, &lost)])
            };
        }
        // An owner waits in the foreground: so must everything below, or the owner would go before its grandchildren.
        let has_dependents = self.dependents.contains_key(uid);
        let propagation = match () {
            () if entry.finalizers.iter().any(|it| it == ORPHAN) => "Orphan",
            () if entry.finalizers.iter().any(|it| it == FOREGROUND)
                || (any(Standing::Waiting) && has_dependents) =>
            {
                "Foreground"
            }
            () => "Background",
        };
        Plan::of(vec![delete(uid, entry, propagation)])
    }

    fn finish_foreground(&self, uid: &str, entry: &Entry) -> Plan {
        let blocking = self.blocking_dependents(uid);
        if blocking.is_empty() {
            return Plan::of(vec![without_finalizer(uid, entry, FOREGROUND)]);
        }
        // Dependents are decided about on their own; the owner comes again when one is gone.
        Plan::await_change()
    }

    fn set_free(&self, uid: &str, entry: &Entry) -> Plan {
        let dependents = self.dependents_of(uid);
        let freed = dependents
            .iter()
            .filter_map(|it| Some(without_owners(it, self.entries.get(it)?, &[uid])))
            .collect();
        Plan::of(vec![Action::Concurrent(freed), without_finalizer(uid, entry, ORPHAN)])
    }
}

fn delete(uid: &str, entry: &Entry, propagation: &'static str) -> Action {
    Action::Delete {
        target: entry.target(uid),
        propagation: Some(propagation),
        grace_seconds: None,
        announce: None,
    }
}

fn merge_patch(uid: &str, entry: &Entry, field: &str, value: Value) -> Action {
    Action::Patch {
        target: entry.target(uid),
        subresource: None,
        style: PatchStyle::Merge,
        patch: json!({"metadata": {field: value, "uid": uid}}),
    }
}

fn without_owners(uid: &str, entry: &Entry, lost: &[&str]) -> Action {
    let kept: Vec<&OwnerReference> =
        entry.owners.iter().filter(|it| !lost.contains(&it.uid.as_str())).collect();
    merge_patch(uid, entry, "ownerReferences", json!(kept))
}

fn without_finalizer(uid: &str, entry: &Entry, gone: &str) -> Action {
    let kept: Vec<&String> = entry.finalizers.iter().filter(|it| *it != gone).collect();
    merge_patch(uid, entry, "finalizers", json!(kept))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::fake::{NOW, describe};
    use crate::view::Kind;

    /// `name [<owner ..] [!finalizer ..]`; `<owner` does not block its owner's deletion, `<=owner` does; a finalizer means "leaving".
    fn meta(line: &str) -> ObjectMeta {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let owners = words.iter().filter_map(|it| it.strip_prefix('<')).map(|it| OwnerReference {
            uid: it.trim_start_matches('=').into(),
            block_owner_deletion: it.starts_with('=').then_some(true),
            ..OwnerReference::default()
        });
        let finalizers: Vec<String> =
            words.iter().filter_map(|it| it.strip_prefix('!')).map(Into::into).collect();
        ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            owner_references: Some(owners.collect()),
            deletion_timestamp: (!finalizers.is_empty()).then_some(Time(NOW)),
            finalizers: Some(finalizers),
            ..ObjectMeta::default()
        }
    }

    fn check(objects: &[&str], about: &str, absent: &[&str], want: Expect) {
        let mut graph = Graph::default();
        for line in objects {
            graph.apply(&Kind::Pod.resource(), &meta(line));
        }
        let absent = absent.iter().map(ToString::to_string).collect();
        let text = match graph.plan(about, &absent) {
            Decision::Act(plan) => describe(&plan),
            Decision::Ask(owners) => {
                format!("ask {}\n", owners.iter().map(|it| it.uid.as_str()).collect::<Vec<_>>().join(" "))
            }
        };
        want.assert_eq(&text);
    }

    #[test]
    fn an_unknown_owner_is_asked_for_before_anything_is_deleted() {
        check(
            &["pod <set"],
            "pod",
            &[],
            expect![[r#"
            ask set
        "#]],
        );
        check(
            &["pod <set"],
            "pod",
            &["set"],
            expect![[r#"
            delete Pod pod
        "#]],
        );
        check(&["set", "pod <set"], "pod", &[], expect![""]);
    }

    #[test]
    fn one_owner_left_is_enough() {
        check(
            &["a", "pod <a <b"],
            "pod",
            &["b"],
            expect![[r#"
            patch Pod pod {"metadata":{"ownerReferences":[{"apiVersion":"","kind":"","name":"","uid":"a"}],"uid":"pod"}}
        "#]],
        );
    }

    #[test]
    fn foreground_waits_for_blocking_dependents_only() {
        check(&["set !foregroundDeletion", "pod <=set"], "set", &[], expect![""]);
        check(
            &["set !foregroundDeletion", "pod <=set"],
            "pod",
            &[],
            expect![[r#"
            delete Pod pod
        "#]],
        );
        check(
            &["set !foregroundDeletion", "pod <set"],
            "set",
            &[],
            expect![[r#"
            patch Pod set {"metadata":{"finalizers":[],"uid":"set"}}
        "#]],
        );
    }

    #[test]
    fn orphaning_frees_the_dependents_first() {
        check(
            &["set !orphan", "pod <=set"],
            "set",
            &[],
            expect![[r#"
            concurrent: patch Pod pod {"metadata":{"ownerReferences":[],"uid":"pod"}}
            patch Pod set {"metadata":{"finalizers":[],"uid":"set"}}
        "#]],
        );
    }

    #[test]
    fn the_end_of_an_owner_concerns_its_dependents_and_of_a_dependent_its_waiting_owner() {
        let mut graph = Graph::default();
        graph.apply(&Kind::Pod.resource(), &meta("set"));
        graph.apply(&Kind::Pod.resource(), &meta("pod <=set"));
        assert_eq!(graph.apply(&Kind::Pod.resource(), &meta("set !foregroundDeletion")), ["pod", "set"]);
        assert_eq!(graph.remove("pod"), ["set"]);
        graph.apply(&Kind::Pod.resource(), &meta("late <set"));
        assert_eq!(graph.remove("set"), ["late"]);
    }
}
