//! Entries of a table of another layout, carried over to this build's.
//!
//! The rule is that of [`MapSpec::layout`]: a key stays what it was, a value is cut or filled up with zeros. What the agent writes is carried
//! once, before new programs are attached; what programs write is merged again while and after the hooks change over, since the old
//! programs go on writing to the old tables until then.
//!
//! Socket storage cannot be carried over: it hangs on its sockets.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use abi::maps::{self as spec, MapKind, MapSpec};

use crate::pins::{Pins, Predecessor};
use crate::sys::{BPF_NOEXIST, MappedArray, RawMap};

/// Why entries could not be carried over.
#[derive(Debug, thiserror::Error)]
#[error("carrying table {name} over from another layout: {source}")]
pub struct CarryError {
    /// Map name.
    pub name: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

/// For how long a program that was replaced may still be at work on a packet; far more than one takes.
const LAST_RUN: Duration = Duration::from_millis(20);

/// Tables that programs write and on which connections depend.
const FLOWS: &[MapSpec] =
    &[spec::FLOW4, spec::FLOW6, spec::FLOWQ4, spec::FLOWQ6, spec::AFF4, spec::AFF6, spec::AFFSK];
/// Tables in which programs set bits.
const BITS: &[MapSpec] = &[spec::EPSEEN4, spec::EPSEEN6];

/// Tables to carry over: old and new, open.
#[derive(Debug, Default)]
pub struct Carrying {
    tables: Vec<(&'static MapSpec, RawMap, RawMap)>,
}

impl Carrying {
    /// Opens what was found, now that the new tables exist. A map that the object does not have stays where it is.
    pub fn open(predecessors: &[Predecessor], pins: &Pins) -> Result<Self, CarryError> {
        let mut tables = Vec::new();
        for Predecessor { spec, old } in predecessors {
            let failed = |source| CarryError { name: spec.name, source };
            let new = pins.path(spec);
            if new.exists() {
                tables.push((*spec, RawMap::open(old).map_err(failed)?, RawMap::open(&new).map_err(failed)?));
            }
        }
        // Programs move pairs from the embryonic tables to the established ones: read in this order, a pair that moves meanwhile is met in
        // one of them.
        tables.sort_by_key(|(spec, _, _)| ![spec::FLOWQ4.name, spec::FLOWQ6.name].contains(&spec.name));
        Ok(Self { tables })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Carries everything over. The new tables are empty before.
    pub fn all(&self) -> Result<(), CarryError> {
        self.tables.iter().try_for_each(|(spec, old, new)| {
            let carried = match spec.kind {
                MapKind::MappedArray => copy(old, new),
                _ if spec.name == spec::ROTOR.name => refill(old, new, turn),
                _ => refill(old, new, |_| {}),
            };
            carried.map_err(|source| CarryError { name: spec.name, source })
        })
    }

    /// Adds what programs have written since: entries that the new tables have already stay as they are.
    pub fn merge(&self) -> Result<(), CarryError> {
        let one_of = |specs: &[MapSpec], spec: &MapSpec| specs.iter().any(|one| one.name == spec.name);
        self.tables.iter().try_for_each(|(spec, old, new)| {
            let merged = match spec.kind {
                MapKind::MappedArray if one_of(BITS, spec) => unite(old, new),
                MapKind::Hash | MapKind::LruHash if one_of(FLOWS, spec) => add(old, new).map(drop),
                _ => Ok(()),
            };
            merged.map_err(|source| CarryError { name: spec.name, source })
        })
    }

    /// Merges again and again while `change` runs, and after it until the last run of an old program is over.
    pub fn merge_during<T, E: From<CarryError>>(
        &self,
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if self.is_empty() {
            return change();
        }
        let over = AtomicBool::new(false);
        let (changed, merged) = std::thread::scope(|scope| {
            let merging = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    self.merge()?;
                }
                self.merge()?;
                std::thread::sleep(LAST_RUN);
                self.merge()
            });
            let changed = change();
            over.store(true, Ordering::Release);
            (changed, merging.join())
        });
        let value = changed?;
        // A thread that panicked has merged for as long as it could.
        merged.unwrap_or(Ok(()))?;
        Ok(value)
    }
}

/// A value in the new layout.
fn fit(value: &[u8], bytes: usize) -> impl Iterator<Item = u8> + '_ {
    value.iter().copied().chain(std::iter::repeat(0)).take(bytes)
}

