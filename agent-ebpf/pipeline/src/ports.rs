//! Source ports of clients that are hidden behind this node's address.
//!
//! A port is taken by inserting the reverse entry of a pair, so it is taken towards one backend's address and port only; this
//! file proposes candidates: the client's own, then the CPU's next ones, then some spread over all ranges. It knows no table.

use abi::{Port, flow::flags};

use crate::{
    family::Family,
    flow::Opening,
    tables::{Common, Tables},
};

/// Candidates of the rotor, the client's own port aside.
const IN_TURN: u64 = 2;
/// Candidates spread over the ranges.
const SPREAD: u64 = 4;
/// Candidates for one new connection. As wide as a register, so that the verifier still knows a loop's counter when it comes
/// back from the stack.
pub const ATTEMPTS: u64 = 1 + IN_TURN + SPREAD;

/// CPUs that start at places of their own.
const STRIPES: u32 = 16;

/// The two ranges as one: offsets below `low` are in the first.
#[derive(Clone, Copy)]
struct Ranges {
    first: u32,
    low: u32,
    high_first: u32,
    total: u32,
}

impl Ranges {
    #[inline(always)]
    fn of<T: Common>(tables: T) -> Self {
        let config = tables.config();
        let count = |first: u16, last: u16| {
            if last < first { 0 } else { u32::from(last) - u32::from(first) + 1 }
        };
        let low = count(config.snat_port_first, config.snat_port_last);
        let total = low + count(config.snat_high_first, config.snat_high_last);
        Self {
            first: u32::from(config.snat_port_first),
            low,
            high_first: u32::from(config.snat_high_first),
            total,
        }
    }

    /// The port at an offset, which is taken modulo the number of ports.
    #[inline(always)]
    fn port(self, offset: u32) -> Port {
        let offset = if self.total == 0 { 0 } else { offset % self.total };
        let number =
            if offset < self.low { self.first + offset } else { self.high_first + (offset - self.low) };
        Port::from_host(number as u16)
    }
}

/// Whether a port (as a number) may belong to a translated client.
#[inline(always)]
pub fn ours<T: Common>(tables: T, port: u16) -> bool {
    let config = tables.config();
    (port >= config.snat_port_first && port <= config.snat_port_last)
        || (port >= config.snat_high_first && port <= config.snat_high_last)
}

/// The client's own source port, unless the client is hidden behind this node's address and its port is outside the ranges
/// by which replies are recognised.
#[inline(always)]
pub fn first<F: Family, T: Tables<F>>(tables: T, opening: &Opening<F>) -> Port {
    if opening.flags & flags::SNAT == 0 || ours(tables, opening.client.sport.host()) {
        opening.client.sport
    } else {
        next::<F, T>(tables, opening, 0)
    }
}

/// Another source port after `attempt` (from 0) was taken. Ports free up in about the order in which they were taken, so each
/// CPU takes them in turn, from a place of its own on; when those are taken, the ranges are probed in even steps from a random
/// place on.
#[inline(never)]
pub fn next<F: Family, T: Tables<F>>(tables: T, opening: &Opening<F>, attempt: u64) -> Port {
    let ranges = Ranges::of(tables);
    if attempt < IN_TURN {
        let start = (tables.cpu() % STRIPES) * (ranges.total / STRIPES);
        return ranges.port(start.wrapping_add(tables.rotor(opening.backend) & 0xffff));
    }
    let step = ranges.total / SPREAD as u32;
    let step = if step == 0 { 1 } else { step };
    // One draw for each probe: what counts is that the steps differ, and a draw needs no room between calls.
    ranges.port((tables.random() & 0xffff) % step + attempt as u32 * step)
}
