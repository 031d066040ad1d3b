//! Drives every controller in the same way: changes wake keys, keys are planned on a view that holds their own writes,
//! plans are executed, failures come again later. It knows no controller by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use controllers::plan::Notes;
use controllers::{Context, Controller, Key, Settings, View};
use jiff::Timestamp;
use runtime::{Queue, Recorder};
use tokio::task::JoinError;

use super::execute::{Executor, Failure, Outcome};
use super::expectation::Expectations;

/// Keys of one controller that are worked on at a time (upstream's --concurrent-*-syncs are 5).
const WORKERS: usize = 5;

/// A key whose own writes have not come back looks again after this time, if no event woke it before.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One controller at work.
pub struct Driver {
    controller: &'static Controller,
    view: Arc<View>,
    settings: Arc<Settings>,
    executor: Executor,
    queue: Arc<Queue<Key>>,
    memory: Mutex<Memory>,
    since: Timestamp,
}

#[derive(Default)]
struct Memory {
    expectations: Expectations,
    failures: HashMap<Key, String>,
    notes: HashMap<Key, Notes>,
}

impl Driver {
    /// A driver for `controller`; keys arrive through `queue`.
    pub fn new(
        controller: &'static Controller,
        view: Arc<View>,
        settings: Arc<Settings>,
        client: kube::Client,
        recorder: &Recorder,
        queue: Arc<Queue<Key>>,
    ) -> Self {
        let executor = Executor::new(client, recorder.component(controller.name));
        Self {
            controller,
            view,
            settings,
            executor,
            queue,
            memory: Mutex::default(),
            since: Timestamp::now(),
        }
    }

    /// Works until dropped; ends only when a plan panics.
    pub async fn run(self) -> JoinError {
        let driver = Arc::new(self);
        let job = |key: Key| {
            let driver = driver.clone();
            async move { driver.work(&key).await }
        };
        driver.queue.serve(WORKERS, job).await
    }

    fn remember<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn work(&self, key: &Key) {
        if !self.remember(|it| it.expectations.are_met(key, &self.view, Instant::now())) {
            self.queue.add_after(key.clone(), LOOK_AGAIN);
            return;
        }
        let (failure, noted) = self
            .remember(|it| (it.failures.get(key).cloned(), it.notes.get(key).cloned().unwrap_or_default()));
        let context = Context {
            now: Timestamp::now(),
            settings: &self.settings,
            failure: failure.as_deref(),
            since: self.since,
            noted: &noted,
        };
        let plan = (self.controller.plan)(&self.view, key, &context);
        self.remember(|it| match plan.noted.is_empty() {
            true => it.notes.remove(key),
            false => it.notes.insert(key.clone(), plan.noted),
        });
        let mut outcome = self.executor.run(plan.actions).await;
        if let Some(status) = plan.status {
            let written = self.executor.run(vec![status]).await;
            outcome.expected.extend(written.expected);
            outcome.failure = outcome.failure.or(written.failure);
        }
        self.settle(key, outcome, plan.requeue);
    }

    fn settle(&self, key: &Key, outcome: Outcome, requeue: Option<Duration>) {
        let name = self.controller.name;
        self.remember(|it| {
            it.expectations.add(key, outcome.expected, Instant::now());
            match &outcome.failure {
                Some(Failure::Refused(text)) => it.failures.insert(key.clone(), text.clone()),
                _ => it.failures.remove(key),
            };
        });
        match outcome.failure {
            None | Some(Failure::NamespaceLeaves) => {
                self.queue.forget(key);
                if let Some(delay) = requeue {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Some(Failure::Stale(text)) => {
                tracing::debug!(controller = name, %key, text, "the view was old");
                self.queue.retry(key.clone());
            }
            Some(Failure::Refused(text)) => {
                tracing::warn!(controller = name, %key, text, "a plan failed");
                self.queue.retry(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
