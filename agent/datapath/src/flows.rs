//! Idle flows are deleted, pair by pair: the packet path never deletes an established flow. What a pass over the tables counts on its way is
//! told to metrics and to the choice by least connections.
//!
//! Both entries of a pair are judged together and go forward first, so that a packet in between makes a new pair instead of meeting half of
//! one (`abi::flow`). Entries that were never answered make room for newer ones in their sets and need no collector.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use abi::Proto;
use abi::flow::{
    Flow4, Flow6, FlowKey4, FlowKey6, FlowState, KIND_FORWARD, KIND_REVERSE, TICK_SHIFT, flags, idle_ticks,
};
use abi::maps::{self as spec, MapSpec};

use crate::pins::Pins;
use crate::sys::{self, MappedArray};
use crate::table::{Bytes, Table};

/// Pairs deleted at a time.
const BATCH: usize = 1024;
/// Silence after which no flow may be deleted yet, in ticks: that of a reset connection.
const SHORTEST: i32 = idle_ticks(Proto::TCP, abi::flow::tcp_bits::RST) as i32;

/// Why flows could not be collected.
#[derive(Debug, thiserror::Error)]
#[error("flow table {name}: {source}")]
pub struct FlowsError {
    /// Map name.
    pub name: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

/// Use of the source ports of one address of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePorts {
    /// The address that translated clients get.
    pub address: IpAddr,
    /// Connections from it.
    pub connections: usize,
    /// The backend that most of them lead to: a port is free again for each backend.
    pub busiest: (IpAddr, u16),
    /// Ports in use towards that backend.
    pub ports: usize,
}

/// What a pass over the tables found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Entries seen.
    pub entries: usize,
    /// Entries deleted.
    pub deleted: usize,
    /// Entries there is room for.
    pub capacity: usize,
    /// The fuller family's part of its room, in percent.
    pub fill_percent: u8,
    /// Connections that hold a source port of this node.
    pub translated: usize,
    /// After which time the next pass is worth while: the fuller, the sooner.
    pub pause: Duration,
}

/// What both families' keys and values offer.
trait Flow: Bytes + 'static {
    /// The flow's key.
    type Key: Bytes + PartialEq + 'static;
    /// What is the same in both families.
    fn state(&self) -> &FlowState;
    /// Key of the other entry of the pair.
    fn other(key: &Self::Key, value: &Self) -> Self::Key;
    /// Protocol in the key.
    fn proto(key: &Self::Key) -> Proto;
    /// Source and destination in the key, and the source's port.
    fn ends(key: &Self::Key) -> (IpAddr, IpAddr, u16);
}

macro_rules! flow {
    ($flow:ident, $key:ident, $family:ident) => {
        impl Flow for $flow {
            type Key = $key;

            fn state(&self) -> &FlowState {
                &self.state
            }

            fn other(key: &$key, value: &Self) -> $key {
                key.reverse(value)
            }

            fn proto(key: &$key) -> Proto {
                key.proto
            }

            fn ends(key: &$key) -> (IpAddr, IpAddr, u16) {
                (IpAddr::$family(key.src.into()), IpAddr::$family(key.dst.into()), key.sport.host())
            }
        }
    };
}

flow!(Flow4, FlowKey4, V4);
flow!(Flow6, FlowKey6, V6);

/// What one family's pass counts.
#[derive(Debug, Default)]
struct Pass {
    entries: usize,
    deleted: usize,
    capacity: usize,
    /// Ports in use by source address and backend.
    ports: HashMap<(IpAddr, (IpAddr, u16)), usize>,
    /// Connections by backend, of services that ask for it.
    loads: HashMap<u32, u32>,
}

/// One pass over both families' tables.
pub fn collect(pins: &Pins) -> Result<(FlowCount, Vec<SourcePorts>), FlowsError> {
    let now = (sys::monotonic_ns() >> TICK_SHIFT) as u32;
    let four = pass::<Flow4>(pins, &spec::FLOW4, now)?;
    let six = pass::<Flow6>(pins, &spec::FLOW6, now)?;
    write_loads(pins, &spec::LOAD4, &four.loads)?;
    write_loads(pins, &spec::LOAD6, &six.loads)?;
    let fill = four.fill_percent().max(six.fill_percent());
    let mut source_ports = four.source_ports();
    source_ports.extend(six.source_ports());
    let count = FlowCount {
        entries: four.entries + six.entries,
        deleted: four.deleted + six.deleted,
        capacity: four.capacity + six.capacity,
        fill_percent: fill,
        translated: source_ports.iter().map(|ports| ports.connections).sum(),
        pause: pause(fill),
    };
    Ok((count, source_ports))
}

/// Time until the next pass.
fn pause(fill_percent: u8) -> Duration {
    Duration::from_secs(match fill_percent {
        0..50 => 10,
        50..75 => 5,
        75..90 => 2,
        _ => 1,
    })
}

impl Pass {
    fn fill_percent(&self) -> u8 {
        (self.entries.saturating_sub(self.deleted) * 100 / self.capacity.max(1)).min(100) as u8
    }

    fn source_ports(&self) -> Vec<SourcePorts> {
        let mut by_address: HashMap<IpAddr, SourcePorts> = HashMap::new();
        for ((address, backend), ports) in &self.ports {
            let new = SourcePorts { address: *address, connections: 0, busiest: *backend, ports: 0 };
            let known = by_address.entry(*address).or_insert(new);
            known.connections += ports;
            if *ports > known.ports {
                (known.busiest, known.ports) = (*backend, *ports);
            }
        }
        let mut found: Vec<SourcePorts> = by_address.into_values().collect();
        found.sort_by_key(|ports| ports.address);
        found
    }

