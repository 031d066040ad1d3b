//! The entries below one prefix: the current map, the recent events, and maps of earlier revisions made from both.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::entry::{Entry, Index};
use crate::error::Error;
use crate::interest::Interests;
use crate::ordered::Ordered;

/// Earlier maps kept for readers that page; more readers than that rebuild theirs from the log.
const PINNED_MAX: usize = 16;

/// One change of one object. `new` is absent after a deletion, `old` before a creation.
pub struct Event<M> {
    /// Revision of the write.
    pub revision: i64,
    /// The object before.
    pub old: Option<Arc<Entry<M>>>,
    /// The object after.
    pub new: Option<Arc<Entry<M>>>,
}

impl<M> Event<M> {
    /// Key of the object that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        self.new.as_ref().or(self.old.as_ref()).map_or("", |it| &it.key)
    }

    /// Bytes that the log keeps alive for this event alone: the superseded body and the record.
    pub(crate) fn weight(&self) -> usize {
        const RECORD: usize = 256;
        RECORD + self.old.as_ref().map_or(0, |it| it.body.len())
    }
}

/// A map and the revision that it shows.
pub struct Snapshot<M> {
    /// Every event of the collection up to here is in `entries`, none after.
    pub revision: i64,
    /// The entries.
    pub entries: Ordered<M>,
}

/// The entries below one prefix.
pub(crate) struct Collection<M> {
    pub(crate) prefix: String,
    pub(crate) interests: Interests,
    state: RwLock<State<M>>,
}

struct State<M> {
    current: Ordered<M>,
    /// Revision of the last event, or of the load.
    revision: i64,
    log: VecDeque<Arc<Event<M>>>,
    /// Events up to here are no longer in the log.
    floor: i64,
    /// Counts reloads: a cursor of an earlier epoch has missed events.
    epoch: u64,
    pinned: VecDeque<(i64, Ordered<M>)>,
}

/// A stretch of the log.
pub(crate) struct Pull<M> {
    pub(crate) events: Vec<Arc<Event<M>>>,
    /// More events follow the last one given.
    pub(crate) more: bool,
}

