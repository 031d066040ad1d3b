//! All pods of the node: one actor a pod, keyed by uid. Joins the API's watch and containerd's events to the actors.
//!
//! Nothing is ended for being unknown to the API before the API has been listed once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};

use super::actor::{Actor, ActorConfig, Hint, Mailbox, View, fresh};
use super::admit::{Allocatable, admit};
use super::adopt::Adoption;
use super::effects::{PodEffects, Severity};
use super::state::{PodState, name, namespace, uid};
use crate::containerd::containers::Task;
use crate::containerd::events::TaskEvent;
use crate::host::Host;

/// Events miss nothing; this finds out if they ever do.
const AUDIT_EVERY: Duration = Duration::from_secs(300);

/// The pods of a node.
pub struct Workers {
    host: Arc<Host>,
    allocatable: Allocatable,
    actors: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    mailbox: Mailbox,
    view: watch::Receiver<View>,
}

impl Workers {
    /// No pods yet.
    pub fn new(host: Arc<Host>, allocatable: Allocatable) -> Arc<Self> {
        Arc::new(Self { host, allocatable, actors: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.actors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Pods as they are now.
    pub fn views(&self) -> Vec<View> {
        self.lock().values().map(|entry| entry.view.borrow().clone()).collect()
    }

    /// The pod of that name; of two, the one that is not ending.
    pub fn find(&self, pod_namespace: &str, pod_name: &str) -> Option<watch::Receiver<View>> {
        let actors = self.lock();
        let matching = actors.values().filter(|entry| {
            let view = entry.view.borrow();
            namespace(&view.pod) == pod_namespace && name(&view.pod) == pod_name
        });
        matching.min_by_key(|entry| entry.view.borrow().ended).map(|entry| entry.view.clone())
    }

    /// Starts the actors of adopted pods. Gives the containers to be removed after the first sync.
    pub async fn begin(self: &Arc<Self>, adoption: Adoption) -> Vec<String> {
        for adopted in adoption.pods {
            let mailbox = self.spawn(adopted.state, adopted.status);
            for exit in adopted.exits {
                // A new mailbox has room.
                let _ = mailbox.send(exit).await;
            }
        }
        adoption.strays
    }

    fn spawn(self: &Arc<Self>, state: PodState, status: PodStatus) -> Mailbox {
        let config = ActorConfig {
            node_ips: self.host.config.node_ips.clone(),
            clock: Arc::new(Timestamp::now),
            volume_refresh: self.host.config.volume_refresh,
        };
        let id = uid(&state.pod).to_owned();
        let (mailbox, view, task) = Actor::spawn(state, status, self.host.clone(), config);
        self.lock().insert(id.clone(), Entry { mailbox: mailbox.clone(), view });
        let workers = self.clone();
        tokio::spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(pod = id, "the pod's actor panicked");
            }
            workers.lock().remove(&id);
        });
        mailbox
    }

