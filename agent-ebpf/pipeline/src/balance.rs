//! Algorithms: which slot of a run a new connection gets.
//!
//! Weights are repeated slots, so no algorithm knows of them. What a service asks for is in [`abi::service::flags`]; without a flag, and
//! where an algorithm has nothing to go by, chance decides.

use abi::service::{Run, SLOTS_PER_LINE, Service, flags};

use crate::{
    affinity::Origin,
    family::Family,
    maglev,
    tables::{Common, Tables},
};

/// The backend index for a new connection to the service with this id, and whether another packet of the connection would lead to it,
/// too, as long as the tables stay; `run` is its `run_local` with `local`.
#[inline(always)]
pub fn choose<F: Family, T: Tables<F>>(
    tables: T,
    id: u32,
    service: &Service,
    run: Run,
    local: bool,
    origin: &Origin<F>,
) -> Option<(u32, bool)> {
    if service.flags & flags::MAGLEV != 0
        && let Origin::Packet(tuple) = origin
        && let Some(position) = maglev::position::<F, T>(tables, id, service, run, local, tuple)
    {
        return Some((slot(tables, run, position)?, true));
    }
    if service.flags & flags::ROUND_ROBIN != 0 {
        let turn = tables.turn(id).checked_rem(u32::from(run.count()))?;
        return Some((slot(tables, run, turn)?, false));
    }
    let one = slot(tables, run, draw(tables, run))?;
    if service.flags & flags::LEAST_CONNECTIONS == 0 {
        return Some((one, false));
    }
    // Two choices instead of all: the longest queue grows with log log n, and no one has to be counted twice.
    let other = slot(tables, run, draw(tables, run))?;
    Some((if tables.load(other) < tables.load(one) { other } else { one }, false))
}

/// A position in the run by chance: multiply-shift instead of a division.
#[inline(always)]
fn draw<T: Common>(tables: T, run: Run) -> u32 {
    ((u64::from(tables.random()) * u64::from(run.count())) >> 32) as u32
}

/// The backend index at a position of the run.
#[inline(always)]
fn slot<T: Common>(tables: T, run: Run, position: u32) -> Option<u32> {
    tables.slot(run.base().wrapping_add(position / SLOTS_PER_LINE), position % SLOTS_PER_LINE)
}