/// Copies the words of a mapped array.
fn copy(old: &RawMap, new: &RawMap) -> io::Result<()> {
    let (from, to) = (words(old, false)?, words(new, true)?);
    let (from_stride, to_stride) = (stride(old), stride(new));
    for index in 0..old.info().max_entries.min(new.info().max_entries) {
        for word in 0..from_stride.min(to_stride) {
            let value = from.get(index * from_stride + word).unwrap_or_default();
            if value != 0 {
                to.set(index * to_stride + word, &value);
            }
        }
    }
    Ok(())
}

/// Sets the bits of the old array in the new one: programs set bits and never clear them.
fn unite(old: &RawMap, new: &RawMap) -> io::Result<()> {
    let (from, to) = (words(old, false)?, words(new, true)?);
    for index in 0..from.len().min(to.len()) {
        let bits = from.get(index).unwrap_or_default();
        if bits & !to.get(index).unwrap_or_default() != 0 {
            to.update(index, |word| word | bits);
        }
    }
    Ok(())
}

fn words(map: &RawMap, writable: bool) -> io::Result<MappedArray<u64>> {
    MappedArray::map(map.fd(), map.info().max_entries * stride(map), writable)
}

/// 64-bit words of a value in an array; the kernel pads values.
fn stride(map: &RawMap) -> u32 {
    map.info().value_size.div_ceil(8)
}

/// Ports by which a rotor is ahead of its predecessor: more than programs take while they change.
const AHEAD: u32 = 1 << 14;

/// Turns a rotor on. The old programs go on taking source ports by the old one for a moment, and a port that both took for one backend
/// would belong to two clients.
fn turn(rotor: &mut [u8]) {
    if let Some(next) = rotor.first_chunk_mut::<4>() {
        *next = u32::from_ne_bytes(*next).wrapping_add(AHEAD).to_ne_bytes();
    }
}

/// Fills an empty hash, prefix tree or per-CPU array, some elements at a time; `change` is applied to each value.
fn refill(old: &RawMap, new: &RawMap, change: impl Fn(&mut [u8])) -> io::Result<()> {
    const ELEMENTS: usize = 4096;
    let one_cpu = (old.info().value_size as usize).next_multiple_of(8);
    let per_cpu = old.value_bytes() != old.info().value_size as usize;
    let cpus = if per_cpu { old.value_bytes() / one_cpu } else { 1 };
    let bytes = new.value_bytes() / cpus;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut result = Ok(());
    old.each(|key, value| {
        keys.extend_from_slice(key);
        for part in value.chunks_exact(value.len() / cpus) {
            let begin = values.len();
            values.extend(fit(part, bytes));
            change(&mut values[begin..]);
        }
        if keys.len() == ELEMENTS * key.len() {
            if result.is_ok() {
                result = new.update_all(&keys, &values);
            }
            keys.clear();
            values.clear();
        }
    })?;
    result?;
    new.update_all(&keys, &values)
}

/// Inserts what a hash does not have yet; returns how many entries that were.
pub fn add(old: &RawMap, new: &RawMap) -> io::Result<usize> {
    let bytes = new.value_bytes();
    let (mut added, mut failed) = (0, None);
    let mut fitted = Vec::with_capacity(bytes);
    old.each(|key, value| {
        fitted.clear();
        fitted.extend(fit(value, bytes));
        match new.update(key, &fitted, BPF_NOEXIST) {
            Ok(()) => added += 1,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => failed = Some(error),
        }
    })?;
    failed.map_or(Ok(added), Err)
}

/// Removes the tables of other layouts, which programs of other builds used.
pub fn forget(pins: &Pins, bpf_dir: &std::path::Path) -> io::Result<usize> {
    let removed = pins.forget_others()?;
    // Builds before the layout was a map's own had one directory a layout.
    let directories = fs::read_dir(bpf_dir)?.flatten().map(|entry| entry.path());
    let old: Vec<_> = directories
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("maps-")))
        .collect();
    old.iter().try_for_each(fs::remove_dir_all)?;
    Ok(removed + old.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_or_filled_up_with_zeros() {
        let fitted = |bytes| fit(&[1, 2, 3], bytes).collect::<Vec<_>>();
        assert_eq!((fitted(2), fitted(3), fitted(5)), (vec![1, 2], vec![1, 2, 3], vec![1, 2, 3, 0, 0]));
    }

    #[test]
    fn a_rotor_that_is_carried_over_is_ahead_of_the_old_one() {
        let mut rotor = u64::from(u32::MAX).to_ne_bytes();
        turn(&mut rotor);
        assert_eq!(rotor, u64::from(AHEAD - 1).to_ne_bytes());
    }
}
