//! Loads the key space and follows it: one etcd watch over all keys, resumed where it broke.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, EventType, GetOptions, KvClient, WatchOptions, WatchResponse};

use crate::config::Config;
use crate::entry::{Entry, Index};
use crate::error::Error;
use crate::ledger::Ledger;
use crate::ordered::Ordered;
use crate::store::Followed;

/// The whole key space, as the watch and the load name it.
const ALL: &[u8] = b"\0";
/// Keys a page of the load.
const PAGE: i64 = 1_000;
/// A page or a batch of events may hold 1,000 objects of up to 1.5 MiB; tonic's own limit is 4 MiB.
const MESSAGE_BYTES: usize = 2 << 30;
/// How far back a fresh copy starts, so that watchers from before a restart find their events.
const HISTORY: i64 = 1_000;
const BACK_OFF: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Why following stopped.
enum Stop {
    /// The connection broke; resume after the last revision.
    Broken(String),
    /// What comes next was compacted away, or etcd's history is another one: load again.
    Lost(String),
}

pub(crate) async fn connect(config: &Config) -> Result<Client, Error> {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(1))
        .with_keep_alive(Duration::from_secs(5), Duration::from_secs(3))
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    Client::connect(&config.endpoints, Some(options)).await.map_err(|it| Error::from_etcd(&it))
}

/// Keeps `followed` up to date, for ever: a panic, say of the caller's index, costs a new load, not the process.
pub(crate) async fn keep<M: Index>(client: Client, config: Config, followed: Arc<Followed<M>>) {
    loop {
        // A set of one: it ends with this task, as a bare spawn would not.
        let mut run_of = tokio::task::JoinSet::new();
        run_of.spawn(run(client.clone(), config.clone(), followed.clone()));
        if let Some(Err(error)) = run_of.join_next().await {
            tracing::error!(%error, "following etcd failed, starting again");
        }
        followed.connected.send_replace(false);
        tokio::time::sleep(BACK_OFF[BACK_OFF.len() - 1]).await;
    }
}

/// Loads, then follows. Starts with a load, whatever the copy held before.
async fn run<M: Index>(client: Client, config: Config, followed: Arc<Followed<M>>) {
    let mut follower = Follower { client, config, followed, ledger: Ledger::default() };
    let mut failures = 0_usize;
    let mut loaded = false;
    loop {
        let before = follower.followed.published.get();
        let stop = if loaded { Ok(()) } else { follower.load().await.map_err(Stop::Broken) };
        loaded |= stop.is_ok();
        let stop = match stop {
            Ok(()) => follower.follow().await,
            Err(stop) => stop,
        };
        follower.followed.connected.send_replace(false);
        failures = if follower.followed.published.get() > before { 0 } else { failures + 1 };
        match stop {
            Stop::Broken(error) => tracing::warn!(error, "following etcd was interrupted"),
            Stop::Lost(error) => {
                tracing::warn!(error, "the events since the last revision are lost, loading again");
                loaded = false;
            }
        }
        tokio::time::sleep(BACK_OFF[failures.min(BACK_OFF.len() - 1)]).await;
    }
}

struct Follower<M> {
    client: Client,
    config: Config,
    followed: Arc<Followed<M>>,
    ledger: Ledger,
}

impl<M: Index> Follower<M> {
    /// Reads all keys at one revision and starts the collections from it: the first time, if possible, a little before the head.
    async fn load(&mut self) -> Result<(), String> {
        let head = self.head().await?;
        // Readers of a copy that is being replaced must not see it step back.
        let first = self.followed.published.get() == 0;
        let past = if first { (head - HISTORY).max(1) } else { head };
        let (revision, entries) = match self.read_all(past).await {
            Ok(entries) => (past, entries),
            // That far back is compacted away.
            Err(_) => (head, self.read_all(head).await?),
        };
        self.ledger.clear();
        let mut count = 0;
        for (collection, entries) in self.followed.collections.iter().zip(entries) {
            count += entries.len();
            collection.replace(revision, entries);
        }
        tracing::info!(revision, head, objects = count, "loaded");
        self.catch_up(revision, head).await
    }

