//! Backend rows: what they hold, their generations, and what is known of their load.

use abi::backend::{
    GENERATIONS_PER_LINE, GenerationLine, Load, STATE_FREE, STATE_GONE, STATE_READY, STATE_TERMINATING,
};
use service::{Backend, Family};

use crate::encode::{BackendBytes, Wire};
use crate::maps::{FamilyMaps, Maps};
use crate::sys::MappedArray;

/// Writes a backend; `false` if the index is beyond the table.
pub fn write(maps: &Maps, index: u32, row: &Backend) -> bool {
    match Family::from(row.address) {
        Family::V4 => write_in(&maps.v4, index, row),
        Family::V6 => write_in(&maps.v6, index, row),
    }
}

fn write_in<F: Wire>(maps: &FamilyMaps<F>, index: u32, row: &Backend) -> bool {
    let Some(current) = maps.be.get(index) else { return false };
    let (state, old) = current.life();
    let same = current.endpoint() == (row.address, row.port);
    let generation = next_generation(state, same, old);
    let Some(row) = F::Backend::of(row, generation) else { return false };
    maps.be.set(index, &row);
    if generation != old {
        write_generation(&maps.begen, index, generation);
        // Connections of whoever had the index before are not this one's; sockets that still have the old generation are not counted.
        maps.load.set(index, &Load::default());
    }
    true
}

/// The generation stays while the index stands for the same living endpoint.
fn next_generation(state: u8, same: bool, current: u16) -> u16 {
    let living = state != STATE_FREE && state != STATE_GONE;
    if living && same { current } else { current.wrapping_add(1) }
}

/// Takes a backend out: established TCP flows go on, connectionless ones see the generation and choose anew.
pub fn bury(maps: &Maps, family: Family, index: u32) {
    match family {
        Family::V4 => bury_in(&maps.v4, index),
        Family::V6 => bury_in(&maps.v6, index),
    }
}

fn bury_in<F: Wire>(maps: &FamilyMaps<F>, index: u32) {
    let Some(row) = maps.be.get(index) else { return };
    let generation = row.life().1.wrapping_add(1);
    maps.be.set(index, &row.with_life(STATE_GONE, generation));
    write_generation(&maps.begen, index, generation);
}

/// Marks the living backends that `named` does not hold as gone: an earlier process ended between two stores.
pub fn bury_orphans<F: Wire>(maps: &FamilyMaps<F>, named: impl Fn(u32) -> bool) {
    for index in 1..maps.be.len() {
        if maps.be.get(index).is_some_and(|row| is_living(row.life().0)) && !named(index) {
            bury_in(maps, index);
        }
    }
}

/// Whether a row in this state takes connections.
pub fn is_living(state: u8) -> bool {
    state == STATE_READY || state == STATE_TERMINATING
}

fn write_generation(lines: &MappedArray<GenerationLine>, index: u32, generation: u16) {
    let Some(mut line) = lines.get(index / GENERATIONS_PER_LINE) else { return };
    line.generations[(index % GENERATIONS_PER_LINE) as usize] = generation;
    lines.set(index / GENERATIONS_PER_LINE, &line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_stays_with_a_living_endpoint_only() {
        for (state, same, expected) in [
            (STATE_READY, true, 7),
            (STATE_TERMINATING, true, 7),
            (STATE_READY, false, 8),
            (STATE_GONE, true, 8),
            (STATE_FREE, false, 8),
        ] {
            assert_eq!(next_generation(state, same, 7), expected, "state {state}, same {same}");
        }
    }
}
