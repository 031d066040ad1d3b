//! A sorted map of entries whose clones are cheap and never change: chunks of entries behind two levels of `Arc`.
//!
//! A write copies one chunk and the list of chunks, and only if a clone is still held. With n entries that is
//! O(sqrt n)-sized work, flat in memory, and iteration is over arrays.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::entry::Entry;

/// Entries a chunk may hold before it is cut in two.
const CHUNK_MAX: usize = 128;

type Chunk<M> = Arc<Vec<Arc<Entry<M>>>>;

/// Entries in the order of their keys.
pub struct Ordered<M> {
    chunks: Arc<Vec<Chunk<M>>>,
    len: usize,
}

impl<M> Clone for Ordered<M> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<M> Default for Ordered<M> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<M> Ordered<M> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<Entry<M>>> {
        let (chunk, at) = self.seek(key);
        self.chunks.get(chunk)?.get(at).filter(|it| &*it.key == key)
    }

    /// Entries with keys that start with `prefix` and are not below `from`, in order.
    pub fn range<'a>(&'a self, prefix: &'a str, from: &str) -> impl Iterator<Item = &'a Arc<Entry<M>>> {
        let (chunk, at) = self.seek(if from > prefix { from } else { prefix });
        let first = self.chunks.get(chunk).map_or(&[][..], |it| &it[at..]);
        let rest = self.chunks.get(chunk + 1..).unwrap_or_default();
        first
            .iter()
            .chain(rest.iter().flat_map(|it| it.iter()))
            .take_while(move |it| it.key.starts_with(prefix))
    }

    /// Puts `entry` in; gives back the one it replaced.
    pub fn insert(&mut self, entry: Arc<Entry<M>>) -> Option<Arc<Entry<M>>> {
        let (chunk, at) = self.seek(&entry.key);
        let chunks = Arc::make_mut(&mut self.chunks);
        // Behind the last entry: grow the last chunk instead of opening one an entry.
        let (chunk, at) = if chunk == chunks.len() && chunk > 0 {
            (chunk - 1, chunks[chunk - 1].len())
        } else {
            (chunk, at)
        };
        let Some(slot) = chunks.get_mut(chunk) else {
            chunks.push(Arc::new(vec![entry]));
            self.len += 1;
            return None;
        };
        let entries = Arc::make_mut(slot);
        if let Some(there) = entries.get_mut(at).filter(|it| it.key == entry.key) {
            return Some(std::mem::replace(there, entry));
        }
        entries.insert(at, entry);
        if entries.len() > CHUNK_MAX {
            let upper = entries.split_off(CHUNK_MAX / 2);
            chunks.insert(chunk + 1, Arc::new(upper));
        }
        self.len += 1;
        None
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Entry<M>>> {
        self.get(key)?;
        let (chunk, at) = self.seek(key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks[chunk]);
        let removed = entries.remove(at);
        if entries.is_empty() {
            chunks.remove(chunk);
        }
        self.len -= 1;
        Some(removed)
    }

    /// Chunk and place in it of the first entry that is not below `key`.
    fn seek(&self, key: &str) -> (usize, usize) {
        let last_below =
            |chunk: &Chunk<M>| chunk.last().is_some_and(|it| (*it.key).cmp(key) == Ordering::Less);
        let chunk = self.chunks.partition_point(last_below);
        let at = self.chunks.get(chunk).map_or(0, |it| it.partition_point(|entry| &*entry.key < key));
        (chunk, at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::entry::Index;

    impl Index for () {
        fn of(_: &str, _: &[u8]) -> Self {}
        fn fields(&self, _: &mut dyn FnMut(&str, &str)) {}
    }

    fn entry(key: &str, revision: i64) -> Arc<Entry<()>> {
        Arc::new(Entry::new(key, b"{\"metadata\":{}}", revision, revision))
    }

    #[test]
    fn agrees_with_a_btree_map_through_many_inserts_and_removes() {
        let (mut ours, mut theirs) = (Ordered::default(), BTreeMap::new());
        let mut seed = 7_u64;
        for step in 0..20_000_i64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("/p/{:04}", (seed >> 33) % 2_000);
            if (seed >> 20).is_multiple_of(3) {
                assert_eq!(ours.remove(&key).map(|it| it.revision), theirs.remove(&key));
            } else {
                assert_eq!(ours.insert(entry(&key, step)).map(|it| it.revision), theirs.insert(key, step));
            }
            assert_eq!(ours.len(), theirs.len());
        }
        let listed: Vec<_> = ours.range("/p/", "").map(|it| (it.key.to_string(), it.revision)).collect();
        assert_eq!(listed, theirs.clone().into_iter().collect::<Vec<_>>());
        let from: Vec<_> = ours.range("/p/1", "/p/15").map(|it| it.key.to_string()).collect();
        let expected: Vec<_> =
            theirs.keys().filter(|it| it.starts_with("/p/1") && it.as_str() >= "/p/15").cloned().collect();
        assert_eq!(from, expected);
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut map = Ordered::default();
        for n in 0..300 {
            map.insert(entry(&format!("/p/{n:03}"), n));
        }
        let before = map.clone();
        map.remove("/p/100");
        map.insert(entry("/p/200", 1_000));
        assert_eq!(before.get("/p/100").unwrap().revision, 100);
        assert_eq!(before.get("/p/200").unwrap().revision, 200);
        assert!(map.get("/p/100").is_none());
        assert_eq!(map.get("/p/200").unwrap().revision, 1_000);
    }
}
