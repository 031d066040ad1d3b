//! A local, always current copy of one kind: list, watch, resume, and list again when the server forgot too much.
//! Reads go to the copy; nothing is ever asked of the server for a look-up. It does not decode what it was not asked for:
//! selectors in the watcher's config limit the copy.
//!
//! # Use from other crates
//!
//! ```no_run
//! # async fn example(client: kube::Client) {
//! use k8s_openapi::api::core::v1::Pod;
//! use runtime::Informer;
//!
//! let mine = kube::runtime::watcher::Config::default().fields("spec.nodeName=node1");
//! let pods: Informer<Pod> = Informer::start(kube::Api::all(client), mine, |change| {
//!     if let Some(pod) = &change.new { /* wake whoever cares; do not block */ let _ = pod; }
//! });
//! pods.synced().await;
//! let all = pods.table().all();
//! # }
//! ```

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use controllers::table::{Change, Table};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// First pause before a broken watch is taken up again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: a restarted API server is followed again within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Failures in a row that are worth a warning.
const WARN_EVERY: u32 = 10;

/// Pauses that double, with a quarter of chance so that many followers do not come back at once.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        Some(pause.mul_f64(rand::random_range(0.75..1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// What an informer can follow.
pub trait Followed:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + kube::Resource<DynamicType = ()>
    + Clone
    + DeserializeOwned
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Followed for K where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>
        + kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// A running copy of one kind; dropping it ends it.
pub struct Informer<K> {
    table: Arc<Table<K>>,
    synced: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl<K: Followed> Informer<K> {
    /// Follows `api` into a table of its own. `on_change` is called for each change after the table has it, in order, from the
    /// informer's task: it must not block.
    pub fn start(
        api: kube::Api<K>,
        config: watcher::Config,
        on_change: impl Fn(&Change<K>) + Send + 'static,
    ) -> Self {
        Self::fill(Arc::new(Table::default()), api, config, on_change)
    }

    /// The same into a given table.
    pub fn fill(
        table: Arc<Table<K>>,
        api: kube::Api<K>,
        config: watcher::Config,
        on_change: impl Fn(&Change<K>) + Send + 'static,
    ) -> Self {
        let (mark, synced) = watch::channel(false);
        let task = tokio::spawn(follow(table.clone(), api, config, on_change, mark));
        Self { table, synced, _task: AbortOnDropHandle::new(task) }
    }

    /// The copy.
    pub fn table(&self) -> &Arc<Table<K>> {
        &self.table
    }

    /// Waits until the first complete list has arrived.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        // The sender lives as long as the task; an error means that the process is going down.
        let _ = synced.wait_for(|it| *it).await;
    }

    /// Becomes true when the first complete list has arrived.
    pub fn sync_mark(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }
}

async fn follow<K: Followed>(
    table: Arc<Table<K>>,
    api: kube::Api<K>,
    config: watcher::Config,
    on_change: impl Fn(&Change<K>) + Send + 'static,
    mark: watch::Sender<bool>,
) {
    let kind = K::kind(&());
    let mut events = watcher::watcher(api, config).backoff(Pauses::default()).boxed();
    let mut listed = Vec::new();
    let mut failures = 0_u32;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => {
                let changes = table.replace(std::mem::take(&mut listed));
                changes.iter().for_each(&on_change);
                mark.send_replace(true);
            }
            Ok(Event::Apply(object)) => on_change(&table.apply(object)),
            Ok(Event::Delete(object)) => on_change(&table.remove(&object)),
            Err(error) => {
                failures += 1;
                // A restart of the server is no news; a watch that never comes back (say, forbidden) is.
                if failures.is_multiple_of(WARN_EVERY) {
                    tracing::warn!(%kind, %error, failures, "cannot follow");
                }
                continue;
            }
        }
        failures = 0;
    }
}
