//! Socket load balancing: a service address is replaced by a backend's when the socket is connected or sends, so that
//! nothing is left to do for each packet.
//!
//! The reverse side (`getpeername`, `recvmsg`) is a search in the socket's own [`SocketReverse`].

use abi::{
    Ip6, Port, Proto, Reason,
    socket::{PAIRS, ReversePair, SocketReverse},
};

use crate::{
    family::{Backend, Family},
    service::{self, Client, Lookup},
    tables::Tables,
};

/// What becomes of a socket call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<F: Family> {
    /// Not a service's address: leave the call alone.
    Leave,
    /// Use this backend instead; the number is the service's id.
    Use(Backend<F>, u32),
    /// Fail with ECONNREFUSED: no endpoint anywhere, or no such port.
    Refuse,
    /// Fail with EHOSTUNREACH: a policy is Local and no endpoint is on this node.
    Unreachable,
}

/// Decides a `connect` or `sendmsg`. `host` says whether the socket is in the node's own network namespace, where
/// loopback serves node ports.
#[inline(always)]
pub fn balance<F: Family, T: Tables<F>>(
    tables: T,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    host: bool,
) -> Outcome<F> {
    let place = F::place(tables.config(), addr);
    let frontend = match service::lookup::<F, T>(tables, place, addr, port, proto, host) {
        Lookup::NotOurs => return Outcome::Leave,
        Lookup::Unserved => {
            tables.count_drop(Reason::NoService);
            return Outcome::Refuse;
        }
        Lookup::Found(frontend) => frontend,
    };
    match service::select::<F, T>(tables, frontend, Client::OnNode) {
        Ok(choice) => {
            tables.count(frontend.service, |c| c.connects = c.connects.wrapping_add(1));
            Outcome::Use(choice.backend, frontend.service)
        }
        Err(reason) => {
            tables.count_drop(reason);
            tables.count(frontend.service, |c| c.rejected = c.rejected.wrapping_add(1));
            if reason as u8 == Reason::NoEndpoint as u8 { Outcome::Refuse } else { Outcome::Unreachable }
        }
    }
}

/// Remembers a pair, over the same backend's older one or over the oldest.
#[inline(always)]
pub fn remember(reverse: &mut SocketReverse, pair: ReversePair) {
    for i in 0..PAIRS {
        let old = &mut reverse.pairs[i];
        if old.backend_port == pair.backend_port && old.backend == pair.backend {
            *old = pair;
            return;
        }
    }
    let next = reverse.next as usize & (PAIRS - 1);
    reverse.pairs[next] = pair;
    reverse.next = (next as u32).wrapping_add(1);
}

/// The service address that `addr` and `port` stand for.
#[inline(always)]
pub fn recall(reverse: &SocketReverse, addr: Ip6, port: Port) -> Option<(Ip6, Port)> {
    if port.0 == 0 {
        return None;
    }
    for i in 0..PAIRS {
        let pair = &reverse.pairs[i];
        if pair.backend_port == port && pair.backend == addr {
            return Some((pair.frontend, pair.frontend_port));
        }
    }
    None
}
