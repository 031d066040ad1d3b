//! Rows of `service` as bytes of `abi`, and back. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::backend::{self, Backend4, Backend6};
use abi::frontend::{self, FrontendKey4, FrontendKey6, SCOPE_EXACT, SCOPE_NODE_PORT};
use abi::{Ip4, Ip6, Port};
use service::{Backend, BackendState, Family, Frontend, FrontendAddress, FrontendKey, Protocol};

/// A frontend key in its family.
pub enum Key {
    /// IPv4.
    V4(FrontendKey4),
    /// IPv6.
    V6(FrontendKey6),
}

/// The bytes of a frontend key.
pub fn key(key: &FrontendKey) -> Key {
    let (port, proto) = (Port::from_host(key.port), key.protocol.number());
    let v4 = |addr, scope| Key::V4(FrontendKey4 { addr, port, proto, scope });
    let v6 = |addr, scope| Key::V6(FrontendKey6 { addr, port, proto, scope, _pad: 0 });
    match key.address {
        FrontendAddress::Exact(IpAddr::V4(address)) => v4(address.into(), SCOPE_EXACT),
        FrontendAddress::Exact(IpAddr::V6(address)) => v6(address.into(), SCOPE_EXACT),
        FrontendAddress::NodePort(Family::V4) => v4(Ip4::default(), SCOPE_NODE_PORT),
        FrontendAddress::NodePort(Family::V6) => v6(Ip6::default(), SCOPE_NODE_PORT),
    }
}

/// What an IPv4 key stands for; `None` for a protocol or scope that no service has.
pub fn key_from_v4(key: &FrontendKey4) -> Option<FrontendKey> {
    let address = match key.scope {
        SCOPE_EXACT => FrontendAddress::Exact(Ipv4Addr::from(key.addr).into()),
        SCOPE_NODE_PORT => FrontendAddress::NodePort(Family::V4),
        _ => return None,
    };
    Some(FrontendKey { address, port: key.port.host(), protocol: Protocol::from_number(key.proto)? })
}

/// What an IPv6 key stands for.
pub fn key_from_v6(key: &FrontendKey6) -> Option<FrontendKey> {
    let address = match key.scope {
        SCOPE_EXACT => FrontendAddress::Exact(Ipv6Addr::from(key.addr).into()),
        SCOPE_NODE_PORT => FrontendAddress::NodePort(Family::V6),
        _ => return None,
    };
    Some(FrontendKey { address, port: key.port.host(), protocol: Protocol::from_number(key.proto)? })
}

/// The bytes of a frontend.
pub fn frontend(row: Frontend) -> frontend::Frontend {
    let bit = |on: bool, bit: u16| if on { bit } else { 0 };
    frontend::Frontend {
        service: row.service,
        flags: bit(row.external, frontend::flags::EXTERNAL)
            | bit(row.source_ranges, frontend::flags::SOURCE_RANGES)
            | bit(row.node_port, frontend::flags::NODE_PORT),
        _pad: 0,
    }
}

/// The frontend that these bytes say.
pub fn frontend_from(row: frontend::Frontend) -> Frontend {
    let has = |bit: u16| row.flags & bit != 0;
    Frontend {
        service: row.service,
        external: has(frontend::flags::EXTERNAL),
        source_ranges: has(frontend::flags::SOURCE_RANGES),
        node_port: has(frontend::flags::NODE_PORT),
    }
}

/// What both families' backend rows share.
struct Common {
    state: u8,
    flags: u8,
}

fn common(row: &Backend) -> Common {
    let state = match row.state {
        BackendState::Ready => backend::STATE_READY,
        BackendState::Terminating => backend::STATE_TERMINATING,
    };
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    Common { state, flags: bit(row.local, backend::flags::LOCAL) | bit(row.host, backend::flags::HOST) }
}

/// The bytes of an IPv4 backend.
pub fn backend4(row: &Backend, addr: Ipv4Addr, generation: u16) -> Backend4 {
    let Common { state, flags } = common(row);
    let port = Port::from_host(row.port);
    Backend4 {
        addr: addr.into(),
        port,
        state,
        weight: row.weight,
        generation,
        node: row.node,
        zone: 0,
        flags,
        _pad: 0,
    }
}

/// The bytes of an IPv6 backend.
pub fn backend6(row: &Backend, addr: Ipv6Addr, generation: u16) -> Backend6 {
    let Common { state, flags } = common(row);
    let port = Port::from_host(row.port);
    Backend6 {
        addr: addr.into(),
        port,
        state,
        weight: row.weight,
        generation,
        node: row.node,
        zone: 0,
        flags,
        _pad: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn frontend_keys_come_back_from_their_bytes() {
        for address in [
            FrontendAddress::Exact("10.96.0.1".parse().unwrap()),
            FrontendAddress::Exact("fd00:10:96::1".parse().unwrap()),
            FrontendAddress::NodePort(Family::V4),
            FrontendAddress::NodePort(Family::V6),
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let original = FrontendKey { address, port: 30_080, protocol };
                let back = match key(&original) {
                    Key::V4(bytes) => key_from_v4(&bytes),
                    Key::V6(bytes) => key_from_v6(&bytes),
                };
                assert_eq!(back, Some(original));
            }
        }
    }

    #[test]
    fn keys_of_other_protocols_stand_for_nothing() {
        assert_eq!(key_from_v4(&FrontendKey4 { proto: abi::Proto::ICMP, ..Default::default() }), None);
        assert_eq!(
            key_from_v4(&FrontendKey4 { proto: abi::Proto::TCP, scope: 9, ..Default::default() }),
            None
        );
    }
}
