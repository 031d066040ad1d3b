//! The store as its users see it: open, read, list, watch. Writes are in `write`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::watch;

use crate::collection::{Collection, Snapshot};
use crate::config::Config;
use crate::entry::{Entry, Index};
use crate::error::Error;
use crate::interest::Interest;
use crate::lease::Leases;
use crate::ordered::Ordered;
use crate::probe::Probe;
use crate::watch::{Expired, Watch};
use crate::{compact, follow};

/// How long a read waits for the log to pass a revision that etcd already has.
const CATCH_UP: Duration = Duration::from_secs(3);

/// The revision up to which all collections have been brought.
#[derive(Clone)]
pub(crate) struct Published {
    sender: Arc<watch::Sender<i64>>,
}

impl Default for Published {
    fn default() -> Self {
        Self { sender: Arc::new(watch::Sender::new(0)) }
    }
}

impl Published {
    pub(crate) fn get(&self) -> i64 {
        *self.sender.borrow()
    }

    pub(crate) fn set(&self, revision: i64) {
        self.sender.send_replace(revision);
    }

    async fn reaches(&self, revision: i64) {
        // Fails only without a sender, and `self` is one.
        let _ = self.sender.subscribe().wait_for(|it| *it >= revision).await;
    }
}

/// What `follow` keeps up to date.
pub(crate) struct Followed<M> {
    pub(crate) collections: Vec<Arc<Collection<M>>>,
    pub(crate) published: Published,
    /// The etcd watch stands.
    pub(crate) connected: watch::Sender<bool>,
    by_prefix: BTreeMap<String, usize>,
}

impl<M: Index> Followed<M> {
    fn new(prefixes: &[String]) -> Self {
        let collections = prefixes.iter().map(|it| Arc::new(Collection::new(it.clone()))).collect();
        let by_prefix = prefixes.iter().enumerate().map(|(at, it)| (it.clone(), at)).collect();
        Self { collections, published: Published::default(), connected: watch::Sender::new(false), by_prefix }
    }

    /// The collection whose prefix, the longest if several do, starts `key`.
    pub(crate) fn collection_of(&self, key: &str) -> Option<usize> {
        key.rmatch_indices('/').find_map(|(at, _)| self.by_prefix.get(&key[..=at]).copied())
    }
}

struct Inner<M> {
    config: Config,
    client: Client,
    followed: Arc<Followed<M>>,
    probe: Probe,
    leases: Leases,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl<M> Drop for Inner<M> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The entries of a directory at one revision.
pub struct Listing<M> {
    /// The revision that the listing shows.
    pub revision: i64,
    /// The map to read from, by [`Ordered::range`].
    pub entries: Ordered<M>,
}

/// A copy of etcd's objects, and the way to change them. Cheap to clone.
pub struct Store<M: Index> {
    inner: Arc<Inner<M>>,
}

impl<M: Index> Clone for Store<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Index> Store<M> {
    /// Connects and starts to follow etcd; returns at once. Until [`Self::ready`], reads fail with [`Error::Unavailable`].
    ///
    /// # Errors
    /// [`Error::Refused`] for endpoints that are no URLs.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let client = follow::connect(&config).await?;
        let followed = Arc::new(Followed::new(&config.prefixes));
        let probe = Probe::start(client.clone(), config.request_timeout, config.observer.clone());
        let mut tasks =
            vec![tokio::spawn(follow::keep(client.clone(), config.clone(), followed.clone())).abort_handle()];
        if let Some(interval) = config.compaction_interval {
            tasks.push(tokio::spawn(compact::run(client.clone(), interval)).abort_handle());
        }
        Ok(Self {
            inner: Arc::new(Inner { config, client, followed, probe, leases: Leases::default(), tasks }),
        })
    }

    /// Waits until the copy has been loaded.
    pub async fn ready(&self) {
        self.inner.followed.published.reaches(1).await;
    }

