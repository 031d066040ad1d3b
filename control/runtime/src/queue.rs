//! The work queue of one controller: each key at most once, never worked on twice at a time, later on request, and later
//! still after failures (client-go's workqueue, with the same promises). The state is pure, time is an argument;
//! [`Queue::next`] is the thin waiting part.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

/// First delay after a failure (client-go's default).
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after failures. Upstream goes to 1000 s; a cluster that healed should not wait so long.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K> {
    /// Work on this key, then call [`State::done`].
    Work(K),
    /// Nothing until then.
    Sleep(Instant),
    /// Nothing until something is added.
    Idle,
}

/// The queue without the waiting.
#[derive(Debug)]
pub struct State<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    busy: HashSet<K>,
    /// Keys added while busy: they come again when done.
    again: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// Wants `key` worked on now, or again if it is being worked on.
    pub fn add(&mut self, key: K) {
        if self.busy.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Wants `key` worked on at `at`; the earliest wish counts.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some(known) = self.due.get(&key).copied() {
            if known <= at {
                return;
            }
            self.later.remove(&(known, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// What to do at `now`.
    pub fn pop(&mut self, now: Instant) -> Next<K> {
        while let Some((at, key)) = self.later.first().cloned()
            && at <= now
        {
            self.later.pop_first();
            self.due.remove(&key);
            self.add(key);
        }
        match (self.ready.pop_front(), self.later.first()) {
            (Some(key), _) => {
                self.queued.remove(&key);
                self.busy.insert(key.clone());
                Next::Work(key)
            }
            (None, Some((at, _))) => Next::Sleep(*at),
            (None, None) => Next::Idle,
        }
    }

    /// The work on `key` has ended.
    pub fn done(&mut self, key: &K) {
        self.busy.remove(key);
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }

    /// Wants `key` again after a delay that doubles with each failure in a row.
    pub fn retry(&mut self, key: K, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay =
            FIRST_DELAY.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(LONGEST_DELAY);
        *failures = failures.saturating_add(1).min(31);
        self.add_at(key, now + delay);
    }

    /// Ends a row of failures.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }
}

/// A queue that can be shared and waited for.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn with<T>(&self, change: impl FnOnce(&mut State<K>) -> T) -> T {
        let mut state: MutexGuard<'_, State<K>> = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        drop(state);
        self.changed.notify_one();
        result
    }

    /// See [`State::add`].
    pub fn add(&self, key: K) {
        self.with(|it| it.add(key));
    }

    /// Wants `key` worked on after `delay`.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.with(|it| it.add_at(key, Instant::now() + delay));
    }

    /// See [`State::done`].
    pub fn done(&self, key: &K) {
        self.with(|it| it.done(key));
    }

    /// See [`State::retry`].
    pub fn retry(&self, key: K) {
        self.with(|it| it.retry(key, Instant::now()));
    }

    /// See [`State::forget`].
    pub fn forget(&self, key: &K) {
        self.with(|it| it.forget(key));
    }

    /// Waits for work. One task may wait at a time.
    pub async fn next(&self) -> K {
        loop {
            let next = self.state.lock().unwrap_or_else(PoisonError::into_inner).pop(Instant::now());
            match next {
                Next::Work(key) => return key,
                Next::Idle => self.changed.notified().await,
                Next::Sleep(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.changed.notified()).await;
                }
            }
        }
    }
}

impl<K: Clone + Eq + Hash + Ord + Send + 'static> Queue<K> {
    /// Works on keys, at most `width` at a time. Dropping the future ends the work that is under way; it ends by itself only
    /// when a job panics, and says how.
    pub async fn serve<F>(&self, width: usize, job: impl Fn(K) -> F) -> JoinError
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut jobs: JoinSet<K> = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = jobs.join_next() => match ended {
                    Ok(key) => self.done(&key),
                    Err(panic) => return panic,
                },
                key = self.next(), if jobs.len() < width => {
                    let work = job(key.clone());
                    jobs.spawn(async move {
                        work.await;
                        key
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_key_is_queued_once_and_comes_again_when_it_changed_during_work() {
        let (mut queue, now) = (State::default(), Instant::now());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(now), Next::Work("a"));
        queue.add("a");
        assert_eq!(queue.pop(now), Next::Idle, "a key is not worked on twice at a time");
        queue.done(&"a");
        assert_eq!(queue.pop(now), Next::Work("a"));
        queue.done(&"a");
        assert_eq!(queue.pop(now), Next::Idle);
    }

    #[test]
    fn the_earliest_of_several_delays_counts() {
        let (mut queue, now) = (State::default(), Instant::now());
        queue.add_at("a", now + millis(50));
        queue.add_at("a", now + millis(10));
        queue.add_at("a", now + millis(90));
        assert_eq!(queue.pop(now), Next::Sleep(now + millis(10)));
        assert_eq!(queue.pop(now + millis(10)), Next::Work("a"));
        queue.done(&"a");
        assert_eq!(queue.pop(now + millis(99)), Next::Idle);
    }

    #[test]
    fn failures_double_the_delay_until_forgotten() {
        let (mut queue, mut now) = (State::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..16 {
            queue.retry("a", now);
            let Next::Sleep(at) = queue.pop(now) else { panic!("a retry waits") };
            delays.push((at - now).as_millis());
            now = at;
            assert_eq!(queue.pop(now), Next::Work("a"));
            queue.done(&"a");
        }
        assert_eq!(delays[..4], [5, 10, 20, 40]);
        assert_eq!(delays[13..], [30_000, 30_000, 30_000]);
        queue.forget(&"a");
        queue.retry("a", now);
        assert_eq!(queue.pop(now), Next::Sleep(now + millis(5)));
    }
}
