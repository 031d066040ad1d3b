//! Records Events without ever making its caller wait: repeats are counted on one Event, chatter about one object is
//! cut off (upstream: client-go tools/record, events_cache.go). Lost events are lost: they are hints, not state.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that may wait to be written.
const BACKLOG: usize = 1000;
/// Events that are remembered for counting.
const MEMORY: usize = 4096;
/// Events about one object that pass at once.
const BURST: f64 = 25.0;
/// After the burst, one event about an object passes in this time.
const REFILL: Duration = Duration::from_secs(300);

/// How grave an event is: the API's `type` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Expected in the course of things.
    Normal,
    /// Worth a look.
    Warning,
}

impl EventKind {
    /// The field's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events as one component; clones share the same memory.
#[derive(Clone, Debug)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
    source: EventSource,
}

#[derive(Debug)]
struct Note {
    regarding: ObjectReference,
    source: EventSource,
    kind: EventKind,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder for `component` (e.g. `kubelet`), on `host` if it is bound to a node. Must be called within a tokio runtime.
    pub fn new(client: Client, component: &str, host: Option<String>) -> Self {
        let (notes, inbox) = mpsc::channel(BACKLOG);
        tokio::spawn(write(client, inbox));
        Self { notes, source: EventSource { component: Some(component.to_owned()), host } }
    }

    /// The same recorder under another component's name.
    #[must_use]
    pub fn component(&self, component: &str) -> Self {
        Self {
            notes: self.notes.clone(),
            source: EventSource { component: Some(component.to_owned()), ..self.source.clone() },
        }
    }

    /// Records that something happened to `regarding`. Never waits; when too much is waiting already, the event is dropped.
    pub fn event(&self, regarding: &ObjectReference, kind: EventKind, reason: &str, message: &str) {
        let note = Note {
            regarding: regarding.clone(),
            source: self.source.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
            at: Timestamp::now(),
        };
        if self.notes.try_send(note).is_err() {
            tracing::debug!(reason, message, "event dropped");
        }
    }
}

/// What makes two notes the same event: source, object, kind, reason and text.
type Identity = (String, String, &'static str, String, String);

impl Note {
    fn subject(&self) -> String {
        let it = &self.regarding;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        [part(&it.kind), part(&it.namespace), part(&it.name), part(&it.uid), part(&it.field_path)].join("/")
    }

    fn component(&self) -> &str {
        self.source.component.as_deref().unwrap_or_default()
    }

    fn identity(&self) -> Identity {
        (
            self.component().to_owned(),
            self.subject(),
            self.kind.as_str(),
            self.reason.clone(),
            self.message.clone(),
        )
    }

    fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or("default")
    }

    fn event(&self) -> Event {
        let name = self.regarding.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", self.at.as_nanosecond())),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: self.regarding.clone(),
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()),
            type_: Some(self.kind.as_str().to_owned()),
            source: Some(self.source.clone()),
            first_timestamp: Some(Time(self.at)),
            last_timestamp: Some(Time(self.at)),
            count: Some(1),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        }
    }
}

/// Lets a burst about one object pass, then a trickle. Pure.
#[derive(Debug, Default)]
struct Filter {
    buckets: HashMap<String, (f64, Instant)>,
}

impl Filter {
    fn passes(&mut self, subject: String, now: Instant) -> bool {
        if self.buckets.len() >= MEMORY {
            self.buckets.retain(|_, (_, since)| now.duration_since(*since) < REFILL);
        }
        let (tokens, since) = self.buckets.entry(subject).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*since).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *since = now;
        let passes = *tokens >= 1.0;
        if passes {
            *tokens -= 1.0;
        }
        passes
    }
}

async fn write(client: Client, mut inbox: mpsc::Receiver<Note>) {
    let mut known: HashMap<Identity, (String, i32)> = HashMap::new();
    let mut filter = Filter::default();
    while let Some(note) = inbox.recv().await {
        if !filter.passes(format!("{}/{}", note.component(), note.subject()), Instant::now()) {
            continue;
        }
        if known.len() >= MEMORY {
            known.clear();
        }
        let api: Api<Event> = Api::namespaced(client.clone(), note.namespace());
        if let Some((name, count)) = known.get_mut(&note.identity()) {
            let patch = json!({"count": *count + 1, "lastTimestamp": Time(note.at)});
            if api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                *count += 1;
                continue;
            }
        }
        let event = note.event();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                known.insert(note.identity(), (event.metadata.name.unwrap_or_default(), 1));
            }
            Err(error) => tracing::debug!(%error, reason = note.reason, "event not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_event_in_five_minutes() {
        let (mut filter, start) = (Filter::default(), Instant::now());
        let passed = (0..100).filter(|_| filter.passes("pod".into(), start)).count();
        assert_eq!(passed, 25);
        assert!(filter.passes("other".into(), start));
        assert!(!filter.passes("pod".into(), start + Duration::from_secs(299)));
        assert!(filter.passes("pod".into(), start + Duration::from_secs(301)));
    }
}
