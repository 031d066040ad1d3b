//! Maglev tables, as small as the cases need them. The product's are made by the agent's `service` crate.

use std::net::SocketAddr;

/// Cells of a table; a prime.
const CELLS: usize = 1_021;

/// A table over the slots of a run: each cell holds a slot's position. A backend in several slots takes as many turns.
pub fn table(slots: &[SocketAddr]) -> Vec<u16> {
    let mut cells = vec![None; CELLS];
    let mut walks: Vec<(usize, usize)> =
        slots.iter().map(|slot| (hash(slot, 1) % CELLS, hash(slot, 2) % (CELLS - 1) + 1)).collect();
    let mut taken = 0;
    while taken < CELLS {
        for (position, (next, step)) in (0..).zip(&mut walks) {
            while cells[*next].is_some() {
                *next = (*next + *step) % CELLS;
            }
            cells[*next] = Some(position);
            taken += 1;
            if taken == CELLS {
                break;
            }
        }
    }
    cells.into_iter().flatten().collect()
}

/// FNV-1a.
fn hash(slot: &SocketAddr, salt: u8) -> usize {
    let bytes = format!("{salt}{slot}");
    let hash = bytes.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) as usize
}
