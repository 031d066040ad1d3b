//! Feeds the garbage collector's graph with the metadata of everything the API serves, asks the API about owners that the
//! graph does not know, and executes what `controllers::garbage` decides.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use controllers::Resource;
use controllers::garbage::{Decision, Graph};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use runtime::{Arrival, Informer, Queue, Recorder};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::discovery::{self, Served};
use super::execute::{Executor, Failure};

/// How often the API is asked for resources that it did not serve before.
const REDISCOVER: Duration = Duration::from_secs(30);

/// Kinds that own nothing, are owned by nothing, and change all the time.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

struct Collector {
    client: Client,
    executor: Executor,
    graph: Mutex<Graph>,
    /// Owners that the API said do not exist. A uid never comes back, so this is never wrong; it is bounded all the same.
    absent: Mutex<BTreeSet<String>>,
    served: Mutex<Vec<Served>>,
    queue: Queue<String>,
}

/// Objects that are decided about at a time (upstream's --concurrent-gc-syncs).
const WIDTH: usize = 20;
/// Owners that are remembered as absent.
const ABSENT_KEPT: usize = 10_000;

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects garbage until dropped; ends only when a decision panics.
pub async fn run(client: Client, recorder: Recorder) -> JoinError {
    let collector = Arc::new(Collector {
        executor: Executor::new(client.clone(), recorder.component("garbage-collector")),
        client,
        graph: Mutex::default(),
        absent: Mutex::default(),
        served: Mutex::default(),
        queue: Queue::default(),
    });
    let (first_lists, mut ready) = watch::channel(false);
    let _follower = AbortOnDropHandle::new(tokio::spawn(collector.clone().follow(first_lists)));
    // Deciding on half a graph would only ask the API about every owner.
    let _ = ready.wait_for(|it| *it).await;
    let job = |uid: String| {
        let collector = collector.clone();
        async move { collector.decide(&uid).await }
    };
    collector.queue.serve(WIDTH, job).await
}

impl Collector {
    /// Keeps one follower a resource, for as long as the resource is served.
    async fn follow(self: Arc<Self>, first_lists: watch::Sender<bool>) {
        let mut followers: HashMap<Resource, Informer> = HashMap::new();
        loop {
            match discovery::served(&self.client).await {
                Ok(served) => {
                    let ignored =
                        |it: &Served| IGNORED.contains(&(&*it.resource.group, &*it.resource.plural));
                    let wanted: Vec<Resource> = served
                        .iter()
                        .filter(|it| it.can(&["list", "watch", "delete"]) && !ignored(it))
                        .map(|it| it.resource.clone())
                        .collect();
                    *lock(&self.served) = served;
                    followers.retain(|resource, _| wanted.contains(resource));
                    let mut marks = Vec::new();
                    for resource in wanted {
                        followers.entry(resource.clone()).or_insert_with(|| {
                            let follower = self.clone().watch(resource);
                            marks.push(follower.sync_mark());
                            follower
                        });
                    }
                    for mut mark in marks {
                        let _ = mark.wait_for(|it| *it).await;
                    }
                    first_lists.send_replace(true);
                    tokio::time::sleep(REDISCOVER).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn watch(self: Arc<Self>, resource: Resource) -> Informer {
        let kind = ApiResource {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            plural: resource.plural.to_string(),
        };
        let api = Api::all_with(self.client.clone(), &kind);
        Informer::start(api, watcher::Config::default(), move |arrival| self.take(&resource, arrival))
    }

    fn take(&self, resource: &Resource, arrival: Arrival<PartialObjectMeta<DynamicObject>>) {
        match arrival {
            Arrival::Listed(objects) => {
                let listed: BTreeSet<String> = objects.iter().filter_map(ResourceExt::uid).collect();
                for object in &objects {
                    self.wake(lock(&self.graph).apply(resource, &object.metadata));
                }
                let known = lock(&self.graph).uids_of(resource);
                for uid in known.iter().filter(|it| !listed.contains(*it)) {
                    self.wake(lock(&self.graph).remove(uid));
                }
            }
            Arrival::Applied(object) => self.wake(lock(&self.graph).apply(resource, &object.metadata)),
            Arrival::Deleted(object) => {
                if let Some(uid) = object.uid() {
                    self.remember_absent(&uid);
                    self.wake(lock(&self.graph).remove(&uid));
                }
            }
        }
    }

    fn wake(&self, uids: Vec<String>) {
        uids.into_iter().for_each(|it| self.queue.add(it));
    }

    fn remember_absent(&self, uid: &str) {
        let mut absent = lock(&self.absent);
        if absent.len() >= ABSENT_KEPT {
            absent.clear();
        }
        absent.insert(uid.to_owned());
    }

    async fn decide(&self, uid: &str) {
        let decision = {
            let absent = lock(&self.absent);
            lock(&self.graph).plan(uid, &absent)
        };
        let plan = match decision {
            Decision::Act(plan) => plan,
            Decision::Ask(owners) => return self.ask(uid, owners).await,
        };
        if plan.actions.is_empty() {
            return self.queue.forget(&uid.to_owned());
        }
        match self.executor.run(plan.actions).await.failure {
            None | Some(Failure::NamespaceLeaves) => self.queue.forget(&uid.to_owned()),
            Some(failure) => {
                tracing::debug!(uid, cause = failure.message(), "not collected yet");
                self.queue.retry(uid.to_owned());
            }
        }
    }

    /// Asks the API whether owners exist, and decides again if one does not.
    async fn ask(&self, uid: &str, owners: Vec<OwnerReference>) {
        let namespace = lock(&self.graph).namespace_of(uid);
        for owner in owners {
            match self.exists(&owner, &namespace).await {
                Ok(true) => {}
                Ok(false) => self.remember_absent(&owner.uid),
                Err(text) => tracing::debug!(uid, owner = owner.name, text, "owner not found out"),
            }
        }
        // An owner that exists arrives in the graph by its watch; until then the question stays open.
        self.queue.retry(uid.to_owned());
    }

    async fn exists(&self, owner: &OwnerReference, namespace: &str) -> Result<bool, String> {
        let known =
            |it: &&Served| it.resource.kind == owner.kind && it.resource.api_version() == owner.api_version;
        let Some(resource) = lock(&self.served).iter().find(known).map(|it| it.resource.clone()) else {
            return Err(format!("no resource serves {} {}", owner.api_version, owner.kind));
        };
        if resource.namespaced && namespace.is_empty() {
            return Err("a cluster-scoped object cannot have a namespaced owner".into());
        }
        match self.executor.get(&format!("{}/{}", resource.path(namespace), owner.name)).await {
            Ok(found) => Ok(found["metadata"]["uid"].as_str() == Some(&owner.uid)),
            Err(Failure::Stale(_)) => Ok(false),
            Err(failure) => Err(failure.message().to_owned()),
        }
    }
}
