//! One stored object: its key, its wire bytes, and what the caller's index knows of it.

use bytes::Bytes;

use crate::splice::{self, Spot};

/// What a program wants to know of an object without parsing it again.
pub trait Index: Send + Sync + Sized + 'static {
    /// Reads the index record out of a body. Called once for each revision of each object.
    fn of(key: &str, body: &[u8]) -> Self;

    /// Calls `visit` with each field and value that a [`crate::Interest::Field`] may name.
    fn fields(&self, visit: &mut dyn FnMut(&str, &str));
}

/// One object at one revision.
#[derive(Debug)]
pub struct Entry<M> {
    /// Full etcd key.
    pub key: Box<str>,
    /// Revision of the write that created the key.
    pub created: i64,
    /// Revision of the write that made this version.
    pub revision: i64,
    /// The JSON that goes to clients, `metadata.resourceVersion` included.
    pub body: Bytes,
    /// The caller's index record.
    pub meta: M,
    spot: Option<Spot>,
}

impl<M: Index> Entry<M> {
    /// An entry from what etcd holds under `key`.
    pub fn new(key: &str, value: &[u8], created: i64, revision: i64) -> Self {
        let (body, spot) = splice::insert(value, revision);
        let meta = M::of(key, &body);
        Self { key: key.into(), created, revision, body, meta, spot }
    }

    /// The body as it reads at another revision: how a deleted object, or one that left a selector, is shown.
    #[must_use]
    pub fn body_at(&self, revision: i64) -> Bytes {
        match self.spot {
            Some(spot) if revision != self.revision => splice::replace(&self.body, spot, revision),
            _ => self.body.clone(),
        }
    }

    /// `value` is what etcd holds for this entry: writing it again would change nothing.
    #[must_use]
    pub fn holds(&self, value: &[u8]) -> bool {
        splice::is_insertion_into(&self.body, self.spot, value)
    }
}
