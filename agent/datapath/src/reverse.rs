//! What a socket's storage says of its backends: to find the sockets that must be destroyed when a backend goes.

use std::net::{IpAddr, SocketAddr};

use abi::socket::{ReversePair, SocketReverse, pair_flags};
use abi::{Ip6, zerocopy};
use service::Family;

/// Whether a socket's storage (the bytes of a value of `abi::maps::SKREV`) names this backend: index, family and address. An index alone
/// may stand for another backend by now, an address for a pod that the socket reached without a service.
pub fn names(value: &[u8], family: Family, backend: u32, remote: SocketAddr) -> bool {
    let Ok((storage, _)) = <SocketReverse as zerocopy::FromBytes>::read_from_prefix(value) else {
        return false;
    };
    let address = match remote.ip() {
        IpAddr::V4(address) => Ip6::mapped(address.into()),
        IpAddr::V6(address) => address.into(),
    };
    let names = |pair: &ReversePair| {
        pair.index == backend
            && (pair.flags & pair_flags::IPV6 != 0) == (family == Family::V6)
            && pair.backend == address
            && pair.backend_port.host() == remote.port()
    };
    storage.pairs.iter().any(names)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use abi::Port;
    use abi::zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_socket_is_found_by_the_backend_that_it_talks_to() {
        let mut storage = SocketReverse::default();
        storage.pairs[1] = ReversePair {
            backend: Ip6::mapped("10.244.1.5".parse::<std::net::Ipv4Addr>().unwrap().into()),
            backend_port: Port::from_host(53),
            index: 7,
            ..ReversePair::default()
        };
        let value = storage.as_bytes();
        for (family, backend, remote, expected) in [
            (Family::V4, 7, "10.244.1.5:53", true),
            (Family::V4, 8, "10.244.1.5:53", false),
            (Family::V6, 7, "10.244.1.5:53", false),
            (Family::V4, 7, "10.244.1.5:54", false),
            (Family::V4, 7, "10.244.1.6:53", false),
        ] {
            assert_eq!(
                names(value, family, backend, remote.parse().unwrap()),
                expected,
                "{backend} {remote}"
            );
        }
        assert!(!names(&[0; 4], Family::V4, 0, "0.0.0.0:0".parse().unwrap()));
    }
}
