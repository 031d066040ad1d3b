//! Rows of `service` as bytes of `abi`, and back. Pure. The types of the two families differ in their addresses only: [`Wire`] names those
//! of a family.

use std::net::IpAddr;

use abi::backend::{self, Backend4, Backend6};
use abi::frontend::{self, FrontendKey4, FrontendKey6, SCOPE_EXACT, SCOPE_NODE_PORT};
use abi::source::{self, SourceClient4, SourceClient6, SourceKey4, SourceKey6};
use abi::{Ip4, Ip6, Port, Proto};
use service::{Backend, BackendState, Family, Frontend, FrontendAddress, FrontendKey, Protocol};

use crate::table::Bytes;

/// The types of one family's tables.
pub trait Wire: 'static {
    /// An address.
    type Address: Bytes;
    /// Key of a frontend.
    type FrontendKey: FrontendBytes;
    /// A backend.
    type Backend: BackendBytes;
    /// Key of a source range.
    type SourceKey: SourceBytes;
}

/// IPv4.
#[derive(Debug)]
pub struct V4;

/// IPv6.
#[derive(Debug)]
pub struct V6;

impl Wire for V4 {
    type Address = Ip4;
    type FrontendKey = FrontendKey4;
    type Backend = Backend4;
    type SourceKey = SourceKey4;
}

impl Wire for V6 {
    type Address = Ip6;
    type FrontendKey = FrontendKey6;
    type Backend = Backend6;
    type SourceKey = SourceKey6;
}

/// What a row of the frontend table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontendRow {
    /// A frontend.
    Frontend(FrontendKey),
    /// A service address as such.
    Address(IpAddr),
}

/// Key of a frontend row.
pub trait FrontendBytes: Bytes {
    /// The bytes of a frontend's key; `None` for one of the other family.
    fn of(key: &FrontendKey) -> Option<Self>;
    /// The bytes of the key of an address as such.
    fn of_address(address: IpAddr) -> Option<Self>;
    /// What the key stands for; `None` for a protocol or scope that no row has.
    fn read(&self) -> Option<FrontendRow>;
}

macro_rules! frontend_key {
    ($key:ident, $family:ident, $icmp:ident $(, $zero:ident)?) => {
        impl FrontendBytes for $key {
            fn of(key: &FrontendKey) -> Option<Self> {
                let (addr, scope) = match key.address {
                    FrontendAddress::Exact(IpAddr::$family(address)) => (address.into(), SCOPE_EXACT),
                    FrontendAddress::NodePort(Family::$family) => (Default::default(), SCOPE_NODE_PORT),
                    _ => return None,
                };
                let (port, proto) = (Port::from_host(key.port), key.protocol.number());
                Some(Self { addr, port, proto, scope $(, $zero: 0)? })
            }

            fn of_address(address: IpAddr) -> Option<Self> {
                let IpAddr::$family(address) = address else { return None };
                Some(Self {
                    addr: address.into(),
                    proto: Proto::$icmp,
                    scope: SCOPE_EXACT,
                    ..Self::default()
                })
            }

            fn read(&self) -> Option<FrontendRow> {
                let exact = IpAddr::$family(self.addr.into());
                if *self == (Self { addr: self.addr, proto: Proto::$icmp, ..Self::default() }) {
                    return Some(FrontendRow::Address(exact));
                }
                let address = match self.scope {
                    SCOPE_EXACT => FrontendAddress::Exact(exact),
                    SCOPE_NODE_PORT => FrontendAddress::NodePort(Family::$family),
                    _ => return None,
                };
                let protocol = Protocol::from_number(self.proto)?;
                Some(FrontendRow::Frontend(FrontendKey { address, port: self.port.host(), protocol }))
            }
        }
    };
}

frontend_key!(FrontendKey4, V4, ICMP);
frontend_key!(FrontendKey6, V6, ICMP6, _pad);

/// A backend row.
pub trait BackendBytes: Bytes {
    /// The bytes of a backend; `None` for one of the other family.
    fn of(row: &Backend, generation: u16) -> Option<Self>;
    /// Address and port.
    fn endpoint(&self) -> (IpAddr, u16);
    /// One of the states of `abi::backend`, and the generation.
    fn life(&self) -> (u8, u16);
    /// The same row in another state and generation.
    fn with_life(self, state: u8, generation: u16) -> Self;
}

macro_rules! backend {
    ($row:ident, $family:ident) => {
        impl BackendBytes for $row {
            fn of(row: &Backend, generation: u16) -> Option<Self> {
                let IpAddr::$family(address) = row.address else { return None };
                Some(Self {
                    addr: address.into(),
                    port: Port::from_host(row.port),
                    state: state(row.state),
                    weight: row.weight,
                    generation,
                    node: row.node,
                    flags: flags(row),
                    ..Self::default()
                })
            }

            fn endpoint(&self) -> (IpAddr, u16) {
                (IpAddr::$family(self.addr.into()), self.port.host())
            }

            fn life(&self) -> (u8, u16) {
                (self.state, self.generation)
            }

            fn with_life(self, state: u8, generation: u16) -> Self {
                Self { state, generation, ..self }
            }
        }
    };
}

