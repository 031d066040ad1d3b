//! Follows one kind: list, watch, resume, and list again when the server forgot too much. What arrives is handed on in order;
//! keeping a copy of it is the receiver's affair. Selectors in the watcher's config limit what is sent at all.
//!
//! # Use from other crates
//!
//! ```no_run
//! # async fn example(client: kube::Client) {
//! use k8s_openapi::api::core::v1::Pod;
//! use runtime::{Arrival, Informer};
//!
//! let mine = kube::runtime::watcher::Config::default().fields("spec.nodeName=node1");
//! let pods = Informer::start(kube::Api::<Pod>::all(client), mine, |arrival| match arrival {
//!     Arrival::Listed(pods) => println!("{} pods are all there are", pods.len()),
//!     Arrival::Applied(pod) => println!("{:?} was added or changed", pod.metadata.name),
//!     Arrival::Deleted(pod) => println!("{:?} is gone", pod.metadata.name),
//! });
//! pods.synced().await;
//! # }
//! ```

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::Pauses;

/// Failures in a row that are worth a warning.
const WARN_EVERY: u32 = 10;

/// What arrived from the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival<K> {
    /// A complete list: what it does not hold is gone.
    Listed(Vec<K>),
    /// An object that was added or changed.
    Applied(K),
    /// An object that was deleted, as the deletion event carried it.
    Deleted(K),
}

/// A running follower of one kind; dropping it ends it.
pub struct Informer {
    synced: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Informer {
    /// Follows `api`. `take` is called for each arrival, in order, from the informer's task: it must not block.
    pub fn start<K>(
        api: kube::Api<K>,
        config: watcher::Config,
        take: impl FnMut(Arrival<K>) + Send + 'static,
    ) -> Self
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (mark, synced) = watch::channel(false);
        let path = api.resource_url().to_owned();
        let events = watcher::watcher(api, config).backoff(Pauses::default()).boxed();
        let task = tokio::spawn(follow(path, events, take, mark));
        Self { synced, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits until the first complete list has arrived.
    pub async fn synced(&self) {
        // The sender lives as long as the task; an error means that the process is going down.
        let _ = self.sync_mark().wait_for(|it| *it).await;
    }

    /// Becomes true when the first complete list has arrived.
    pub fn sync_mark(&self) -> watch::Receiver<bool> {
        self.synced.clone()
    }
}

async fn follow<K>(
    path: String,
    mut events: impl Stream<Item = watcher::Result<Event<K>>> + Unpin,
    mut take: impl FnMut(Arrival<K>),
    mark: watch::Sender<bool>,
) {
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
                take(Arrival::Listed(std::mem::take(&mut listed)));
                mark.send_replace(true);
            }
            Ok(Event::Apply(object)) => take(Arrival::Applied(object)),
            Ok(Event::Delete(object)) => take(Arrival::Deleted(object)),
            Err(error) => {
                failures += 1;
                // A restart of the server is no news; a watch that never comes back (say, forbidden) is.
                if failures.is_multiple_of(WARN_EVERY) {
                    tracing::warn!(path, %error, failures, "cannot follow");
                }
                continue;
            }
        }
        failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_list_arrives_whole_or_not_at_all() {
        let events = stream::iter([
            Ok(Event::Init),
            Ok(Event::InitApply("lost")),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply("a")),
            Ok(Event::InitApply("b")),
            Ok(Event::InitDone),
            Ok(Event::Apply("c")),
            Ok(Event::Delete("a")),
        ]);
        let ((mark, synced), mut arrived) = (watch::channel(false), Vec::new());
        follow("/api/v1/pods".to_owned(), events, |it| arrived.push((*synced.borrow(), it)), mark).await;
        assert_eq!(
            arrived,
            [
                (false, Arrival::Listed(vec!["a", "b"])),
                (true, Arrival::Applied("c")),
                (true, Arrival::Deleted("a"))
            ],
            "the mark follows the first list"
        );
    }
}
