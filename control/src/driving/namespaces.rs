//! Carries out the deletion of namespaces: asks discovery what can be in one, deletes all of it round by round, looks what is
//! left. Which rounds, and what a look means, is decided in `controllers::namespace`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controllers::namespace::{self, Remaining, Survey};
use controllers::{Key, Resource, View};
use http::Method;
use jiff::Timestamp;
use kube::Client;
use runtime::{Queue, Recorder};
use serde_json::{Value, json};
use tokio::task::JoinError;

use super::discovery;
use super::execute::{Executor, Failure};

/// Namespaces that are emptied at a time.
const WIDTH: usize = 10;
/// First pause before a namespace that is not empty yet is looked at again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Empties namespaces whose keys arrive in `queue`, until dropped; ends only when a job panics.
pub async fn run(client: Client, view: Arc<View>, recorder: Recorder, queue: Arc<Queue<Key>>) -> JoinError {
    let executor = Executor::new(client.clone(), recorder.component("namespace-controller"));
    let worker = Arc::new(Worker { executor, client, view });
    let job = |key: Key| {
        let worker = worker.clone();
        async move { worker.empty(&key).await }
    };
    queue.serve(WIDTH, job).await
}

struct Worker {
    client: Client,
    executor: Executor,
    view: Arc<View>,
}

impl Worker {
    async fn empty(&self, key: &Key) {
        let mut pause = FIRST_PAUSE;
        loop {
            let leaving = self.view.namespaces.at(key).filter(|it| it.metadata.deletion_timestamp.is_some());
            let Some(namespace) = leaving else { return };
            if namespace.spec.as_ref().and_then(|it| it.finalizers.as_ref()).is_none_or(Vec::is_empty) {
                return;
            }
            let survey = self.survey(&key.name).await;
            let plan = namespace::plan(&namespace, &survey, Timestamp::now());
            let outcome = self.executor.run(plan.actions.into_iter().chain(plan.status).collect()).await;
            match outcome.failure {
                None if survey.is_clear() => return,
                Some(Failure::Refused(text)) => {
                    tracing::warn!(namespace = key.name, text, "namespace not finished");
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One round: delete, then look. Later rounds wait until the first one left nothing.
    async fn survey(&self, name: &str) -> Survey {
        let mut survey = Survey::default();
        let served = match discovery::served(&self.client).await {
            Ok(served) => served,
            Err(error) => {
                survey.undiscovered = Some(format!("Discovery failed for some groups, 1 failing: {error}"));
                return survey;
            }
        };
        let mut failures = BTreeMap::new();
        let within: Vec<Resource> = served
            .iter()
            .filter(|it| it.resource.namespaced && it.can(&["delete", "list"]))
            .map(|it| it.resource.clone())
            .collect();
        for round in namespace::rounds(within) {
            for resource in &round {
                match self.clear(resource, name).await {
                    Ok(remaining) => {
                        survey.remaining.insert(namespace::resource_name(resource), remaining);
                    }
                    Err(failure) => {
                        failures.insert(namespace::resource_name(resource), failure.message().to_owned());
                    }
                }
            }
            if survey.remaining.values().any(|it| it.count > 0) {
                break;
            }
        }
        if !failures.is_empty() {
            let causes: Vec<String> = failures.values().cloned().collect();
            survey.undeleted = Some(format!(
                "Failed to delete all resource types, {} remaining: {}",
                causes.len(),
                causes.join(", ")
            ));
        }
        survey
    }

    async fn clear(&self, resource: &Resource, name: &str) -> Result<Remaining, Failure> {
        let path = resource.path(name);
        let listed = self.look(&path).await?;
        if listed.count == 0 {
            return Ok(listed);
        }
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        self.executor.send(Method::DELETE, &path, "application/json", &options).await?;
        self.look(&path).await
    }

    async fn look(&self, path: &str) -> Result<Remaining, Failure> {
        let list = self.executor.get(path).await?;
        let mut remaining = Remaining::default();
        for item in list["items"].as_array().into_iter().flatten() {
            remaining.count += 1;
            for finalizer in
                item["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
            {
                *remaining.finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
        Ok(remaining)
    }
}
