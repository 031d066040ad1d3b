//! Facts of a network device, by netlink: `/sys` would show the devices of whatever namespace it was mounted in.

use rtnetlink::packet_route::RouteNetlinkMessage;
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