    /// Publishes only when the head of the load has been reached: readers must not see the past.
    async fn catch_up(&mut self, revision: i64, head: i64) -> Result<(), String> {
        let mut stream = self.open_watch(revision + 1).await.map_err(|it| it.to_string())?;
        let mut reached = revision;
        while reached < head {
            let response = stream.message().await.map_err(|it| it.to_string())?.ok_or("the watch ended")?;
            reached = self.apply(&response, reached).map_err(|(Stop::Broken(it) | Stop::Lost(it))| it)?;
        }
        self.followed.published.set(reached);
        Ok(())
    }

    async fn head(&mut self) -> Result<i64, String> {
        let get = self.client.get("beeline/head", None);
        let response =
            tokio::time::timeout(self.config.request_timeout, get).await.map_err(|_| "request timed out")?;
        Ok(response.map_err(|it| it.to_string())?.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    async fn read_all(&mut self, revision: i64) -> Result<Vec<Ordered<M>>, String> {
        let mut kv: KvClient = self.client.kv_client().max_decoding_message_size(MESSAGE_BYTES);
        let mut collections: Vec<Ordered<M>> =
            self.followed.collections.iter().map(|_| Ordered::default()).collect();
        let mut from = ALL.to_vec();
        loop {
            let options = GetOptions::new().with_range(ALL).with_limit(PAGE).with_revision(revision);
            let mut page = kv.get(from.clone(), Some(options)).await.map_err(|it| it.to_string())?;
            let more = page.more();
            for pair in page.take_kvs() {
                let Ok(key) = pair.key_str() else { continue };
                if let Some(at) = self.followed.collection_of(key) {
                    let entry = Entry::new(key, pair.value(), pair.create_revision(), pair.mod_revision());
                    collections[at].insert(Arc::new(entry));
                }
                from = [pair.key(), b"\0"].concat();
            }
            if !more {
                return Ok(collections);
            }
        }
    }

    async fn open_watch(&mut self, from: i64) -> Result<etcd_client::WatchStream, etcd_client::Error> {
        let options = WatchOptions::new().with_range(ALL).with_start_revision(from);
        self.client.watch_client().max_decoding_message_size(MESSAGE_BYTES).watch(ALL, Some(options)).await
    }

    /// Applies events until something breaks.
    async fn follow(&mut self) -> Stop {
        let mut reached = self.followed.published.get();
        // A member restored from a backup may be behind what has been shown to clients: that history is another one.
        match self.head().await {
            Ok(head) if head < reached => {
                return Stop::Lost(format!("etcd is at revision {head}, behind {reached}"));
            }
            Ok(_) => {}
            Err(error) => return Stop::Broken(error),
        }
        let mut stream = match self.open_watch(reached + 1).await {
            Ok(stream) => stream,
            Err(error) => return Stop::Broken(error.to_string()),
        };
        self.followed.connected.send_replace(true);
        let mut trim = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(response)) => match self.apply(&response, reached) {
                        Ok(revision) => {
                            reached = revision;
                            self.followed.published.set(reached);
                        }
                        Err(stop) => return stop,
                    },
                    Ok(None) => return Stop::Broken("the watch ended".to_owned()),
                    Err(error) => return Stop::Broken(error.to_string()),
                },
                _ = trim.tick() => self.trim(),
            }
        }
    }

    /// Applies one response's events after `reached`; gives the revision reached.
    fn apply(&mut self, response: &WatchResponse, reached: i64) -> Result<i64, Stop> {
        if response.compact_revision() > 0 {
            return Err(Stop::Lost(format!("compacted up to revision {}", response.compact_revision())));
        }
        if response.canceled() {
            return Err(Stop::Broken(format!("the watch was cancelled: {}", response.cancel_reason())));
        }
        let now = Instant::now();
        let mut last = reached;
        for event in response.events() {
            let Some(pair) = event.kv().filter(|it| it.mod_revision() > reached) else { continue };
            last = pair.mod_revision();
            let Ok(key) = pair.key_str() else { continue };
            let Some(at) = self.followed.collection_of(key) else { continue };
            let new = (event.event_type() == EventType::Put)
                .then(|| Arc::new(Entry::new(key, pair.value(), pair.create_revision(), last)));
            if let Some(weight) = self.followed.collections[at].apply(last, key, new) {
                self.ledger.add(last, at, weight, now);
            }
        }
        Ok(last)
    }

    fn trim(&mut self) {
        for (at, revision) in self.ledger.trim(Instant::now(), self.config.log_age, self.config.log_bytes) {
            self.followed.collections[at].forget(revision);
        }
    }
}
