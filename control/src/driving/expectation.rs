//! What a key's own writes must have done to the view before the key may be planned again (upstream: expectations, and
//! KEP-5647). Without this, a controller that is faster than its watch would create everything twice. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use controllers::{Key, Kind, View};

/// An expectation that the watch cannot fulfil (say, an object that came and went unseen) is given up after this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// One write that has to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The kind's table has seen this resourceVersion or a later one.
    Seen {
        /// The kind written.
        kind: Kind,
        /// The version that the server answered.
        version: u64,
    },
    /// The object is gone, replaced, or marked as being deleted.
    Leaving {
        /// The kind.
        kind: Kind,
        /// The object's key.
        key: Key,
        /// The object's uid.
        uid: String,
    },
}

impl Expected {
    fn is_met(&self, view: &View) -> bool {
        match self {
            Self::Seen { kind, version } => view.seen(*kind) >= *version,
            Self::Leaving { kind, key, uid } => {
                view.standing(*kind, key).is_none_or(|(known, leaving)| leaving || known != *uid)
            }
        }
    }
}

/// The expectations of one controller, by key.
#[derive(Debug, Default)]
pub struct Expectations {
    open: HashMap<Key, (Instant, Vec<Expected>)>,
}

impl Expectations {
    /// Remembers what the writes for `key` must bring.
    pub fn add(&mut self, key: &Key, expected: Vec<Expected>, now: Instant) {
        if !expected.is_empty() {
            let entry = self.open.entry(key.clone()).or_insert_with(|| (now, Vec::new()));
            entry.0 = now;
            entry.1.extend(expected);
        }
    }

    /// Whether the view holds all writes of `key`, so that it can be planned.
    pub fn are_met(&mut self, key: &Key, view: &View, now: Instant) -> bool {
        let Some((since, open)) = self.open.get_mut(key) else { return true };
        open.retain(|it| !it.is_met(view));
        if open.is_empty() || now.duration_since(*since) > PATIENCE {
            self.open.remove(key);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(uid: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns".into());
        pod.metadata.name = Some("a".into());
        pod.metadata.uid = Some(uid.into());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    #[test]
    fn a_key_waits_for_its_creations_and_deletions_but_not_for_ever() {
        let (view, mut expectations, now) = (View::default(), Expectations::default(), Instant::now());
        let owner = Key::new("ns", "owner");
        assert!(expectations.are_met(&owner, &view, now));
        let gone = Expected::Leaving { kind: Kind::Pod, key: Key::new("ns", "a"), uid: "u1".into() };
        view.pods.apply(pod("u1", 5));
        expectations.add(&owner, vec![Expected::Seen { kind: Kind::Pod, version: 7 }, gone], now);
        assert!(!expectations.are_met(&owner, &view, now));
        view.pods.remove(&pod("u1", 6));
        assert!(!expectations.are_met(&owner, &view, now));
        view.pods.apply(pod("u2", 7));
        assert!(expectations.are_met(&owner, &view, now));
        expectations.add(&owner, vec![Expected::Seen { kind: Kind::Pod, version: 99 }], now);
        assert!(!expectations.are_met(&owner, &view, now));
        assert!(expectations.are_met(&owner, &view, now + Duration::from_secs(31)));
    }
}
