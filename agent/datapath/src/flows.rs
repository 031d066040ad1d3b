//! Idle flows are deleted, pair by pair: the packet path never deletes an established flow.
//!
//! Both entries of a pair are judged together and go forward first, so that a packet in between makes a new pair instead of meeting half of
//! one (`abi::flow`). Entries that were never answered live in an LRU and need no collector.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use abi::Proto;
use abi::flow::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState, KIND_FORWARD, TICK_SHIFT, idle_ticks};
use abi::maps::{self as spec, MapSpec};
use aya::maps::{HashMap, Map, MapData, MapError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::maps::{WireHash, directory};
use crate::sys::{self, Wire};

/// Elements read at a time; larger than any chain of a hash bucket.
const BATCH: usize = 4096;

/// Why flows could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// A flow table could not be opened or changed.
    #[error("flow table {name}: {source}")]
    Table {
        /// Map name.
        name: &'static str,
        /// aya's error.
        source: MapError,
    },
    /// A flow table could not be read.
    #[error("flow table {name}: {source}")]
    Read {
        /// Map name.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a pass over the tables found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Entries seen.
    pub entries: usize,
    /// Entries deleted.
    pub deleted: usize,
}

/// What both families' keys and values offer.
trait Flow: FromBytes + IntoBytes + Immutable + Copy + 'static {
    /// The flow's key.
    type Key: FromBytes + IntoBytes + Immutable + Copy + 'static;
    /// What is the same in both families.
    fn state(&self) -> &FlowState;
    /// Key of the other entry of the pair.
    fn other(key: &Self::Key, value: &Self) -> Self::Key;
    /// Protocol in the key.
    fn proto(key: &Self::Key) -> Proto;
}

impl Flow for Flow4 {
    type Key = FlowKey4;

    fn state(&self) -> &FlowState {
        &self.state
    }

    fn other(key: &FlowKey4, value: &Self) -> FlowKey4 {
        key.reverse(value)
    }

    fn proto(key: &FlowKey4) -> Proto {
        key.proto
    }
}

impl Flow for Flow6 {
    type Key = FlowKey6;

    fn state(&self) -> &FlowState {
        &self.state
    }

    fn other(key: &FlowKey6, value: &Self) -> FlowKey6 {
        key.reverse(value)
    }

    fn proto(key: &FlowKey6) -> Proto {
        key.proto
    }
}

/// One pass over both tables below `bpf_dir`.
pub fn collect(bpf_dir: &Path) -> Result<FlowCount, FlowsError> {
    let now = (sys::monotonic_ns() >> TICK_SHIFT) as u32;
    let four = pass::<Flow4>(bpf_dir, &spec::FLOW4, now)?;
    let six = pass::<Flow6>(bpf_dir, &spec::FLOW6, now)?;
    Ok(FlowCount { entries: four.entries + six.entries, deleted: four.deleted + six.deleted })
}

fn pass<F: Flow>(bpf_dir: &Path, map: &MapSpec, now: u32) -> Result<FlowCount, FlowsError> {
    let failed = |source| FlowsError::Table { name: map.name, source };
    let unread = |source| FlowsError::Read { name: map.name, source };
    let path = directory(bpf_dir).join(map.name);
    let descriptor = sys::get(&path).map_err(unread)?;
    let mut table: WireHash<F::Key, F> =
        MapData::from_pin(&path).and_then(|data| HashMap::try_from(Map::HashMap(data))).map_err(failed)?;
    let (key_size, value_size) = (size_of::<F::Key>(), size_of::<F>());
    let (mut keys, mut values) = (vec![0; BATCH * key_size], vec![0; BATCH * value_size]);
    let mut count = FlowCount::default();
    let mut cursor = None;
    loop {
        let read =
            sys::lookup_batch(descriptor.as_fd(), &mut cursor, key_size, &mut keys, value_size, &mut values);
        let (elements, done) = read.map_err(unread)?;
        count.entries += elements;
        for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(elements) {
            if let (Ok(key), Ok(value)) = (F::Key::read_from_bytes(key), F::read_from_bytes(value)) {
                count.deleted += judge(&mut table, &key, &value, now).map_err(failed)?;
            }
        }
        if done {
            return Ok(count);
        }
    }
}

/// Deletes the pair of an entry if both have been idle for too long; returns how many entries went. A pair is judged at its forward
/// entry; a reverse entry that has lost its forward one is judged alone.
fn judge<F: Flow>(
    table: &mut WireHash<F::Key, F>,
    key: &F::Key,
    value: &F,
    now: u32,
) -> Result<usize, MapError> {
    let other = F::other(key, value);
    let partner = match table.get(&Wire(other), 0) {
        Ok(partner) => Some(partner.0),
        Err(MapError::KeyNotFound) => None,
        Err(error) => return Err(error),
    };
    if value.state().kind != KIND_FORWARD && partner.is_some() {
        return Ok(0);
    }
    if !is_idle(F::proto(key), value.state(), partner.as_ref().map(Flow::state), now) {
        return Ok(0);
    }
    let mut deleted = 0;
    for key in [Some(*key), partner.map(|_| other)].into_iter().flatten() {
        match table.remove(&Wire(key)) {
            Ok(()) => deleted += 1,
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Whether a pair has been silent for longer than what it has seen allows. Ticks wrap.
fn is_idle(proto: Proto, one: &FlowState, other: Option<&FlowState>, now: u32) -> bool {
    let tcp = one.tcp | other.map_or(0, |other| other.tcp);
    let silent = |state: &FlowState| now.wrapping_sub(state.last_seen) as i32;
    let shortest = other.map_or(silent(one), |other| silent(one).min(silent(other)));
    shortest > idle_ticks(proto, tcp) as i32
}

#[cfg(test)]
mod tests {
    use abi::flow::tcp_bits;

    use super::*;

    #[track_caller]
    fn check(proto: Proto, tcp: [u8; 2], seen: [u32; 2], now: u32, expected: bool) {
        let state =
            |index: usize| FlowState { tcp: tcp[index], last_seen: seen[index], ..FlowState::default() };
        assert_eq!(is_idle(proto, &state(0), Some(&state(1)), now), expected);
    }

    #[test]
    fn a_pair_lives_as_long_as_either_direction_does() {
        let established = [tcp_bits::SYN | tcp_bits::REPLIED, tcp_bits::SYN];
        check(Proto::TCP, established, [0, 0], 7450, false);
        check(Proto::TCP, established, [0, 0], 7452, true);
        check(Proto::TCP, established, [0, 100], 7452, false);
    }

    #[test]
    fn the_end_of_a_connection_in_one_direction_shortens_the_life_of_the_pair() {
        check(Proto::TCP, [tcp_bits::REPLIED, tcp_bits::FIN], [0, 0], 60, true);
        check(Proto::TCP, [tcp_bits::REPLIED | tcp_bits::RST, 0], [0, 0], 10, true);
        check(Proto::UDP, [tcp_bits::REPLIED, 0], [0, 0], 100, false);
        check(Proto::UDP, [tcp_bits::REPLIED, 0], [0, 0], 112, true);
    }

    #[test]
    fn a_clock_that_wraps_or_a_packet_after_the_reading_is_not_idleness() {
        check(Proto::UDP, [0, 0], [u32::MAX - 5, u32::MAX - 5], 3, false);
        check(Proto::UDP, [0, 0], [u32::MAX - 5, u32::MAX - 5], 40, true);
        check(Proto::UDP, [0, 0], [11, 11], 10, false);
    }
}