    /// Follows the API until the task is dropped.
    pub async fn follow_api(self: Arc<Self>, strays: Vec<String>) {
        let api: Api<Pod> = Api::all(self.host.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.host.config.node_name));
        let mut events = watcher(api, config).backoff(runtime::Pauses::default()).boxed();
        let mut seen = HashSet::new();
        let mut strays = Some(strays);
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.take_api_event(event, &mut seen, &mut strays).await,
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "pods of this node cannot be watched now"),
            }
        }
    }

    async fn take_api_event(
        self: &Arc<Self>,
        event: Event<Pod>,
        seen: &mut HashSet<String>,
        strays: &mut Option<Vec<String>>,
    ) {
        match event {
            Event::Init => seen.clear(),
            Event::InitApply(pod) => {
                seen.insert(uid(&pod).to_owned());
                self.apply(pod).await;
            }
            Event::InitDone => {
                let unknown: Vec<Mailbox> = self
                    .lock()
                    .iter()
                    .filter(|(id, _)| !seen.contains(*id))
                    .map(|(_, entry)| entry.mailbox.clone())
                    .collect();
                for mailbox in unknown {
                    // An actor that has ended needs no hint.
                    let _ = mailbox.send(Hint::Removed(None)).await;
                }
                for id in strays.take().into_iter().flatten() {
                    tracing::warn!(container = id, "removing a container of no known pod");
                    if let Err(error) = self.host.containerd.remove(&id).await {
                        tracing::warn!(container = id, %error, "stray container not removed");
                    }
                }
            }
            Event::Apply(pod) => self.apply(pod).await,
            Event::Delete(pod) => {
                let mailbox = self.lock().get(uid(&pod)).map(|entry| entry.mailbox.clone());
                if let Some(mailbox) = mailbox {
                    let _ = mailbox.send(Hint::Removed(Some(Arc::new(pod)))).await;
                }
            }
        }
    }

    async fn apply(self: &Arc<Self>, pod: Pod) {
        let pod = Arc::new(pod);
        let known = self.lock().get(uid(&pod)).map(|entry| entry.mailbox.clone());
        let mailbox = match known {
            Some(mailbox) => mailbox,
            None => self.admit(&pod),
        };
        let _ = mailbox.send(Hint::Desired(pod)).await;
    }

    fn admit(self: &Arc<Self>, pod: &Arc<Pod>) -> Mailbox {
        let mut state = fresh(pod.clone(), Timestamp::now(), self.host.config.crash_loop_max);
        let others: Vec<Arc<Pod>> =
            self.views().into_iter().filter(|view| !view.ended).map(|view| view.pod).collect();
        let ending = pod.metadata.deletion_timestamp.is_some();
        if !state.ended
            && !ending
            && let Err(verdict) = admit(pod, &others, self.allocatable)
        {
            self.host.event(pod, None, Severity::Warning, &verdict.reason, &verdict.message);
            state.rejection = Some(verdict);
        }
        tracing::info!(pod = name(pod), namespace = namespace(pod), uid = uid(pod), "pod assigned");
        self.spawn(state, pod.status.clone().unwrap_or_default())
    }

    /// Follows containerd until the task is dropped.
    pub async fn follow_runtime(self: Arc<Self>) {
        let (sender, mut events) = mpsc::channel(1024);
        let host = self.host.clone();
        let source = async move { host.containerd.follow_events(sender).await };
        let sink = async {
            let mut audit = tokio::time::interval(AUDIT_EVERY);
            audit.reset();
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(TaskEvent::Exit { id, code, at }) => self.deliver_exit(id, code, at).await,
                        Some(TaskEvent::Resync) => self.compare_tasks().await,
                        None => return,
                    },
                    _ = audit.tick() => self.compare_tasks().await,
                }
            }
        };
        tokio::join!(source, sink);
    }

    async fn deliver_exit(&self, id: String, code: i32, at: Timestamp) {
        let owner =
            self.host.owners.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned();
        let mailbox = owner.and_then(|owner| self.lock().get(&owner).map(|entry| entry.mailbox.clone()));
        if let Some(mailbox) = mailbox {
            let _ = mailbox.send(Hint::TaskExited { id, code, at }).await;
        }
    }

    /// Ends that no event told of: what should run and does not.
    async fn compare_tasks(&self) {
        let running: Vec<String> =
            self.views().iter().flat_map(|view| view.running.values().cloned().collect::<Vec<_>>()).collect();
        for id in running {
            match self.host.containerd.task(&id).await {
                Ok(Task::Stopped { code, at }) => {
                    self.deliver_exit(id, code, at.unwrap_or_else(Timestamp::now)).await;
                }
                Ok(Task::Missing) => self.deliver_exit(id, 137, Timestamp::now()).await,
                Ok(Task::Running | Task::Created) => {}
                Err(error) => tracing::warn!(container = id, %error, "state of a container is unknown"),
            }
        }
    }
}
