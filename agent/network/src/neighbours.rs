//! Hardware addresses of neighbours: asked for, and followed as they change.
//!
//! The data plane rewrites frames itself and needs the address of each node on the segment before the first packet. The kernel keeps
//! the entries alive (`NTF_EXT_MANAGED`: it resolves at once and again before they get old); this file asks and listens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{SocketFlags, SocketType, bind, socket_with};

use crate::link;
use crate::rtnl::{self, Mode, NETLINK_ROUTE, Request, RtnlError, Socket};

/// Multicast group of neighbour changes: bit of `RTNLGRP_NEIGH` (linux/rtnetlink.h).
const GROUP_NEIGH: u32 = 1 << 2;
/// `NDA_FLAGS_EXT` (linux/neighbour.h): flags beyond the header's eight bits.
const NDA_FLAGS_EXT: u16 = 15;
/// `NTF_EXT_MANAGED` (linux/neighbour.h, 5.16 or later): the kernel keeps the entry resolved by itself.
const NTF_EXT_MANAGED: u32 = 1;

/// What became known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address; `None` when it does not answer any more.
    pub mac: Option<[u8; 6]>,
}

/// Neighbours on one device, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Neighbours {
    socket: Socket,
    device: u32,
}

impl Neighbours {
    /// Opens the table of `device`, a name.
    pub fn open(device: &str) -> Result<Self, crate::Error> {
        let mut socket = Socket::open()?;
        let found = socket.get(&format!("look up {device}"), link::by_name(device))?;
        let index = found.as_ref().and_then(link::index_and_name).map(|(index, _)| index);
        Ok(Self { socket, device: index.ok_or_else(|| crate::Error::NoDevice(device.to_owned()))? })
    }

    /// Index of the device.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// Asks the kernel to resolve these addresses and to keep them resolved.
    pub fn manage(&mut self, addresses: &[IpAddr]) -> Result<(), RtnlError> {
        let device = self.device;
        self.socket.execute(addresses.iter().map(|address| managed(*address, device)).collect())
    }

    /// Leaves these addresses to fate again.
    pub fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), RtnlError> {
        let device = self.device;
        self.socket.execute(addresses.iter().map(|address| forgotten(*address, device)).collect())
    }

    /// Every neighbour of the device whose hardware address is known.
    pub fn known(&mut self) -> Result<HashMap<IpAddr, [u8; 6]>, RtnlError> {
        let mut known = HashMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = NeighbourMessage::default();
            query.header.family = family;
            for message in self.socket.dump("list neighbours", RouteNetlinkMessage::GetNeighbour(query))? {
                if let Some(Neighbour { address, mac: Some(mac) }) = decode(&message, self.device) {
                    known.insert(address, mac);
                }
            }
        }
        Ok(known)
    }

    /// Changes from now on. Call before [`Self::known`], so that nothing falls between.
    pub fn watch(&self) -> Result<Watch, RtnlError> {
        let fd = socket_with(
            rustix::net::AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            NETLINK_ROUTE,
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, GROUP_NEIGH))?;
        Ok(Watch { fd, device: self.device })
    }
}

/// A stream of neighbour changes; blocking, meant for a thread of its own.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    device: u32,
}

impl Watch {
    /// Waits for changes. `ENOBUFS` (changes were lost) comes back as an error: read [`Neighbours::known`] again, then go on.
    pub fn changes(&mut self) -> Result<Vec<Neighbour>, RtnlError> {
        let messages = rtnl::receive(&self.fd)?;
        let inner = messages.into_iter().filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(inner) => Some(inner),
            _ => None,
        });
        Ok(inner.filter_map(|message| decode(&message, self.device)).collect())
    }
}

fn decode(message: &RouteNetlinkMessage, device: u32) -> Option<Neighbour> {
    let (neighbour, gone) = match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => (neighbour, false),
        RouteNetlinkMessage::DelNeighbour(neighbour) => (neighbour, true),
        _ => return None,
    };
    if neighbour.header.ifindex != device {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &neighbour.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let lost = gone
        || matches!(
            neighbour.header.state,
            NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None
        );
    Some(Neighbour { address: address?, mac: if lost { None } else { mac } })
}

fn entry(address: IpAddr, device: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = device;
    message.header.state = NeighbourState::None;
    let destination = match address {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            message.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(v6)
        }
    };
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

fn forgotten(address: IpAddr, device: u32) -> Request {
    let message = RouteNetlinkMessage::DelNeighbour(entry(address, device));
    Request::new(format!("forget {address}"), Mode::IfExists, message)
}

/// The kernel keeps the state of an entry that exists; it only becomes managed.
fn managed(address: IpAddr, device: u32) -> Request {
    let mut message = entry(address, device);
    let flags =
        rtnetlink::packet_core::DefaultNla::new(NDA_FLAGS_EXT, NTF_EXT_MANAGED.to_ne_bytes().to_vec());
    message.attributes.push(NeighbourAttribute::Other(flags));
    Request::new(format!("resolve {address}"), Mode::Replace, RouteNetlinkMessage::NewNeighbour(message))
}
