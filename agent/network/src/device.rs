//! Facts of a network device, by netlink: `/sys` would show the devices of whatever namespace it was mounted in.

use std::net::IpAddr;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo};

use crate::Error;
use crate::link;
use crate::rtnl::Socket;

/// A device of the calling thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Index.
    pub index: u32,
    /// Hardware address; zero if it has none of six bytes.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u32,
    /// One end of a veth pair.
    pub veth: bool,
}

/// Looks a device up by name.
pub fn find(name: &str) -> Result<Device, Error> {
    let found = Socket::open()?.get(&format!("look up {name}"), link::by_name(name))?;
    let missing = || Error::NoDevice(name.to_owned());
    let Some(message @ RouteNetlinkMessage::NewLink(attributes)) = &found else { return Err(missing()) };
    let (index, _) = link::index_and_name(message).ok_or_else(missing)?;
    let mac = attributes.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let veth = attributes.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    Ok(Device { index, mac: mac.unwrap_or_default(), mtu: link::mtu(message).ok_or_else(missing)?, veth })
}

/// Every address of the calling thread's namespace that others can use (scope global), with the index of its device.
pub fn addresses() -> Result<Vec<(u32, IpAddr)>, Error> {
    let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = Socket::open()?.dump("list addresses", query)?;
    Ok(found.iter().filter_map(address).collect())
}

fn address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    // On a point-to-point device `Address` is the other end's; IPv6 has no `Local`.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    });
    Some((message.header.index, address?))
}
