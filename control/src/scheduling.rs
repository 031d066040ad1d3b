//! The scheduler's role: informers feed the pure scheduler, and what it decides is bound, reported and recorded.
//! It decides nothing itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use controllers::plan::{PatchStyle, reference};
use controllers::{Action, Resource, Table, Watched};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher;
use kube::{Api, Client};
use runtime::lease::Candidate;
use runtime::{Error, EventKind, Recorder};
use scheduler::{Scheduler, Step};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::driving::execute::Executor;
use crate::local_copy;

/// Settings of the scheduler's role.
#[derive(Clone, Debug, Default)]
pub struct SchedulerConfig {
    /// This process's name in leader election; unique.
    pub identity: String,
    /// Whether to wait for the Lease kube-system/kube-scheduler.
    pub leader_elect: bool,
    /// The `spec.schedulerName` that is served; empty means `default-scheduler`.
    pub scheduler_name: String,
}

/// The Lease of this role.
const LEASE: &str = "kube-scheduler";
/// The scheduler that pods ask for when they do not say.
const DEFAULT_NAME: &str = "default-scheduler";
/// Writes that are under way at a time: the next pod does not wait for the last one's binding.
const WRITES: usize = 64;

/// Runs the scheduler until `shutdown`.
///
/// # Errors
/// [`Error::LeadershipLost`] when the lease could not be kept; start the role again then.
pub async fn run(client: Client, config: SchedulerConfig, shutdown: CancellationToken) -> Result<(), Error> {
    let name = if config.scheduler_name.is_empty() { DEFAULT_NAME } else { &config.scheduler_name };
    let work = work(client.clone(), name, &shutdown);
    if config.leader_elect {
        Candidate::new(client, LEASE, &config.identity).lead(&shutdown, work).await
    } else {
        work.await
    }
}

/// The scheduler, shared between the informers that feed it and the loop that asks it.
struct Desk {
    scheduler: Mutex<Scheduler>,
    changed: Notify,
    executor: Executor,
    recorder: Recorder,
}

impl Desk {
    fn tell(&self, change: impl FnOnce(&mut Scheduler, Instant)) {
        change(&mut self.scheduler.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        self.changed.notify_one();
    }
}

async fn work(client: Client, name: &str, shutdown: &CancellationToken) -> Result<(), Error> {
    let recorder = Recorder::new(client.clone(), name, None);
    let desk = Arc::new(Desk {
        scheduler: Mutex::new(Scheduler::new(name)),
        changed: Notify::new(),
        executor: Executor::new(client.clone(), recorder.clone()),
        recorder,
    });
    // Nodes first: a pod that is seen before any node would only be refused.
    let told = desk.clone();
    let table = Arc::new(Table::default());
    let nodes =
        local_copy::keep(table, Api::all(client.clone()), watcher::Config::default(), move |change| {
            told.tell(|it, now| it.node_changed(change.old.as_ref(), change.new.as_ref(), now));
        });
    nodes.synced().await;
    let told = desk.clone();
    let table = Arc::new(Table::default());
    let pods = local_copy::keep(table, Api::all(client), watcher::Config::default(), move |change| {
        told.tell(|it, now| it.pod_changed(change.old.as_ref(), change.new.as_ref(), now));
    });
    pods.synced().await;
    tracing::info!(name, "scheduler follows the API");
    tokio::select! {
        panic = decide(&desk) => Err(Error::Panicked(panic.to_string())),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn decide(desk: &Arc<Desk>) -> JoinError {
    let mut writes = JoinSet::new();
    loop {
        let step = if writes.len() < WRITES {
            desk.scheduler.lock().unwrap_or_else(PoisonError::into_inner).step(Instant::now())
        } else {
            Step::Idle
        };
        let wait = match step {
            Step::Bind { pod, node } => {
                let desk = desk.clone();
                writes.spawn(async move { bind(&desk, &pod, &node).await });
                continue;
            }
            Step::Refuse { pod, why } => {
                let desk = desk.clone();
                writes.spawn(async move { refuse(&desk, &pod, &why.message).await });
                continue;
            }
            Step::Idle => None,
            Step::Sleep(at) => Some(at),
        };
        tokio::select! {
            Some(ended) = writes.join_next() => if let Err(panic) = ended {
                return panic;
            },
            () = desk.changed.notified() => {}
            () = tokio::time::sleep_until(wait.unwrap_or_else(Instant::now).into()), if wait.is_some() => {}
        }
    }
}

async fn bind(desk: &Desk, pod: &Pod, node: &str) {
    let meta = &pod.metadata;
    let (namespace, name) =
        (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": meta.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let resource: Resource = Pod::WATCHED.resource();
    let path = format!("{}/{name}/binding", resource.path(namespace));
    match desk.executor.send(http::Method::POST, &path, "application/json", &binding).await {
        Ok(_) => {
            let text = format!("Successfully assigned {namespace}/{name} to {node}");
            desk.recorder.event(&reference(pod), EventKind::Normal, "Scheduled", &text);
        }
        Err(failure) => {
            tracing::warn!(namespace, name, node, cause = failure.message(), "binding refused");
            let text = format!("running Bind plugin \"DefaultBinder\": {}", failure.message());
            desk.recorder.event(&reference(pod), EventKind::Warning, "FailedScheduling", &text);
            desk.tell(|it, now| it.bind_failed(meta.uid.as_deref().unwrap_or_default(), now));
        }
    }
}

async fn refuse(desk: &Desk, pod: &Pod, message: &str) {
    desk.recorder.event(&reference(pod), EventKind::Warning, "FailedScheduling", message);
    let known = controllers::pod::condition(pod, "PodScheduled");
    if known.is_some_and(|it| it.status == "False" && it.message.as_deref() == Some(message)) {
        return;
    }
    let since = known.filter(|it| it.status == "False").and_then(|it| it.last_transition_time.clone());
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| Time(jiff::Timestamp::now())),
    });
    let patch = Action::Patch {
        target: controllers::plan::Target::of(pod),
        subresource: Some("status"),
        style: PatchStyle::Strategic,
        patch: json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}),
    };
    let outcome = desk.executor.run(vec![patch]).await;
    if let Some(failure) = outcome.failure {
        tracing::debug!(cause = failure.message(), "condition not written");
    }
}
