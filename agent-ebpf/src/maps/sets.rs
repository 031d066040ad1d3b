//! The unanswered flows: arrays of sets of four entries, written under a set's lock, read without.
//!
//! An insertion into an LRU hash takes the kernel's list and bucket locks and writes a dozen cache lines, and a new flow needs two. A set
//! is three lines of an array.
//!
//! # Writing
//! A writer claims the set by compare-and-swap of its lock, and gives up after [`ATTEMPTS`]: nothing here waits for another CPU, nor for
//! code that it may have interrupted. What could not be inserted is [`Refused::Full`], what could not be deleted grows old. The lock's
//! value is the tick at which it was taken: one that is older than [`ABANDONED`] is a lock that was copied from another layout's table,
//! and is taken over.
//!
//! # Reading
//! A reader finds an entry by its mark and key, and copies it. Meanwhile the entry may be replaced; the copy must then not be believed. A
//! writer makes the old signature zero before it writes anything else, and writes the new one when all else is written; a reader
//! takes the signature after all else. If it reads the old one, then it has read nothing that was written after it was made zero: stores
//! and loads are in order on x86; elsewhere the copy is a hint as good as that of a reused hash element. If it reads the new one, it is
//! the wrong one for the key. An entry with the same key is never written in place, but next to the old one, whose mark and signature are
//! then made zero: so two versions of one connection's entry are not mixed, either.
#![expect(unsafe_code, reason = "part of `maps`")]

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use abi::{
    Port, Proto,
    flow::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState},
    flow_set::{FlowSet, WAYS},
    limits,
};
use aya_ebpf::{Global, btf_maps::Array, macros::btf_map};
use pipeline::{Common, V4, V6, family::Tuple, flow::signature, tables::Refused};

use super::{MAPPED, Maps};

#[btf_map(name = "bl1_flowset4")]
static FLOWQ4: Array<FlowSet<FlowKey4, Flow4>, { limits::FLOW_SETS }, MAPPED> = Array::new();
#[btf_map(name = "bl1_flowset6")]
static FLOWQ6: Array<FlowSet<FlowKey6, Flow6>, { limits::FLOW_SETS }, MAPPED> = Array::new();

/// Number of sets: a power of two. Tests load smaller tables.
#[unsafe(no_mangle)]
static BL_FLOW_SETS: Global<u32> = Global::new(limits::FLOW_SETS as u32);

/// How often a writer tries to claim a set.
const ATTEMPTS: u32 = 4;
/// Ticks after which a lock is nobody's.
const ABANDONED: i32 = 3;
/// No place.
const NOWHERE: u32 = u32::MAX;
/// Outcome of [`write`].
const WRITTEN: u32 = 0;
/// Outcome of [`write`]: the key is there.
const TAKEN: u32 = 1;
/// Outcome of [`write`]: another CPU holds the set.
const BUSY: u32 = 2;

/// A key of flows as the sets see it.
pub trait Key: Copy {
    /// Hash under the node's seed: what the signature of its entry is.
    fn signature(&self, seed: u32) -> u32;
    /// Whether both are the same, by one comparison: each branch would be a path for the verifier.
    fn same(&self, other: &Self) -> bool;
}

/// A value of flows as the sets see it.
pub trait Value: Copy {
    /// Its key.
    type Key: Key;
    /// Its words.
    const WORDS: usize = size_of::<Self>() / 8;
    /// The word that holds the signature.
    const SIGNATURE: usize;
    /// The set with this index.
    fn set(index: u32) -> Option<*mut FlowSet<Self::Key, Self>>;
    /// [`found`], verified by itself.
    fn found(key: &Self::Key) -> u32;
    /// [`write`], verified by itself.
    fn write(key: &Self::Key, value: &Self, replace: bool) -> u32;
    /// [`remove`], verified by itself.
    fn remove(key: &Self::Key);
}

#[inline(always)]
fn tuple<A>(src: A, dst: A, sport: Port, dport: Port, proto: Proto) -> Tuple<A> {
    Tuple { src, dst, sport, dport, proto }
}

macro_rules! key {
    ($key:ident, $family:ident, $words:literal) => {
        impl Key for $key {
            #[inline(always)]
            fn signature(&self, seed: u32) -> u32 {
                signature::<$family>(seed, &tuple(self.src, self.dst, self.sport, self.dport, self.proto))
            }

            #[inline(always)]
            fn same(&self, other: &Self) -> bool {
                let words = |key: &Self| -> [u32; $words] { abi::zerocopy::transmute!(*key) };
                let (one, other) = (words(self), words(other));
                let mut difference = 0;
                for i in 0..$words {
                    difference |= one[i] ^ other[i];
                }
                difference == 0
            }
        }
    };
}
key!(FlowKey4, V4, 4);
key!(FlowKey6, V6, 10);

