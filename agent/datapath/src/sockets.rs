//! What the programs know of a connected socket: to find those that must end when their backend goes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use abi::socket::{ReversePair, SocketSlot, pair_flags};
use service::Family;

/// The backend that a connected socket was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketPair {
    /// None: no service led the socket anywhere.
    Free,
    /// This one.
    Pair {
        /// Family of its index.
        family: Family,
        /// Its index when the socket was connected.
        backend: u32,
        /// Its address.
        address: SocketAddr,
    },
    /// The place in the table belongs to another living socket.
    Unknown,
}

/// What the slot at a socket's place says of the socket with this cookie.
pub fn pair(slot: &SocketSlot, cookie: u64) -> SocketPair {
    match slot.cookie {
        0 => SocketPair::Free,
        owner if owner != cookie => SocketPair::Unknown,
        _ => {
            let ReversePair { backend, backend_port, index, flags, .. } = slot.pair;
            let address = match backend.as_mapped() {
                Some(address) => IpAddr::V4(address.into()),
                None => IpAddr::V6(Ipv6Addr::from(backend)),
            };
            let family = if flags & pair_flags::IPV6 == 0 { Family::V4 } else { Family::V6 };
            let address = SocketAddr::new(address, backend_port.host());
            SocketPair::Pair { family, backend: index, address }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use abi::{Ip6, Port};

    use super::*;

    #[test]
    fn a_slot_speaks_for_its_own_socket_only() {
        let four = "10.244.1.5".parse::<std::net::Ipv4Addr>().unwrap();
        let slot = |cookie, backend, flags| SocketSlot {
            cookie,
            pair: ReversePair {
                backend,
                backend_port: Port::from_host(53),
                index: 7,
                flags,
                ..Default::default()
            },
            ..SocketSlot::default()
        };
        let found = |family, address: &str| SocketPair::Pair {
            family,
            backend: 7,
            address: address.parse().unwrap(),
        };
        for (slot, expected) in [
            (slot(0, Ip6::mapped(four.into()), 0), SocketPair::Free),
            (slot(9, Ip6::mapped(four.into()), 0), SocketPair::Unknown),
            (slot(5, Ip6::mapped(four.into()), 0), found(Family::V4, "10.244.1.5:53")),
            (
                slot(5, "fd00::5".parse::<Ipv6Addr>().unwrap().into(), pair_flags::IPV6),
                found(Family::V6, "[fd00::5]:53"),
            ),
        ] {
            assert_eq!(pair(&slot, 5), expected, "{slot:?}");
        }
    }
}