    fn count<F: Flow>(&mut self, key: &F::Key, value: &F) {
        self.entries += 1;
        let state = value.state();
        if state.kind == KIND_REVERSE && state.flags & flags::SNAT != 0 {
            let (backend, address, port) = F::ends(key);
            *self.ports.entry((address, (backend, port))).or_default() += 1;
        }
        if state.kind == KIND_FORWARD && state.flags & flags::COUNTED != 0 {
            *self.loads.entry(state.backend).or_default() += 1;
        }
    }
}

fn pass<F: Flow>(pins: &Pins, map: &MapSpec, now: u32) -> Result<Pass, FlowsError> {
    let failed = |source| FlowsError { name: map.name, source };
    let table: Table<F::Key, F> = Table::open(&pins.path(map)).map_err(failed)?;
    let mut pass = Pass { capacity: table.raw().info().max_entries as usize, ..Pass::default() };
    let mut silent = Vec::new();
    let mut result = Ok(());
    table
        .each(|key, value| {
            pass.count(&key, &value);
            if silence(value.state(), now) > SHORTEST {
                silent.push((key, value));
            }
            if silent.len() == BATCH && result.is_ok() {
                result = delete_idle(&table, &silent, now).map(|deleted| pass.deleted += deleted);
                silent.clear();
            }
        })
        .map_err(failed)?;
    result.map_err(failed)?;
    pass.deleted += delete_idle(&table, &silent, now).map_err(failed)?;
    Ok(pass)
}

/// Deletes those of these entries' pairs that have been idle for too long; returns how many entries went. A pair is judged at its forward
/// entry; a reverse entry that has lost its forward one, or whose client has got another backend since, is judged alone.
fn delete_idle<F: Flow>(table: &Table<F::Key, F>, silent: &[(F::Key, F)], now: u32) -> io::Result<usize> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (key, value) in silent {
        let other = F::other(key, value);
        let partner = table.get(&other)?.filter(|partner| F::other(&other, partner) == *key);
        if value.state().kind != KIND_FORWARD && partner.is_some() {
            continue;
        }
        if is_idle(F::proto(key), value.state(), partner.as_ref().map(Flow::state), now) {
            first.push(*key);
            second.extend(partner.map(|_| other));
        }
    }
    Ok(table.remove_all(&first)? + table.remove_all(&second)?)
}

/// Ticks since the last packet of an entry. Ticks wrap.
fn silence(state: &FlowState, now: u32) -> i32 {
    now.wrapping_sub(state.last_seen) as i32
}

/// Whether a pair has been silent for longer than what it has seen allows.
fn is_idle(proto: Proto, one: &FlowState, other: Option<&FlowState>, now: u32) -> bool {
    let tcp = one.tcp | other.map_or(0, |other| other.tcp);
    let shortest = other.map_or(silence(one, now), |other| silence(one, now).min(silence(other, now)));
    shortest > idle_ticks(proto, tcp) as i32
}

/// Tells the choice by least connections what was counted. The other half of each word, counted by sockets, is the programs'.
fn write_loads(pins: &Pins, map: &MapSpec, loads: &HashMap<u32, u32>) -> Result<(), FlowsError> {
    let failed = |source| FlowsError { name: map.name, source };
    let raw = sys::RawMap::open(&pins.path(map)).map_err(failed)?;
    let table: MappedArray<u64> = MappedArray::map(raw.fd(), raw.info().max_entries, true).map_err(failed)?;
    for index in 0..table.len() {
        let word = table.get(index).unwrap_or_default();
        let counted = loads.get(&index).copied().unwrap_or(0);
        // `abi::backend::Load`: connections of packets come first.
        if word as u32 != counted {
            table.update(index, |word| word & !u64::from(u32::MAX) | u64::from(counted));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

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

    #[test]
    fn a_flow_that_may_go_is_never_passed_over_as_too_young() {
        for proto in [Proto::TCP, Proto::UDP, Proto::ICMP] {
            for tcp in 0..16 {
                assert!(idle_ticks(proto, tcp) as i32 >= SHORTEST, "{proto:?} {tcp}");
            }
        }
    }

    #[test]
    fn ports_and_connections_are_counted_where_they_are_used() {
        let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().into();
        let key = |sport, dport| FlowKey4 {
            src: address("10.244.1.5"),
            dst: address("172.30.0.11"),
            sport: abi::Port::from_host(sport),
            dport: abi::Port::from_host(dport),
            proto: Proto::TCP,
            ..FlowKey4::default()
        };
        let value = |kind, flags| {
            let state = FlowState { kind, flags, backend: 7, ..FlowState::default() };
            Flow4 { state, ..Flow4::default() }
        };
        let mut pass = Pass { capacity: 8, ..Pass::default() };
        for (port, taken) in [(80, 1024), (80, 1025), (81, 1024)] {
            pass.count(&key(port, taken), &value(KIND_REVERSE, flags::SNAT));
        }
        pass.count(&key(1, 2), &value(KIND_FORWARD, flags::SNAT | flags::COUNTED));
        let ports = SourcePorts {
            address: "172.30.0.11".parse().unwrap(),
            connections: 3,
            busiest: ("10.244.1.5".parse().unwrap(), 80),
            ports: 2,
        };
        assert_eq!(pass.source_ports(), [ports]);
        assert_eq!((pass.fill_percent(), &pass.loads), (50, &HashMap::from([(7, 1)])));
    }

    #[test]
    fn the_fuller_the_tables_the_sooner_the_next_pass() {
        let pauses: Vec<u64> = [0, 49, 50, 75, 90, 100].map(|fill| pause(fill).as_secs()).to_vec();
        assert_eq!(pauses, [10, 10, 5, 2, 1, 1]);
    }
}
