//! Socket load balancing: a service address is replaced by a backend's when the socket is connected or sends, so that
//! nothing is left to do for each packet.
//!
//! The reverse side (`getpeername`, `recvmsg`) is a search in the socket's own [`SocketReverse`]. So is the choice of a socket
//! that sends without being connected: its datagrams keep their backend as long as that one lives, as they would behind a
//! connection tracker.

use abi::{
    Ip6, Port, Proto, Reason,
    frontend::flags,
    socket::{PAIRS, ReversePair, SocketReverse},
};

use crate::{
    affinity::Origin,
    family::Family,
    service::{self, Choice, Client, Lookup, Reach},
    tables::Tables,
};

/// What becomes of a socket call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<F: Family> {
    /// Not a service's address: leave the call alone.
    Leave,
    /// Use this backend instead.
    Use(Choice<F>),
    /// Fail with ECONNREFUSED: no endpoint anywhere, or no such port.
    Refuse,
    /// Fail with EHOSTUNREACH: a policy is Local and no endpoint is on this node, the client is in none of the service's source
    /// ranges, or nobody has the address.
    Unreachable,
}

/// Decides a `connect` or `sendmsg` of a socket in the network namespace with the cookie `netns`. In the node's own one
/// loopback serves node ports.
#[inline(always)]
pub fn balance<F: Family, T: Tables<F>>(
    tables: T,
    addr: F::Addr,
    port: Port,
    proto: Proto,
    netns: u64,
) -> Outcome<F> {
    if !matches!(proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
        return Outcome::Leave;
    }
    let host = netns != 0 && netns == tables.config().netns_cookie;
    let place = F::place(tables.config(), addr);
    let reach = if host { Reach::Loopback } else { Reach::Own };
    let frontend = match service::lookup::<F, T>(tables, place, addr, port, proto, reach) {
        Lookup::NotOurs => return Outcome::Leave,
        Lookup::Unallocated => {
            tables.count_drop(Reason::NoService);
            return Outcome::Unreachable;
        }
        Lookup::Unserved => {
            tables.count_drop(Reason::NoService);
            return Outcome::Refuse;
        }
        Lookup::Found(frontend) => frontend,
    };
    if frontend.flags & flags::SOURCE_RANGES != 0 {
        if !host {
            // A pod's source address is not known yet. Its packets show it, and are balanced instead.
            return Outcome::Leave;
        }
        if !service::admits::<F, T>(tables, frontend, F::snat(tables.config())) {
            tables.count_drop(Reason::SourceRange);
            return Outcome::Unreachable;
        }
    }
    match service::select::<F, T>(tables, frontend, Client::OnNode, Origin::Namespace(netns)) {
        Ok(choice) => {
            tables.count(frontend.service, |c| c.connects = c.connects.wrapping_add(1));
            Outcome::Use(choice)
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
        let known = stands_for(&reverse.pairs[i], addr, port);
        if known.is_some() {
            return known;
        }
    }
    None
}

/// The service address of the pair, if `addr` and `port` are its backend's.
#[inline(always)]
pub fn stands_for(pair: &ReversePair, addr: Ip6, port: Port) -> Option<(Ip6, Port)> {
    if pair.backend_port == port && pair.backend == addr {
        Some((pair.frontend, pair.frontend_port))
    } else {
        None
    }
}

/// The backend by which the socket has used a service address before, if it is still the one it was.
#[inline(always)]
pub fn kept<F: Family, T: Tables<F>>(
    tables: T,
    reverse: &SocketReverse,
    frontend: Ip6,
    port: Port,
) -> Option<(Ip6, Port)> {
    for i in 0..PAIRS {
        let known = lasts::<F, T>(tables, &reverse.pairs[i], frontend, port);
        if known.is_some() {
            return known;
        }
    }
    None
}

/// The pair's backend, if the pair stands for this service address and its backend is still the one it was.
#[inline(always)]
pub fn lasts<F: Family, T: Tables<F>>(
    tables: T,
    pair: &ReversePair,
    frontend: Ip6,
    port: Port,
) -> Option<(Ip6, Port)> {
    let matches = pair.frontend_port == port && pair.backend_port.0 != 0 && pair.frontend == frontend;
    if matches && tables.generation(pair.index) == pair.generation {
        Some((pair.backend, pair.backend_port))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use abi::Ip4;

    use super::*;

    fn pair(backend: u32, frontend: u32) -> ReversePair {
        ReversePair {
            backend: Ip6::mapped(Ip4(backend)),
            frontend: Ip6::mapped(Ip4(frontend)),
            backend_port: Port::from_host(8080),
            frontend_port: Port::from_host(80),
            index: backend,
            generation: 0,
            flags: 0,
            _pad: [0; 2],
        }
    }

    fn known(reverse: &SocketReverse, backend: u32) -> Option<Ip6> {
        recall(reverse, Ip6::mapped(Ip4(backend)), Port::from_host(8080)).map(|(addr, _)| addr)
    }

    #[test]
    fn a_socket_remembers_its_last_pairs_and_a_backend_only_once() {
        let mut reverse = SocketReverse::default();
        for backend in 1..=5 {
            remember(&mut reverse, pair(backend, 100 + backend));
        }
        assert_eq!(known(&reverse, 1), None, "the oldest of five has made room");
        for backend in 2..=5 {
            assert_eq!(known(&reverse, backend), Some(Ip6::mapped(Ip4(100 + backend))));
        }
        remember(&mut reverse, pair(3, 999));
        assert_eq!(known(&reverse, 3), Some(Ip6::mapped(Ip4(999))));
        assert_eq!(known(&reverse, 4), Some(Ip6::mapped(Ip4(104))), "nobody else had to go");
    }

    #[test]
    fn an_empty_pair_stands_for_nothing() {
        let reverse = SocketReverse::default();
        assert_eq!(recall(&reverse, Ip6::default(), Port(0)), None);
    }
}
