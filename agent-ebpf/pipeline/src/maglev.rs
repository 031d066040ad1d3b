//! Maglev: the same packet leads to the same backend on every node, and few move when backends come or go.
//!
//! The agent builds the tables ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4); this file hashes a packet
//! into one. Tables of all nodes are equal, so nothing that differs between nodes (ids, interfaces, the node's own seed) goes into
//! the hash.

use abi::service::{CELLS_PER_LINE, Run, Service, flags};

use crate::{
    family::{Family, Tuple},
    tables::Tables,
};

/// Position in the run that the packet's cell names. `None` if the table is not the run's, which is so between two publications: the
/// caller chooses otherwise.
#[inline(always)]
pub fn position<F: Family, T: Tables<F>>(
    tables: T,
    id: u32,
    service: &Service,
    run: Run,
    local: bool,
    tuple: &Tuple<F::Addr>,
) -> Option<u32> {
    let table = tables.maglev(id, local);
    if table.count() == 0 || table.generation() != run.generation() {
        return None;
    }
    let hash = hash::<F>(tables.config().maglev_seed, tuple, service.flags & flags::AFFINITY != 0);
    let cell = ((u64::from(hash) * u64::from(table.count())) >> 32) as u32;
    let line = table.base().wrapping_add(cell / CELLS_PER_LINE);
    let position = u32::from(tables.cell(line, cell % CELLS_PER_LINE)?);
    // A torn publication must not lead out of the run.
    if position < u32::from(run.count()) { Some(position) } else { None }
}

/// Hash of a packet's tuple, or of its client alone: a service with affinity then has it on all nodes without shared state.
#[inline(always)]
pub fn hash<F: Family>(seed: u32, tuple: &Tuple<F::Addr>, by_client: bool) -> u32 {
    let mut hash = (seed ^ F::mix(tuple.src)).wrapping_mul(0x9e37_79b1).rotate_left(15);
    if !by_client {
        let ports = u32::from(tuple.sport.0) << 16 | u32::from(tuple.dport.0);
        hash = (hash ^ F::mix(tuple.dst)).wrapping_mul(0x85eb_ca6b).rotate_left(13);
        hash = (hash ^ ports).wrapping_mul(0xc2b2_ae35).rotate_left(11) ^ u32::from(tuple.proto.0);
    }
    // The finaliser of MurmurHash3: the cell is taken from the upper bits, which all others must reach.
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
