//! A `BPF_F_MMAPABLE` array in this process's memory: a store here is what the programs load next.
//!
//! The only writer is this process; readers are the programs (and other processes that show status). Values are moved as 64-bit words, each
//! one whole; what must change together is in one word (`abi::service`, publication rule).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// The array, as values of `T`.
#[derive(Debug)]
pub struct MappedArray<T> {
    words: NonNull<AtomicU64>,
    entries: u32,
    bytes: usize,
    writable: bool,
    _value: PhantomData<T>,
}

// SAFETY: the mapping is shared memory that lives until drop; all accesses go through atomics.
unsafe impl<T> Send for MappedArray<T> {}
// SAFETY: as above; `&self` methods only load or store atomics.
unsafe impl<T> Sync for MappedArray<T> {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> MappedArray<T> {
    const WORDS: usize = {
        // The kernel pads array values to eight bytes; without padding the strides agree.
        assert!(size_of::<T>().is_multiple_of(WORD), "values must be whole words");
        size_of::<T>() / WORD
    };

    /// Maps the array of `entries` values behind `map`.
    pub fn map(map: BorrowedFd<'_>, entries: u32, writable: bool) -> io::Result<Self> {
        let bytes = entries as usize * size_of::<T>();
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no existing memory. The kernel refuses lengths beyond
        // the array's memory.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { words, entries, bytes, writable, _value: PhantomData })
    }

    /// Number of values.
    pub fn len(&self) -> u32 {
        self.entries
    }

    /// The value at `index`, `None` beyond the end. Words are whole; the value is a mixture if it is being rewritten by another process.
    pub fn get(&self, index: u32) -> Option<T> {
        let words = self.value(index)?;
        let mut value = T::new_zeroed();
        for (bytes, word) in value.as_mut_bytes().chunks_exact_mut(WORD).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        Some(value)
    }

    /// One word of the value at `index`.
    pub fn word(&self, index: u32, word: usize) -> Option<u64> {
        Some(self.value(index)?.get(word)?.load(Ordering::Acquire))
    }

    /// Writes all words of the value at `index`, in order. Returns whether the index exists and the mapping is writable.
    pub fn set(&self, index: u32, value: &T) -> bool {
        if !self.writable {
            return false;
        }
        let Some(words) = self.value(index) else { return false };
        for (word, bytes) in words.iter().zip(value.as_bytes().chunks_exact(WORD)) {
            word.store(word_of(bytes), Ordering::Relaxed);
        }
        fence(Ordering::Release);
        true
    }

    /// Writes one word of the value at `index`: everything written before is seen by whoever sees it.
    pub fn publish(&self, index: u32, word: usize, value: u64) -> bool {
        if !self.writable {
            return false;
        }
        let Some(place) = self.value(index).and_then(|words| words.get(word)) else { return false };
        place.store(value, Ordering::Release);
        true
    }

    /// Changes the first word of the value at `index`, which others change, too.
    pub fn update(&self, index: u32, change: impl Fn(u64) -> u64) -> bool {
        if !self.writable {
            return false;
        }
        let Some(word) = self.value(index).and_then(|words| words.first()) else { return false };
        word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| Some(change(value))).is_ok()
    }

    fn value(&self, index: u32) -> Option<&[AtomicU64]> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: the mapping has `entries` values of `WORDS` words from `words` on and lives as long as `self`; `index` is below
        // `entries`. Shared memory is only ever touched through these atomics in this process.
        Some(unsafe {
            std::slice::from_raw_parts(self.words.as_ptr().add(index as usize * Self::WORDS), Self::WORDS)
        })
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `map`; nothing borrows from it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.bytes) };
    }
}