backend!(Backend4, V4);
backend!(Backend6, V6);

fn state(state: BackendState) -> u8 {
    match state {
        BackendState::Ready => backend::STATE_READY,
        BackendState::Terminating => backend::STATE_TERMINATING,
    }
}

fn flags(row: &Backend) -> u8 {
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    bit(row.local, backend::flags::LOCAL) | bit(row.host, backend::flags::HOST)
}

/// Key of a source range.
pub trait SourceBytes: Bytes {
    /// The bytes of a range of a service's clients; `None` for one of the other family.
    fn of(service: u32, base: IpAddr, prefix: u8) -> Option<Self>;
    /// Service id, base address and prefix length.
    fn read(&self) -> (u32, IpAddr, u8);
}

macro_rules! source {
    ($key:ident, $client:ident, $family:ident) => {
        impl SourceBytes for $key {
            fn of(service: u32, base: IpAddr, prefix: u8) -> Option<Self> {
                let IpAddr::$family(base) = base else { return None };
                let prefix_len = source::SERVICE_BITS + u32::from(prefix);
                Some(Self { prefix_len, client: $client { service, addr: base.into() } })
            }

            fn read(&self) -> (u32, IpAddr, u8) {
                let prefix = self.prefix_len.saturating_sub(source::SERVICE_BITS) as u8;
                (self.client.service, IpAddr::$family(self.client.addr.into()), prefix)
            }
        }
    };
}

source!(SourceKey4, SourceClient4, V4);
source!(SourceKey6, SourceClient6, V6);

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

/// The bytes of the row of a service address as such.
pub fn address_row() -> frontend::Frontend {
    frontend::Frontend { service: 0, flags: frontend::flags::VIP, _pad: 0 }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[track_caller]
    fn check_key<K: FrontendBytes>(address: FrontendAddress) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let key = FrontendKey { address, port: 30_080, protocol };
            assert_eq!(K::of(&key).unwrap().read(), Some(FrontendRow::Frontend(key)));
        }
    }

    #[test]
    fn frontend_keys_come_back_from_their_bytes() {
        check_key::<FrontendKey4>(FrontendAddress::Exact("10.96.0.1".parse().unwrap()));
        check_key::<FrontendKey4>(FrontendAddress::NodePort(Family::V4));
        check_key::<FrontendKey6>(FrontendAddress::Exact("fd00:10:96::1".parse().unwrap()));
        check_key::<FrontendKey6>(FrontendAddress::NodePort(Family::V6));
    }

    #[test]
    fn addresses_as_such_have_rows_of_their_own() {
        let (four, six) = ("10.96.0.1".parse().unwrap(), "fd00:10:96::1".parse().unwrap());
        assert_eq!(FrontendKey4::of_address(four).unwrap().read(), Some(FrontendRow::Address(four)));
        assert_eq!(FrontendKey6::of_address(six).unwrap().read(), Some(FrontendRow::Address(six)));
        assert_eq!(FrontendKey4::of_address(six), None);
        assert_eq!(address_row().flags, frontend::flags::VIP);
    }

    #[test]
    fn keys_of_other_protocols_and_scopes_stand_for_nothing() {
        for key in [
            FrontendKey4 { proto: Proto(47), ..Default::default() },
            FrontendKey4 { proto: Proto::TCP, scope: 9, ..Default::default() },
            FrontendKey4 { proto: Proto::ICMP, port: Port::from_host(1), ..Default::default() },
        ] {
            assert_eq!(key.read(), None, "{key:?}");
        }
    }

    #[test]
    fn source_ranges_count_their_bits_behind_the_service() {
        let (base, six) = ("192.0.2.0".parse().unwrap(), "2001:db8::".parse().unwrap());
        let key = SourceKey4::of(7, base, 24).unwrap();
        assert_eq!((key.prefix_len, key.read()), (56, (7, base, 24)));
        assert_eq!(SourceKey6::of(7, six, 32).unwrap().read(), (7, six, 32));
        assert_eq!(SourceKey4::of(7, six, 32), None);
    }

    #[test]
    fn frontend_flags_come_back_from_their_bytes() {
        for (external, source_ranges, node_port) in
            [(false, false, false), (true, true, false), (true, false, true)]
        {
            let row = Frontend { service: 9, external, source_ranges, node_port };
            assert_eq!(frontend_from(frontend(row)), row);
        }
    }
}
