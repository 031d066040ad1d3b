//! What a DELETE does to an object, decided without doing it: remove, mark, or wait.

use api::registry::Resource;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::options::{DeleteOptions, Propagation};
use crate::object::metadata_mut;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Deletion {
    /// The object goes at once.
    Remove,
    /// The object stays for now, in this state.
    Mark(Value),
    /// It is on its way already; nothing to write.
    Wait,
}

/// Decides what `options` mean for `object` at `now`.
pub(crate) fn plan(resource: &Resource, object: &Value, options: &DeleteOptions, now: Timestamp) -> Deletion {
    if is_namespace(resource) && !api::kinds::namespace::is_finalized(object) {
        if is_deleting(object) {
            return Deletion::Wait;
        }
        let mut marked = object.clone();
        api::kinds::namespace::begin_deletion(&mut marked, now);
        return Deletion::Mark(marked);
    }
    let finalizers = finalizers_after(object, options.propagation);
    let grace = resource.strategy.graceful_deletion(object, options.grace_period_seconds);
    let mut marked = object.clone();
    if finalizers != finalizers_of(object) {
        set_finalizers(&mut marked, &finalizers);
    }
    let left = match (is_deleting(object), grace) {
        (false, grace) => {
            let seconds = grace.unwrap_or(0);
            mark(&mut marked, now, seconds);
            seconds
        }
        (true, None) => 0,
        (true, Some(_)) => shorten(&mut marked, options.grace_period_seconds),
    };
    match (left, finalizers.is_empty()) {
        (0, true) => Deletion::Remove,
        _ if marked == *object => Deletion::Wait,
        _ => Deletion::Mark(marked),
    }
}

/// A version that has been marked and has nothing left to wait for: it is not stored but removed.
pub(crate) fn is_finished(resource: &Resource, object: &Value) -> bool {
    let seconds = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    is_deleting(object)
        && seconds == 0
        && finalizers_of(object).is_empty()
        && (!is_namespace(resource) || api::kinds::namespace::is_finalized(object))
}

fn is_namespace(resource: &Resource) -> bool {
    resource.kind == "Namespace" && resource.group.is_empty()
}

fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|it| !it.is_null())
}

fn finalizers_of(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The finalizers that the propagation policy leaves; without a policy those that are there speak for themselves.
fn finalizers_after(object: &Value, propagation: Option<Propagation>) -> Vec<&str> {
    let mut finalizers = finalizers_of(object);
    let Some(propagation) = propagation else { return finalizers };
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    finalizers.retain(|it| (*it != ORPHAN && *it != FOREGROUND) || Some(*it) == wanted);
    if let Some(wanted) = wanted.filter(|it| !finalizers.contains(it)) {
        finalizers.push(wanted);
    }
    finalizers
}

fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    if let Some(metadata) = metadata_mut(object) {
        if finalizers.is_empty() {
            metadata.shift_remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), json!(finalizers));
        }
    }
}

fn mark(object: &mut Value, now: Timestamp, seconds: i64) {
    let Some(metadata) = metadata_mut(object) else { return };
    let deadline = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    metadata.insert("deletionTimestamp".to_owned(), api::time::seconds(deadline).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|it| *it > 0) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Brings a deadline forward if asked; never puts it off. Gives the seconds of grace that now hold.
fn shorten(object: &mut Value, requested: Option<i64>) -> i64 {
    let Some(metadata) = metadata_mut(object) else { return 0 };
    let held = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let Some(wanted) = requested.map(|it| it.max(0)).filter(|it| *it < held) else { return held };
    let deadline =
        metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|it| api::time::parse(it).ok());
    if let Some(deadline) = deadline {
        let earlier = deadline.saturating_sub(SignedDuration::from_secs(held - wanted)).unwrap_or(deadline);
        metadata.insert("deletionTimestamp".to_owned(), api::time::seconds(earlier).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), wanted.into());
    wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(plural: &str, object: Value, options: DeleteOptions, expected: &str) {
        let resource = api::registry::lookup("", "v1", plural).unwrap();
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let seen = match plan(resource, &object, &options, now) {
            Deletion::Remove => "remove".to_owned(),
            Deletion::Wait => "wait".to_owned(),
            Deletion::Mark(it) => format!(
                "mark {} {} {}",
                it["metadata"]["deletionTimestamp"].as_str().unwrap_or_default(),
                it["metadata"]["deletionGracePeriodSeconds"],
                it["metadata"]["finalizers"]
            ),
        };
        assert_eq!(seen, expected);
    }

    fn with(propagation: Propagation) -> DeleteOptions {
        DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn finalizers_keep_an_object() {
        let plain = json!({"metadata": {"name": "a"}});
        let held = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        check("configmaps", plain.clone(), DeleteOptions::default(), "remove");
        check("configmaps", held.clone(), DeleteOptions::default(), "mark 2026-01-01T00:01:00Z 0 [\"x/y\"]");
        check(
            "configmaps",
            plain.clone(),
            with(Propagation::Foreground),
            "mark 2026-01-01T00:01:00Z 0 [\"foregroundDeletion\"]",
        );
        check("configmaps", plain, with(Propagation::Orphan), "mark 2026-01-01T00:01:00Z 0 [\"orphan\"]");
        check("configmaps", held, with(Propagation::Background), "mark 2026-01-01T00:01:00Z 0 [\"x/y\"]");
        let marked = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "finalizers": ["x/y"]}});
        check("configmaps", marked.clone(), DeleteOptions::default(), "wait");
        check(
            "configmaps",
            marked,
            with(Propagation::Orphan),
            "mark 2026-01-01T00:00:00Z 0 [\"x/y\",\"orphan\"]",
        );
    }

    #[test]
    fn a_pod_gets_its_grace_and_can_only_lose_it() {
        let running = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        check("pods", running.clone(), DeleteOptions::default(), "mark 2026-01-01T00:01:30Z 30 null");
        check("pods", running.clone(), grace(5), "mark 2026-01-01T00:01:05Z 5 null");
        check("pods", running, grace(0), "remove");
        let dying = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:30Z", "deletionGracePeriodSeconds": 30},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        check("pods", dying.clone(), DeleteOptions::default(), "wait");
        check("pods", dying.clone(), grace(60), "wait");
        check("pods", dying.clone(), grace(10), "mark 2026-01-01T00:01:10Z 10 null");
        check("pods", dying, grace(0), "remove");
        check("pods", json!({"metadata": {}, "spec": {}}), DeleteOptions::default(), "remove");
    }

    #[test]
    fn a_namespace_goes_when_its_finalizers_are_empty() {
        let active = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        check("namespaces", active, DeleteOptions::default(), "mark 2026-01-01T00:01:00Z null null");
        let terminating = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}});
        check("namespaces", terminating, DeleteOptions::default(), "wait");
        let done = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        let resource = api::registry::lookup("", "v1", "namespaces").unwrap();
        assert!(is_finished(resource, &done));
    }
}