    /// The copy has been loaded and etcd is being followed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.followed.published.get() > 0 && *self.inner.followed.connected.borrow()
    }

    /// The revision that the copy has reached.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.inner.followed.published.get()
    }

    /// The entry of `key` as the copy has it: not older than the copy, maybe older than etcd.
    #[must_use]
    pub fn cached(&self, key: &str) -> Option<Arc<Entry<M>>> {
        let at = self.inner.followed.collection_of(key)?;
        self.inner.followed.collections[at].get(key)
    }

    /// The current map of a collection as the copy has it.
    ///
    /// # Errors
    /// [`Error::UnknownCollection`]; [`Error::Unavailable`] before the first load.
    pub fn current(&self, prefix: &str) -> Result<Listing<M>, Error> {
        let published = self.loaded()?;
        let Snapshot { revision, entries } = self.collection(prefix)?.current(published);
        Ok(Listing { revision, entries })
    }

    /// The map of a collection at exactly `revision`, waiting a little for a revision not reached yet.
    ///
    /// # Errors
    /// [`Error::Expired`], [`Error::Future`], and those of [`Self::current`].
    pub async fn exactly(&self, prefix: &str, revision: i64) -> Result<Listing<M>, Error> {
        self.reach(revision).await?;
        Ok(Listing { revision, entries: self.collection(prefix)?.at(revision)? })
    }

    /// Keeps the map of a listing for a reader that will ask for its revision again.
    pub fn pin(&self, prefix: &str, listing: &Listing<M>) {
        if let Ok(collection) = self.collection(prefix) {
            collection.pin(listing.revision, listing.entries.clone());
        }
    }

    /// Brings the copy to where etcd is now: whatever was acknowledged before the call is seen after it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if etcd does not answer, [`Error::Future`] if the log does not catch up in time.
    pub async fn sync(&self) -> Result<(), Error> {
        self.loaded()?;
        let head = self.inner.probe.head().await?;
        self.reach(head).await
    }

    /// Waits a bounded time until the copy has reached `revision`.
    ///
    /// # Errors
    /// [`Error::Future`] when the time is over.
    pub async fn reach(&self, revision: i64) -> Result<(), Error> {
        let published = &self.inner.followed.published;
        if self.loaded()? >= revision {
            return Ok(());
        }
        tokio::time::timeout(CATCH_UP, published.reaches(revision))
            .await
            .map_err(|_| Error::Future { wanted: revision, current: published.get() })
    }

    /// Events of a collection after revision `after`.
    ///
    /// # Errors
    /// [`Expired`] if events after `after` are no longer kept, wrapped as [`Error::Expired`]; [`Error::UnknownCollection`].
    pub fn watch(&self, prefix: &str, interest: Interest, after: i64) -> Result<Watch<M>, Error> {
        let collection = self.collection(prefix)?;
        Watch::new(collection.clone(), self.inner.followed.published.clone(), interest, after)
            .map_err(|Expired { oldest }| Error::Expired { wanted: after, oldest })
    }

    /// The collections: prefix, objects, watchers.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.inner.followed.collections.iter().map(|it| (it.prefix.as_str(), it.len(), it.interests.count()))
    }

    pub(crate) fn client(&self) -> Client {
        self.inner.client.clone()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) async fn lease(&self, ttl: Duration) -> Result<i64, Error> {
        let granted = self.inner.leases.get(&self.inner.client, ttl);
        match tokio::time::timeout(self.inner.config.request_timeout, granted).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unavailable("lease grant timed out".to_owned())),
        }
    }

    pub(crate) async fn forget_leases(&self) {
        self.inner.leases.forget().await;
    }

    fn loaded(&self) -> Result<i64, Error> {
        Some(self.inner.followed.published.get())
            .filter(|it| *it > 0)
            .ok_or_else(|| Error::Unavailable("the objects have not been loaded yet".to_owned()))
    }

    fn collection(&self, prefix: &str) -> Result<&Arc<Collection<M>>, Error> {
        let followed = &self.inner.followed;
        let at = followed.by_prefix.get(prefix).ok_or_else(|| Error::UnknownCollection(prefix.to_owned()))?;
        Ok(&followed.collections[*at])
    }
}
