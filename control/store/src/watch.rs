//! A watcher: a cursor on a collection's log and the bell that tells it to look.

use std::sync::Arc;

use crate::collection::{Collection, Event};
use crate::entry::Index;
use crate::interest::{Bell, Interest};
use crate::store::Published;

/// Events handed out at once; a slow reader costs the log's retention, never a queue of its own.
const BATCH: usize = 256;

/// The cursor fell off the log: the reader was too slow, or the log was replaced. Start again from a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events up to revision {oldest} are no longer kept")]
pub struct Expired {
    /// Events after this revision are still there.
    pub oldest: i64,
}

/// A cursor on the events of one collection.
pub struct Watch<M: Index> {
    collection: Arc<Collection<M>>,
    published: Published,
    interest: Interest,
    bell: Arc<Bell>,
    cursor: i64,
    epoch: u64,
}

impl<M: Index> Watch<M> {
    /// A watcher of what happens after revision `after`.
    pub(crate) fn new(
        collection: Arc<Collection<M>>,
        published: Published,
        interest: Interest,
        after: i64,
    ) -> Result<Self, Expired> {
        // Registered before the log is looked at, so that no event falls between.
        let bell = Arc::new(Bell::rung_at(after + 1));
        collection.interests.add(interest.clone(), bell.clone());
        let epoch = collection.epoch();
        let watch = Self { collection, published, interest, bell, cursor: after, epoch };
        let oldest = watch.collection.floor();
        if after < oldest { Err(Expired { oldest }) } else { Ok(watch) }
    }

    /// The next events, in order, at least one; some may not concern the interest. Waits until there are any.
    ///
    /// # Errors
    /// [`Expired`] when events that concern the interest were dropped before they were read.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event<M>>>, Expired> {
        loop {
            let Some(first) = self.bell.take() else {
                self.bell.heard().await;
                continue;
            };
            // Events before the first that rang the bell do not concern this watcher: skip them even if they were dropped.
            let from = self.cursor.max(first - 1);
            let pull = self.collection.pull(self.epoch, from, BATCH).map_err(|oldest| Expired { oldest })?;
            if let Some(last) = pull.events.last() {
                self.cursor = last.revision;
                if pull.more {
                    self.bell.ring(last.revision + 1);
                }
                return Ok(pull.events);
            }
        }
    }

    /// The revision up to which every event that concerns the interest has been handed out: what a bookmark may promise.
    #[must_use]
    pub fn position(&self) -> i64 {
        // In this order: what is published before the bell is found silent has been handed out or does not concern us.
        let published = self.published.get();
        if self.bell.is_silent() { published.max(self.cursor) } else { self.cursor }
    }
}

impl<M: Index> Drop for Watch<M> {
    fn drop(&mut self) {
        self.collection.interests.remove(&self.interest, &self.bell);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::Entry;
    use crate::ordered::Ordered;

    fn touch(collection: &Collection<()>, published: &Published, revision: i64, key: &str) {
        collection.apply(revision, key, Some(Arc::new(Entry::new(key, b"{}", revision, revision))));
        published.set(revision);
    }

    fn revisions(events: &[Arc<Event<()>>]) -> Vec<i64> {
        events.iter().map(|it| it.revision).collect()
    }

    #[tokio::test]
    async fn a_watcher_of_one_directory_sleeps_through_the_others_and_survives_their_trimming() {
        let (collection, published) =
            (Arc::new(Collection::<()>::new("/p/".to_owned())), Published::default());
        collection.replace(1, Ordered::default());
        let mut watch =
            Watch::new(collection.clone(), published.clone(), Interest::Directory("/p/a/".to_owned()), 1)
                .unwrap();
        touch(&collection, &published, 2, "/p/a/x");
        assert_eq!(revisions(&watch.next().await.unwrap()), [2]);
        for revision in 3..10 {
            touch(&collection, &published, revision, "/p/b/x");
        }
        assert_eq!(watch.position(), 9, "nothing of a/ is outstanding");
        collection.forget(8);
        touch(&collection, &published, 10, "/p/a/y");
        assert_eq!(watch.position(), 2);
        assert_eq!(revisions(&watch.next().await.unwrap()), [10]);
    }

    #[tokio::test]
    async fn a_slow_watcher_is_expired_not_skipped() {
        let (collection, published) =
            (Arc::new(Collection::<()>::new("/p/".to_owned())), Published::default());
        collection.replace(1, Ordered::default());
        let mut watch = Watch::new(collection.clone(), published.clone(), Interest::All, 1).unwrap();
        touch(&collection, &published, 2, "/p/a/x");
        touch(&collection, &published, 3, "/p/a/x");
        collection.forget(2);
        assert_eq!(watch.next().await.err().unwrap(), Expired { oldest: 2 });
        assert!(Watch::new(collection.clone(), published, Interest::All, 1).is_err());
    }
}