impl<M: Index> Collection<M> {
    pub(crate) fn new(prefix: String) -> Self {
        let state = State {
            current: Ordered::default(),
            revision: 0,
            log: VecDeque::new(),
            floor: 0,
            epoch: 0,
            pinned: VecDeque::new(),
        };
        Self { prefix, interests: Interests::default(), state: RwLock::new(state) }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry<M>>> {
        self.read().current.get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().current.len()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.read().epoch
    }

    pub(crate) fn floor(&self) -> i64 {
        self.read().floor
    }

    /// The current map. `published` must have been read before the call: the map shows at least that revision.
    pub(crate) fn current(&self, published: i64) -> Snapshot<M> {
        let state = self.read();
        Snapshot { revision: published.max(state.revision), entries: state.current.clone() }
    }

    /// The map as it was at `revision`, which must have been published.
    pub(crate) fn at(&self, revision: i64) -> Result<Ordered<M>, Error> {
        if let Some(there) = self.read().at_once(revision) {
            return Ok(there);
        }
        let mut state = self.write();
        let entries = state.undo_to(revision)?;
        state.pinned.push_back((revision, entries.clone()));
        if state.pinned.len() > PINNED_MAX {
            state.pinned.pop_front();
        }
        Ok(entries)
    }

    /// Keeps the map of `revision` for a reader that will come back for its next page.
    pub(crate) fn pin(&self, revision: i64, entries: Ordered<M>) {
        let mut state = self.write();
        if state.pinned.iter().all(|(it, _)| *it != revision) {
            state.pinned.push_back((revision, entries));
            if state.pinned.len() > PINNED_MAX {
                state.pinned.pop_front();
            }
        }
    }

    /// Applies one change and wakes whom it concerns. The deleted or replaced version is the one that the map holds.
    pub(crate) fn apply(&self, revision: i64, key: &str, new: Option<Arc<Entry<M>>>) -> Option<usize> {
        let mut state = self.write();
        let old = match &new {
            Some(entry) => state.current.insert(entry.clone()),
            None => state.current.remove(key),
        };
        if old.is_none() && new.is_none() {
            return None;
        }
        let event = Arc::new(Event { revision, old, new });
        state.revision = revision;
        state.log.push_back(event.clone());
        drop(state);
        self.interests.ring(revision, [event.old.as_deref(), event.new.as_deref()]);
        Some(event.weight())
    }

    /// Replaces everything by what was loaded at `revision`; all cursors are lost.
    pub(crate) fn replace(&self, revision: i64, entries: Ordered<M>) {
        let mut state = self.write();
        state.current = entries;
        state.revision = revision;
        state.floor = revision;
        state.epoch += 1;
        state.log = VecDeque::new();
        state.pinned = VecDeque::new();
        drop(state);
        self.interests.ring_all(revision);
    }

    /// Forgets the events up to `revision`, and earlier maps that could no longer be rebuilt.
    pub(crate) fn forget(&self, revision: i64) {
        let mut state = self.write();
        while state.log.front().is_some_and(|it| it.revision <= revision) {
            state.log.pop_front();
        }
        state.floor = state.floor.max(revision);
        let floor = state.floor;
        state.pinned.retain(|(it, _)| *it >= floor);
    }

    /// Up to `limit` events after `cursor`, or the floor that `cursor` fell below.
    pub(crate) fn pull(&self, epoch: u64, cursor: i64, limit: usize) -> Result<Pull<M>, i64> {
        let state = self.read();
        if state.epoch != epoch || cursor < state.floor {
            return Err(state.floor);
        }
        let start = state.log.partition_point(|it| it.revision <= cursor);
        let events: Vec<_> = state.log.range(start..).take(limit).cloned().collect();
        let more = start + events.len() < state.log.len();
        Ok(Pull { events, more })
    }

    fn read(&self) -> RwLockReadGuard<'_, State<M>> {
        // A writer that panicked left whole entries behind: each step below is one assignment.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<M>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Index> State<M> {
    fn at_once(&self, revision: i64) -> Option<Ordered<M>> {
        if revision >= self.revision {
            return Some(self.current.clone());
        }
        self.pinned.iter().find(|(it, _)| *it == revision).map(|(_, entries)| entries.clone())
    }

    /// The nearest later map with the events since `revision` taken back.
    fn undo_to(&self, revision: i64) -> Result<Ordered<M>, Error> {
        if let Some(there) = self.at_once(revision) {
            return Ok(there);
        }
        if revision < self.floor {
            return Err(Error::Expired { wanted: revision, oldest: self.floor });
        }
        let later = self.pinned.iter().filter(|(it, _)| *it > revision).min_by_key(|(it, _)| *it);
        let (from, mut entries) = later
            .map_or_else(|| (self.revision, self.current.clone()), |(it, entries)| (*it, entries.clone()));
        let start = self.log.partition_point(|it| it.revision <= revision);
        let end = self.log.partition_point(|it| it.revision <= from);
        for event in self.log.range(start..end).rev() {
            match &event.old {
                Some(old) => entries.insert(old.clone()),
                None => entries.remove(event.key()),
            };
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filled() -> Collection<()> {
        let collection = Collection::new("/p/".to_owned());
        collection.replace(10, Ordered::default());
        // 11: create a, 12: create b, 13: change a, 14: delete b, 15: create b
        for (revision, key, gone) in [
            (11, "/p/a", false),
            (12, "/p/b", false),
            (13, "/p/a", false),
            (14, "/p/b", true),
            (15, "/p/b", false),
        ] {
            let entry = (!gone).then(|| Arc::new(Entry::new(key, b"{\"metadata\":{}}", 11, revision)));
            collection.apply(revision, key, entry);
        }
        collection
    }

    #[track_caller]
    fn check(collection: &Collection<()>, revision: i64, expected: &[(&str, i64)]) {
        let entries = collection.at(revision).unwrap();
        let seen: Vec<_> = entries.range("/p/", "").map(|it| (&*it.key, it.revision)).collect();
        assert_eq!(seen, expected, "at {revision}");
    }

    #[test]
    fn every_revision_of_the_log_can_be_read_again() {
        let collection = filled();
        for _ in 0..2 {
            check(&collection, 15, &[("/p/a", 13), ("/p/b", 15)]);
            check(&collection, 14, &[("/p/a", 13)]);
            check(&collection, 12, &[("/p/a", 11), ("/p/b", 12)]);
            check(&collection, 13, &[("/p/a", 13), ("/p/b", 12)]);
            check(&collection, 10, &[]);
        }
    }

    #[test]
    fn revisions_below_the_floor_are_expired() {
        let collection = filled();
        collection.forget(12);
        assert!(matches!(collection.at(11), Err(Error::Expired { wanted: 11, oldest: 12 })));
        check(&collection, 12, &[("/p/a", 11), ("/p/b", 12)]);
        assert!(collection.pull(1, 11, 10).is_err());
        let pull = collection.pull(1, 12, 2).unwrap();
        assert_eq!(pull.events.iter().map(|it| it.revision).collect::<Vec<_>>(), [13, 14]);
        assert!(pull.more);
        assert!(collection.pull(0, 12, 2).is_err(), "a cursor of an earlier epoch is lost");
    }
}