/// One family's sets. The functions are global ones to the kernel: verified once, not at each call, with pointers that may be null.
macro_rules! value {
    ($value:ident, $key:ident, $map:ident, $found:ident, $write:ident, $remove:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $found(key: *const $key) -> u32 {
            // SAFETY: null or a key, says the verifier.
            unsafe { key.as_ref() }.map_or(NOWHERE, found::<$value>)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $write(key: *const $key, value: *const $value, replace: u32) -> u32 {
            // SAFETY: null or a key, null or a value, says the verifier.
            match unsafe { (key.as_ref(), value.as_ref()) } {
                (Some(key), Some(value)) => write::<$value>(key, value, replace != 0),
                _ => BUSY,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $remove(key: *const $key) -> u32 {
            // SAFETY: null or a key, says the verifier.
            unsafe { key.as_ref() }.map_or(0, remove::<$value>)
        }

        impl Value for $value {
            type Key = $key;
            const SIGNATURE: usize =
                (core::mem::offset_of!(Self, state) + core::mem::offset_of!(FlowState, signature)) / 8;

            #[inline(always)]
            fn set(index: u32) -> Option<*mut FlowSet<$key, Self>> {
                $map.get_ptr_mut(index)
            }

            #[inline(always)]
            fn found(key: &$key) -> u32 {
                $found(key)
            }

            #[inline(always)]
            fn write(key: &$key, value: &Self, replace: bool) -> u32 {
                $write(key, value, u32::from(replace))
            }

            #[inline(always)]
            fn remove(key: &$key) {
                $remove(key);
            }
        }
    };
}
value!(Flow4, FlowKey4, FLOWQ4, bl_flow4_found, bl_flow4_write, bl_flow4_remove);
value!(Flow6, FlowKey6, FLOWQ6, bl_flow6_found, bl_flow6_write, bl_flow6_remove);

/// Keeps what comes before it before what comes after it, in the compiled program.
#[inline(always)]
pub fn in_order() {
    // SAFETY: no instruction; it only may not be moved across.
    unsafe { core::arch::asm!("", options(nostack)) };
}

/// The mark of a key: its signature, but zero is for nobody.
#[inline(always)]
fn mark<K: Key>(key: &K) -> u32 {
    let signature = key.signature(Maps.config().hash_seed);
    if signature == 0 { 1 } else { signature }
}

/// Index of the set that a mark's entry is in.
#[inline(always)]
fn set_of(mark: u32) -> u32 {
    let mut sets: *const Global<u32> = &raw const BL_FLOW_SETS;
    // SAFETY: as for the configuration: the compiler must not fold the initial value.
    let sets = unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) sets, options(pure, readonly, nostack));
        *sets.cast::<u32>()
    };
    // The lower bits of a signature hardly depend on addresses.
    let mixed = (mark ^ mark >> 15).wrapping_mul(0x9e37_79b1);
    mixed >> 12 & sets.wrapping_sub(1)
}

/// The place of the mark in the set: 0 to 3, or [`WAYS`]. By arithmetic, so that the verifier sees one path.
#[inline(always)]
fn place<K, V>(set: *const FlowSet<K, V>, mark: u32) -> u32 {
    let mut found = 0;
    for way in 0..WAYS {
        // SAFETY: inside a live array element.
        let mut differs = unsafe { (&raw const (*set).marks[way]).read_volatile() } ^ mark;
        differs = (differs | differs.wrapping_neg()) >> 31;
        // SAFETY: a register onto itself; without it the arithmetic becomes branches.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) differs, options(pure, nomem, nostack)) };
        // The last one counts: marks of entries are distinct, but several places may be free.
        found = found & differs.wrapping_neg() | (differs ^ 1) * (way as u32 + 8);
    }
    if found == 0 { WAYS as u32 } else { found & 3 }
}

/// Finds an entry.
#[inline(always)]
pub fn find<V: Value>(key: &V::Key) -> Option<*mut V> {
    let found = V::found(key);
    if found == NOWHERE {
        return None;
    }
    let set = V::set(found / WAYS as u32)?;
    // SAFETY: a live array element; the mask keeps the way inside. Readers copy and check: see above.
    Some(unsafe { (&raw mut (*set).values).cast::<V>().add(found as usize & (WAYS - 1)) })
}

/// Where the key's entry is: index of the set times [`WAYS`] plus place, or [`NOWHERE`].
#[inline(always)]
fn found<V: Value>(key: &V::Key) -> u32 {
    let mark = mark(key);
    let index = set_of(mark);
    let Some(set) = V::set(index) else { return NOWHERE };
    let way = place(set, mark);
    // SAFETY: a live array element; the mask keeps the way inside.
    let same =
        unsafe { (*(&raw const (*set).keys).cast::<V::Key>().add(way as usize & (WAYS - 1))).same(key) };
    if way < WAYS as u32 && same { index * WAYS as u32 + way } else { NOWHERE }
}

