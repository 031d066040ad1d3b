//! Turns [`Action`]s into API requests and reports what they wrote. It decides nothing: order, rounds and preconditions
//! come with the plan.

use controllers::plan::{self, Action, Announcement, PatchStyle, Target, kind_of};
use controllers::{Key, Resource};
use futures::future::join_all;
use http::{Method, Request};
use kube::Client;
use runtime::{EventKind, Recorder};
use serde_json::{Value, json};

use super::expectation::Expected;

/// Most requests of one plan that are under way at a time.
const WIDTH: usize = 64;

/// How a plan went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the view must show before the next plan.
    pub expected: Vec<Expected>,
    /// The first failure.
    pub failure: Option<Failure>,
}

/// Why an action failed, as far as it matters to what happens next.
#[derive(Debug)]
pub enum Failure {
    /// The view was older than the object: look again.
    Stale(String),
    /// The namespace is going away: nothing will ever be made there.
    NamespaceLeaves,
    /// Anything else; the text goes into statuses and events.
    Refused(String),
}

impl Failure {
    fn of(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => {
                let leaves = status
                    .details
                    .as_ref()
                    .is_some_and(|it| it.causes.iter().any(|it| it.reason == "NamespaceTerminating"));
                match status.reason.as_str() {
                    _ if leaves => Self::NamespaceLeaves,
                    "Conflict" | "AlreadyExists" | "NotFound" => Self::Stale(status.message.clone()),
                    _ => Self::Refused(status.message.clone()),
                }
            }
            other => Self::Refused(other.to_string()),
        }
    }

    /// The cause as text.
    pub fn message(&self) -> &str {
        match self {
            Self::Stale(text) | Self::Refused(text) => text,
            Self::NamespaceLeaves => "namespace is being terminated",
        }
    }
}

/// Executes actions as one API client.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
}

impl Executor {
    /// An executor that writes with `client` and tells events to `recorder`.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// Executes `actions` in order until one fails.
    pub async fn run(&self, actions: Vec<Action>) -> Outcome {
        let mut outcome = Outcome::default();
        for action in actions {
            match action {
                Action::SlowStart(all) => self.slow_start(all, &mut outcome).await,
                Action::Concurrent(all) => {
                    for chunk in all.chunks(WIDTH) {
                        self.together(chunk.to_vec(), &mut outcome).await;
                    }
                }
                single => self.together(vec![single], &mut outcome).await,
            }
            if outcome.failure.is_some() {
                break;
            }
        }
        outcome
    }

    async fn slow_start(&self, mut left: Vec<Action>, outcome: &mut Outcome) {
        let mut size = 1;
        while !left.is_empty() && outcome.failure.is_none() {
            let rest = left.split_off(size.min(left.len()));
            self.together(std::mem::replace(&mut left, rest), outcome).await;
            size = (size * 2).min(WIDTH);
        }
    }

    async fn together(&self, actions: Vec<Action>, outcome: &mut Outcome) {
        for result in join_all(actions.into_iter().map(|it| self.one(it))).await {
            match result {
                Ok(expected) => outcome.expected.extend(expected),
                Err(failure) if outcome.failure.is_none() => outcome.failure = Some(failure),
                Err(_) => {}
            }
        }
    }

