//! Flow tables grow while they are used: into tables twice as large, in three loads of the programs, each put everywhere before the next.
//!
//! 1. The next tables are made and pinned. Programs look flows up in both and write to the current ones (`features::FLOWS_BOTH`).
//! 2. Programs write to the next ones (`features::FLOWS_NEXT`), and the agent copies what they do not have yet.
//! 3. The next tables take the pins of the current ones: from here on they are the tables, whoever opens them. Programs forget the others.
//!
//! An agent that ends in between leaves pins that tell how far it came ([`left_over`]): pins are made IPv6 first, and taken over IPv6 first.

use std::fs;
use std::io;

use abi::config::features;
use abi::maps::{FLOW4, FLOW4_NEXT, FLOW6, FLOW6_NEXT, MapSpec};

use crate::carry;
use crate::flows::FlowsError;
use crate::pins::Pins;
use crate::sys::{self, MapInfo, RawMap};

/// Part of a table, in percent, from which on it should grow.
pub const FULL_PERCENT: u8 = 75;
/// How many times its first size a table may have, if nothing else is asked for.
pub const GROWTH: u32 = 8;

/// Current and next tables, in the order in which pins are made and taken over.
const PAIRS: [(&MapSpec, &MapSpec); 2] = [(&FLOW6, &FLOW6_NEXT), (&FLOW4, &FLOW4_NEXT)];

/// Constants that only programs of a growth have.
pub const FEATURES: u32 = features::FLOWS_BOTH | features::FLOWS_NEXT;

/// Constants of the programs in the steps with two tables.
pub const STEPS: [u32; 2] = [features::FLOWS_BOTH, features::FLOWS_BOTH | features::FLOWS_NEXT];

/// What an earlier process left of a growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOver {
    /// Nothing, or what could be tidied up at once.
    Nothing,
    /// Both next tables are there, and entries may be in any: the growth goes on from its first step.
    Both,
}

/// Entries of a new table: such that the tables of both families together take about a hundredth of the memory.
pub fn default_entries() -> u32 {
    let info = rustix::system::sysinfo();
    let bytes = info.totalram as u64 * u64::from(info.mem_unit.max(1));
    entries_for(bytes)
}

/// An entry of both families has 320 bytes (`abi::maps`, sizes of hash elements).
fn entries_for(ram_bytes: u64) -> u32 {
    let entries = (ram_bytes / 100 / 320).clamp(1 << 14, 1 << 22);
    // The nearest power of two below: the hash has as many buckets.
    1 << entries.ilog2()
}

/// Looks for what an earlier process left, and tidies up what needs no programs for it.
pub fn left_over(pins: &Pins) -> io::Result<LeftOver> {
    let (six, four) = (pins.path(&FLOW6_NEXT), pins.path(&FLOW4_NEXT));
    match (six.exists(), four.exists()) {
        (true, true) => return Ok(LeftOver::Both),
        // The second was not made: no program knows of the first.
        (true, false) => fs::remove_file(six)?,
        // The first has been taken over already.
        (false, true) => fs::rename(four, pins.path(&FLOW4))?,
        (false, false) => {}
    }
    Ok(LeftOver::Nothing)
}

/// Makes and pins the next tables, twice as large up to `limit`. Returns whether there are any: not if none may become larger.
pub fn make_next(pins: &Pins, limit: u32) -> Result<bool, FlowsError> {
    let mut sizes = [0; 2];
    let mut current = Vec::new();
    for (index, (spec, _)) in PAIRS.iter().enumerate() {
        let failed = |source| FlowsError { name: spec.name, source };
        let table = RawMap::open(&pins.path(spec)).map_err(failed)?;
        let entries = table.info().max_entries;
        sizes[index] = entries.saturating_mul(2).min(limit).max(entries);
        current.push(*table.info());
    }
    if current.iter().zip(sizes).all(|(info, size)| info.max_entries >= size) {
        return Ok(false);
    }
    for (((_, next), info), max_entries) in PAIRS.iter().zip(current).zip(sizes) {
        let failed = |source| FlowsError { name: next.name, source };
        let table = RawMap::create(next.name, &MapInfo { max_entries, ..info }).map_err(failed)?;
        sys::pin(table.fd(), &pins.path(next)).map_err(failed)?;
    }
    Ok(true)
}

/// Entries that the tables of both families have room for.
pub fn entries(pins: &Pins) -> Result<usize, FlowsError> {
    let mut entries = 0;
    for (spec, _) in PAIRS {
        let table =
            RawMap::open(&pins.path(spec)).map_err(|source| FlowsError { name: spec.name, source })?;
        entries += table.info().max_entries as usize;
    }
    Ok(entries)
}

/// Copies to the next tables what they do not have; returns how many entries that were.
pub fn copy(pins: &Pins) -> Result<usize, FlowsError> {
    let mut copied = 0;
    for (spec, next) in PAIRS {
        let failed = |source| FlowsError { name: spec.name, source };
        let old = RawMap::open(&pins.path(spec)).map_err(failed)?;
        let new = RawMap::open(&pins.path(next)).map_err(failed)?;
        copied += carry::add(&old, &new).map_err(failed)?;
    }
    Ok(copied)
}

/// Lets the next tables take the pins of the current ones.
pub fn take_over(pins: &Pins) -> Result<(), FlowsError> {
    PAIRS.iter().try_for_each(|(spec, next)| {
        fs::rename(pins.path(next), pins.path(spec)).map_err(|source| FlowsError { name: spec.name, source })
    })
}

/// Removes next tables that no program uses.
pub fn give_up(pins: &Pins) {
    for (_, next) in PAIRS.iter().rev() {
        if let Err(error) = fs::remove_file(pins.path(next))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(map = next.name, %error, "could not remove a table");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_about_a_hundredth_of_the_memory() {
        let gib = |gib: u64| gib << 30;
        for (ram, expected) in
            [(0, 1 << 14), (gib(4), 1 << 17), (gib(8), 1 << 18), (gib(64), 1 << 21), (gib(4096), 1 << 22)]
        {
            assert_eq!(entries_for(ram), expected, "{ram} bytes");
        }
    }
}
