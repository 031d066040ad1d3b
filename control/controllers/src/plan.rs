//! What a controller decided, as data. Executing a plan is the task of `beeline-control` (`driving`); in tests it is
//! [`crate::fake`]'s.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;

use crate::table::Key;
use crate::view::{Kind, Resource, View, Watch, Watched};

/// A controller: what wakes it and how it decides. One row of [`crate::CONTROLLERS`].
pub struct Controller {
    /// Upstream's name of the controller, also the source component of its events.
    pub name: &'static str,
    /// Which changes concern which keys. Every kind that the controller writes must be watched here, since a key is not
    /// planned again before its own writes have come back.
    pub watches: &'static [Watch],
    /// Decides about the object under a key.
    pub plan: fn(&View, &Key, &Context<'_>) -> Plan,
}

/// What a decision may use besides the view.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time of the decision.
    pub now: Timestamp,
    /// The cluster's settings.
    pub settings: &'a Settings,
    /// Since when the view follows the cluster. Silence before that proves nothing.
    pub since: Timestamp,
    /// Why the previous plan for this key could not be executed.
    pub failure: Option<&'a str>,
    /// What the previous plan for this key noted.
    pub noted: &'a Notes,
}

/// Times that a controller remembers about a key from one plan to the next, by names of its own. They last as long as the
/// process: after a restart a controller begins to observe anew.
pub type Notes = BTreeMap<String, Timestamp>;

static NO_NOTES: Notes = Notes::new();

impl<'a> Context<'a> {
    /// A first decision at `now`, in a view that begins to follow the cluster now.
    pub fn at(now: Timestamp, settings: &'a Settings) -> Self {
        Self { now, settings, since: now, failure: None, noted: &NO_NOTES }
    }
}

/// Settings of the controllers.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The cluster's CA certificate (PEM), published as `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Pod ranges of the cluster, one a family, e.g. `10.244.0.0/16`.
    pub cluster_cidrs: Vec<String>,
}

/// A decision: what to write, which status to leave, when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Executed in order; the first failure ends the list, and the key is tried again with back-off.
    pub actions: Vec<Action>,
    /// The new status, written last and even when an action failed.
    pub status: Option<Action>,
    /// Look again after this time, even if nothing changes.
    pub requeue: Option<Duration>,
    /// What the next plan for this key should know.
    pub noted: Notes,
}

impl Plan {
    /// Nothing to do until something changes.
    pub fn await_change() -> Self {
        Self::default()
    }

    /// These actions, nothing else.
    pub fn of(actions: Vec<Action>) -> Self {
        Self { actions, ..Self::default() }
    }

    /// Asks for another look after `delay`, or sooner if one was asked for already.
    pub fn requeue_after(&mut self, delay: Duration) {
        self.requeue = Some(self.requeue.map_or(delay, |known| known.min(delay)));
    }
}

/// One write to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates `object`.
    Create {
        /// Where.
        resource: Resource,
        /// Namespace, or empty.
        namespace: String,
        /// The object.
        object: Value,
        /// Events to record about it.
        announce: Option<Announcement>,
    },
    /// Replaces the whole object; the resourceVersion in `object` guards it.
    Replace {
        /// What.
        target: Target,
        /// The object.
        object: Value,
    },
    /// Replaces a subresource (`status`, `finalize`); the resourceVersion in `object` guards it.
    ReplaceSubresource {
        /// What.
        target: Target,
        /// Subresource's name.
        subresource: &'static str,
        /// The object.
        object: Value,
    },
    /// Patches the object or one of its subresources.
    Patch {
        /// What.
        target: Target,
        /// Subresource's name, if not the object itself.
        subresource: Option<&'static str>,
        /// How the patch is merged.
        style: PatchStyle,
        /// The patch.
        patch: Value,
    },
    /// Deletes an object. That it is gone already is success.
    Delete {
        /// What; the uid, when set, is a precondition.
        target: Target,
        /// `Background`, `Foreground`, `Orphan`, or the kind's default.
        propagation: Option<&'static str>,
        /// Seconds of grace instead of the object's own.
        grace_seconds: Option<i64>,
        /// Events to record about it.
        announce: Option<Announcement>,
    },
    /// Alike actions on different objects, in rounds of 1, 2, 4 ..: a round with a failure is the last one.
    SlowStart(Vec<Action>),
    /// Actions that do not depend on each other, executed at once.
    Concurrent(Vec<Action>),
    /// Records an event.
    Event(EventNote),
}

/// An object to write to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where the kind lives.
    pub resource: Resource,
    /// The object's key.
    pub key: Key,
    /// The object's uid.
    pub uid: Option<String>,
}

impl Target {
    /// The target that `object` is.
    pub fn of<K: Watched>(object: &K) -> Self {
        let meta = object.metadata();
        Self { resource: K::WATCHED.resource(), key: Key::of(meta), uid: meta.uid.clone() }
    }
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchStyle {
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
    /// RFC 6902.
    Json,
}

/// The events that follow the outcome of an action.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Whom the events are about.
    pub regarding: ObjectReference,
    /// Reason and text on success; `{name}` stands for the object's name.
    pub success: (&'static str, &'static str),
    /// Reason and text on failure; `{error}` stands for the cause.
    pub failure: (&'static str, &'static str),
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Expected in the course of things.
    Normal,
    /// Worth a look.
    Warning,
}

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventNote {
    /// Whom it is about.
    pub regarding: ObjectReference,
    /// How grave it is.
    pub kind: EventKind,
    /// One word, upstream's.
    pub reason: &'static str,
    /// A sentence, upstream's.
    pub message: String,
}

/// A reference to `object`, as events and endpoints carry it.
pub fn reference<K: Watched>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    let resource = K::WATCHED.resource();
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_string()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// An event about `object`.
pub fn event<K: Watched>(object: &K, kind: EventKind, reason: &'static str, message: String) -> Action {
    Action::Event(EventNote { regarding: reference(object), kind, reason, message })
}

/// Creates `object`.
pub fn create<K: Watched + serde::Serialize>(object: &K, announce: Option<Announcement>) -> Action {
    let namespace = object.metadata().namespace.clone().unwrap_or_default();
    Action::Create { resource: K::WATCHED.resource(), namespace, object: to_value(object), announce }
}

/// Replaces the status of `object` by the one it holds.
pub fn replace_status<K: Watched + serde::Serialize>(object: &K) -> Action {
    Action::ReplaceSubresource { target: Target::of(object), subresource: "status", object: to_value(object) }
}

/// Patches `object` with a JSON merge patch that fails when the object has changed since.
pub fn guarded_patch<K: Watched>(object: &K, mut patch: Value) -> Action {
    if let Some(version) = &object.metadata().resource_version {
        patch["metadata"]["resourceVersion"] = Value::from(version.clone());
    }
    Action::Patch { target: Target::of(object), subresource: None, style: PatchStyle::Merge, patch }
}

/// Deletes exactly this `object`.
pub fn delete<K: Watched>(object: &K, announce: Option<Announcement>) -> Action {
    Action::Delete { target: Target::of(object), propagation: None, grace_seconds: None, announce }
}

/// An API object as JSON.
pub fn to_value<K: serde::Serialize>(object: &K) -> Value {
    serde_json::to_value(object)
        .expect("API types have string keys and finite numbers, which JSON can always hold")
}

/// The watched kind that `resource` is, if it is one.
pub fn kind_of(resource: &Resource) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.resource() == *resource)
}