    async fn one(&self, action: Action) -> Result<Option<Expected>, Failure> {
        match action {
            Action::Event(note) => {
                self.recorder.event(&note.regarding, event_kind(note.kind), note.reason, &note.message);
                Ok(None)
            }
            Action::Create { resource, namespace, object, announce } => {
                let path = resource.path(&namespace);
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let answer = self.send(Method::POST, &path, "application/json", &object).await;
                self.settle(&resource, &name, answer, announce)
            }
            Action::Replace { target, object } => {
                let answer = self.send(Method::PUT, &path(&target, None), "application/json", &object).await;
                self.settle(&target.resource, &target.key.name, answer, None)
            }
            Action::ReplaceSubresource { target, subresource, object } => {
                let answer = self
                    .send(Method::PUT, &path(&target, Some(subresource)), "application/json", &object)
                    .await;
                self.settle(&target.resource, &target.key.name, answer, None)
            }
            Action::Patch { target, subresource, style, patch } => {
                let kind = match style {
                    PatchStyle::Merge => "application/merge-patch+json",
                    PatchStyle::Strategic => "application/strategic-merge-patch+json",
                    PatchStyle::Json => "application/json-patch+json",
                };
                let answer = self.send(Method::PATCH, &path(&target, subresource), kind, &patch).await;
                self.settle(&target.resource, &target.key.name, answer, None)
            }
            Action::Delete { target, propagation, grace_seconds, announce } => {
                self.delete(target, propagation, grace_seconds, announce).await
            }
            Action::SlowStart(_) | Action::Concurrent(_) => {
                Err(Failure::Refused("groups of actions cannot be nested".to_owned()))
            }
        }
    }

    async fn delete(
        &self,
        target: Target,
        propagation: Option<&'static str>,
        grace_seconds: Option<i64>,
        announce: Option<Announcement>,
    ) -> Result<Option<Expected>, Failure> {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(policy) = propagation {
            options["propagationPolicy"] = json!(policy);
        }
        if let Some(seconds) = grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(uid) = &target.uid {
            options["preconditions"] = json!({"uid": uid});
        }
        let answer = match self.send(Method::DELETE, &path(&target, None), "application/json", &options).await
        {
            Err(Failure::Stale(_)) => Ok(Value::Null),
            other => other,
        };
        self.announce(announce, &target.key.name, answer.as_ref().err());
        answer?;
        let leaving =
            |uid| Some(Expected::Leaving { kind: kind_of(&target.resource)?, key: target.key, uid });
        Ok(target.uid.and_then(leaving))
    }

    fn settle(
        &self,
        resource: &Resource,
        name: &str,
        answer: Result<Value, Failure>,
        announce: Option<Announcement>,
    ) -> Result<Option<Expected>, Failure> {
        let given = answer.as_ref().ok().and_then(|it| it["metadata"]["name"].as_str()).unwrap_or(name);
        self.announce(announce, given, answer.as_ref().err());
        let version = answer?["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok());
        Ok(kind_of(resource).zip(version).map(|(kind, version)| Expected::Seen { kind, version }))
    }

    fn announce(&self, announce: Option<Announcement>, name: &str, failure: Option<&Failure>) {
        match (announce, failure) {
            (None, _) | (_, Some(Failure::NamespaceLeaves)) => {}
            (Some(it), None) => {
                self.recorder.event(
                    &it.regarding,
                    EventKind::Normal,
                    it.success.0,
                    &it.success.1.replace("{name}", name),
                );
            }
            (Some(it), Some(failure)) => {
                let text = it.failure.1.replace("{error}", failure.message());
                self.recorder.event(&it.regarding, EventKind::Warning, it.failure.0, &text);
            }
        }
    }

    /// Reads one path.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let request =
            Request::get(path).body(Vec::new()).map_err(|error| Failure::Refused(error.to_string()))?;
        self.client.request(request).await.map_err(Failure::of)
    }

    /// Sends one request with a JSON body; the answer is an object or a Status.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(body.to_string().into_bytes())
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.client.request(request).await.map_err(Failure::of)
    }
}

fn event_kind(kind: plan::EventKind) -> EventKind {
    match kind {
        plan::EventKind::Normal => EventKind::Normal,
        plan::EventKind::Warning => EventKind::Warning,
    }
}

fn path(target: &Target, subresource: Option<&str>) -> String {
    let Key { namespace, name } = &target.key;
    let tail = subresource.map(|it| format!("/{it}")).unwrap_or_default();
    format!("{}/{name}{tail}", target.resource.path(namespace))
}
