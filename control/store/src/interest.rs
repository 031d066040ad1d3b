//! Which watchers an event wakes: a watcher names what it is interested in, an event wakes only those it concerns.
//!
//! With 5,000 kubelets that each watch their own pods, a pod's write wakes one of them, not all. An interest is a hint that
//! must cover what the watcher selects; the watcher filters exactly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::entry::{Entry, Index};

/// What a watcher of a collection wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Every event.
    All,
    /// Keys directly below a directory, given with its closing `/`: a namespace.
    Directory(String),
    /// One key.
    Key(String),
    /// Objects whose index has this value, before or after the event.
    Field(String, String),
}

/// The bell of one watcher: remembers the first revision that rang it.
#[derive(Debug)]
pub(crate) struct Bell {
    first: AtomicI64,
    notify: Notify,
}

/// No event waits.
const SILENT: i64 = i64::MAX;

impl Bell {
    /// A bell that has already rung for `revision`.
    pub(crate) fn rung_at(revision: i64) -> Self {
        Self { first: AtomicI64::new(revision), notify: Notify::new() }
    }

    pub(crate) fn ring(&self, revision: i64) {
        self.first.fetch_min(revision, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// The first revision that rang since the last call.
    pub(crate) fn take(&self) -> Option<i64> {
        Some(self.first.swap(SILENT, Ordering::AcqRel)).filter(|it| *it != SILENT)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.first.load(Ordering::Acquire) == SILENT
    }

    pub(crate) async fn heard(&self) {
        self.notify.notified().await;
    }
}

/// The watchers of one collection by what they want to hear of.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    bells: Mutex<HashMap<Interest, Vec<Arc<Bell>>>>,
}

impl Interests {
    pub(crate) fn add(&self, interest: Interest, bell: Arc<Bell>) {
        self.lock().entry(interest).or_default().push(bell);
    }

    pub(crate) fn remove(&self, interest: &Interest, bell: &Arc<Bell>) {
        let mut bells = self.lock();
        if let Some(there) = bells.get_mut(interest) {
            there.retain(|it| !Arc::ptr_eq(it, bell));
            if there.is_empty() {
                bells.remove(interest);
            }
        }
    }

    /// Wakes whom an event concerns: by key, and by the fields of the object before and after it.
    pub(crate) fn ring<M: Index>(&self, revision: i64, versions: [Option<&Entry<M>>; 2]) {
        let bells = self.lock();
        if bells.is_empty() {
            return;
        }
        let ring = |interest: &Interest| {
            for bell in bells.get(interest).into_iter().flatten() {
                bell.ring(revision);
            }
        };
        ring(&Interest::All);
        let Some(key) = versions.into_iter().flatten().next().map(|it| &*it.key) else { return };
        ring(&Interest::Key(key.to_owned()));
        if let Some(end) = key.rfind('/') {
            ring(&Interest::Directory(key[..=end].to_owned()));
        }
        for entry in versions.into_iter().flatten() {
            entry.meta.fields(&mut |field, value| ring(&Interest::Field(field.to_owned(), value.to_owned())));
        }
    }

    /// Wakes everybody: the log was replaced.
    pub(crate) fn ring_all(&self, revision: i64) {
        for bell in self.lock().values().flatten() {
            bell.ring(revision);
        }
    }

    /// Watchers registered now.
    pub(crate) fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Interest, Vec<Arc<Bell>>>> {
        // Nothing panics while holding the lock; the map is whole even if it did.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