/// Takes the set's lock.
#[inline(always)]
fn claim<K, V>(set: *mut FlowSet<K, V>) -> bool {
    let now = Maps.now() | 1 << 31;
    for _ in 0..ATTEMPTS {
        // SAFETY: inside a live array element, aligned as its type.
        unsafe {
            let lock = &raw mut (*set).lock;
            let held = lock.read_volatile();
            if held != 0 && (now.wrapping_sub(held) as i32) < ABANDONED {
                continue;
            }
            let (_, claimed) =
                atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(lock, held, now);
            if claimed {
                return true;
            }
        }
    }
    false
}

/// Gives the set's lock back.
#[inline(always)]
fn release<K, V>(set: *mut FlowSet<K, V>) {
    in_order();
    // SAFETY: inside a live array element; the caller holds it.
    unsafe { (&raw mut (*set).lock).write_volatile(0) };
}

/// Makes an entry nobody's.
///
/// # Safety
/// `set` is a live element whose lock is held.
#[inline(always)]
unsafe fn clear<V: Value>(set: *mut FlowSet<V::Key, V>, way: usize) {
    // SAFETY: the mask keeps the way inside.
    unsafe {
        let way = way & (WAYS - 1);
        (&raw mut (*set).marks).cast::<u32>().add(way).write_volatile(0);
        (&raw mut (*set).values).cast::<V>().add(way).cast::<u64>().add(V::SIGNATURE).write_volatile(0);
    }
    in_order();
}

/// Where a new entry goes: a free place, else that of the entry which was silent for longest; in a flood, where all are of one tick, they
/// take turns. `but` has the key's former entry.
#[inline(always)]
fn room<V: Value>(set: *mut FlowSet<V::Key, V>, but: u32) -> u32 {
    let free = place(set, 0);
    if free < WAYS as u32 {
        return free;
    }
    // SAFETY: inside a live array element whose lock is held.
    unsafe {
        let (now, turn) = (Maps.now(), (*set).turn);
        let (mut chosen, mut most) = (turn & 3, 0);
        for way in 0..WAYS as u32 {
            // The tick stands in the word of the signature, behind it.
            let seen = (&raw const (*set).values)
                .cast::<V>()
                .add(way as usize)
                .cast::<u32>()
                .add(2 * V::SIGNATURE + 1);
            let idle = now.wrapping_sub(seen.read_volatile()) as i32;
            let idle = if idle < 0 { 0 } else { idle as u32 & 0x0fff_ffff };
            let score = idle << 2 | turn.wrapping_sub(way).wrapping_sub(1) & 3;
            if way != but && score >= most {
                (chosen, most) = (way, score);
            }
        }
        (*set).turn = chosen.wrapping_add(1);
        chosen
    }
}

/// Inserts an entry.
///
/// # Errors
/// [`Refused::Exists`] if the key is there and `replace` does not allow it, [`Refused::Full`] if the set was busy.
#[inline(always)]
pub fn insert<V: Value>(key: &V::Key, value: &V, replace: bool) -> Result<(), Refused> {
    match V::write(key, value, replace) {
        WRITTEN => Ok(()),
        TAKEN => Err(Refused::Exists),
        _ => Err(Refused::Full),
    }
}

/// [`insert`], with its outcome as a number.
#[inline(always)]
fn write<V: Value>(key: &V::Key, value: &V, replace: bool) -> u32 {
    let mark = mark(key);
    let Some(set) = V::set(set_of(mark)) else { return BUSY };
    if !claim(set) {
        return BUSY;
    }
    let former = place(set, mark);
    if former < WAYS as u32 && !replace {
        release(set);
        return TAKEN;
    }
    let way = room(set, former) as usize & (WAYS - 1);
    // SAFETY: a live element whose lock is held; the mask keeps the way inside; key and value are in other maps or on the stack, and no
    // longer than the places that they are written to.
    unsafe {
        clear(set, way);
        (&raw mut (*set).keys).cast::<V::Key>().add(way).write(*key);
        let (from, to) =
            ((&raw const *value).cast::<u64>(), (&raw mut (*set).values).cast::<V>().add(way).cast::<u64>());
        for word in 0..V::WORDS {
            if word != V::SIGNATURE {
                to.add(word).write_volatile(from.add(word).read());
            }
        }
        in_order();
        to.add(V::SIGNATURE).write_volatile(from.add(V::SIGNATURE).read());
        if former < WAYS as u32 {
            clear(set, former as usize);
        }
        (&raw mut (*set).marks).cast::<u32>().add(way).write_volatile(mark);
    }
    release(set);
    WRITTEN
}

/// Deletes an entry if it is there. One whose mark is another key's was never there.
#[inline(always)]
fn remove<V: Value>(key: &V::Key) -> u32 {
    let mark = mark(key);
    let Some(set) = V::set(set_of(mark)) else { return 0 };
    if place(set, mark) >= WAYS as u32 || !claim(set) {
        return 0;
    }
    let way = place(set, mark);
    if way < WAYS as u32 {
        // SAFETY: a live element whose lock is held.
        unsafe { clear(set, way as usize) };
    }
    release(set);
    1
}
