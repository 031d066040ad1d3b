//! A pinned hash (or prefix tree) with keys and values of `abi`: what the agent inserts, in contrast to the arrays that it maps.

use std::io;
use std::marker::PhantomData;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::RawMap;

/// Bytes that both sides of the kernel boundary agree on.
pub trait Bytes: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Bytes for T {}

/// The table.
#[derive(Debug)]
pub struct Table<K, V> {
    map: RawMap,
    _types: PhantomData<fn(K) -> V>,
}

impl<K: Bytes, V: Bytes> Table<K, V> {
    /// Opens the map pinned at `path`, whose sizes must be those of the types.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(RawMap::open(path)?)
    }

    /// A map whose sizes must be those of the types.
    pub fn new(map: RawMap) -> io::Result<Self> {
        let (key, value) = (map.key_bytes(), map.value_bytes());
        if (key, value) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "keys and values have {key} and {value} bytes instead of {} and {}",
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self { map, _types: PhantomData })
    }

    /// The map underneath.
    pub fn raw(&self) -> &RawMap {
        &self.map
    }

    /// The value under `key`.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::new_zeroed();
        Ok(self.map.lookup(key.as_bytes(), bytes_of(&mut value))?.then_some(value))
    }

    /// Writes one element, with `BPF_ANY` or `BPF_NOEXIST`.
    pub fn insert(&self, key: &K, value: &V, flags: u64) -> io::Result<()> {
        self.map.update(key.as_bytes(), value.as_bytes(), flags)
    }

    /// Deletes one element; `false` if there is none.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        self.map.delete(key.as_bytes())
    }

    /// Writes many elements.
    pub fn insert_all(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        self.map.update_all(keys.as_bytes(), values.as_bytes())
    }

    /// Deletes many elements; returns how many were there.
    pub fn remove_all(&self, keys: &[K]) -> io::Result<usize> {
        self.map.delete_all(keys.as_bytes())
    }

    /// Calls `visit` with each element. One that moves meanwhile may be missed or seen twice.
    pub fn each(&self, mut visit: impl FnMut(K, V)) -> io::Result<()> {
        self.map.each(|key, value| {
            if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                visit(key, value);
            }
        })
    }
}

/// The bytes of a value, to be written by the kernel. Any bytes are a value.
fn bytes_of<V: Bytes>(value: &mut V) -> &mut [u8] {
    value.as_mut_bytes()
}
