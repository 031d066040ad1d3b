//! The device to nodes on other segments: one VXLAN device (RFC 7348) for all of them, whose packets each say where they go.
//!
//! The data plane's programs name the other end of a packet's tunnel; the routes of [`crate::routes`] do for what the stack sends. Who is
//! behind a tunnel is not decided here.
//!
//! Every node's device has a hardware address of its own: the kernel takes a frame that carries the receiving device's as its source for
//! a loop (`vxlan_set_mac`). It asks for no neighbour (`IFF_NOARP`): a frame carries the sender's own address as its destination, and the
//! program at the receiving device's ingress takes whatever comes.

use std::net::Ipv4Addr;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, InfoVxlan};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use crate::device::{self, Device};
use crate::link;
use crate::rtnl::{Mode, Request, Socket};
use crate::{Error, sysctl};

/// Name of the device.
pub const DEVICE: &str = "blvx0";
/// Bytes that the programs' tunnel adds to a packet.
pub const OVERHEAD: u32 = abi::route::TUNNEL_OVERHEAD as u32;

/// Hardware address of the device of the node with this address: locally administered, unicast.
pub fn mac(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x02, 0x62, a, b, c, d]
}

/// Makes sure that the device exists in the calling thread's namespace, is up, and is as the node with address `node` on a segment with
/// this MTU needs it. One that differs (the node got another address) is made anew.
pub fn ensure(node: Ipv4Addr, segment_mtu: u32) -> Result<Device, Error> {
    let (mac, mtu) = (mac(node), segment_mtu.saturating_sub(OVERHEAD));
    let mut socket = Socket::open()?;
    match device::find(DEVICE) {
        Ok(found) if (found.mac, found.mtu) == (mac, mtu) => {
            socket.execute(vec![link::up(DEVICE, found.index)])?;
            return Ok(found);
        }
        Ok(other) => socket.execute(vec![link::delete(DEVICE, other.index)])?,
        Err(Error::NoDevice(_)) => {}
        Err(error) => return Err(error),
    }
    let message = LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan)
        .name(DEVICE.to_owned())
        .address(mac.to_vec())
        .mtu(mtu)
        .arp(false)
        .append_info_data(InfoVxlan::CollectMetadata(true))
        .append_info_data(InfoVxlan::Learning(false))
        .append_info_data(InfoVxlan::Port(abi::route::VXLAN_PORT))
        .build();
    let purpose = format!("create {DEVICE}");
    socket.execute(vec![Request::new(purpose, Mode::Create, RouteNetlinkMessage::NewLink(message))])?;
    let made = device::find(DEVICE)?;
    // What comes out of the tunnel has sources that no route leads back to by this device.
    sysctl::apply(&[("net/ipv4/conf/blvx0/rp_filter", "0")]).map_err(Error::Sysctl)?;
    socket.execute(vec![link::no_link_local(DEVICE, made.index), link::up(DEVICE, made.index)])?;
    Ok(made)
}

/// Deletes the device, if there is one: no node needs it any more.
pub fn remove() -> Result<(), Error> {
    match device::find(DEVICE) {
        Ok(found) => Ok(Socket::open()?.execute(vec![link::delete(DEVICE, found.index)])?),
        Err(Error::NoDevice(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_differ_between_nodes_and_are_local_unicast() {
        let (one, other) = (mac(Ipv4Addr::new(172, 30, 0, 11)), mac(Ipv4Addr::new(172, 30, 0, 12)));
        assert_ne!(one, other);
        assert_eq!(one[0] & 0b11, 0b10);
    }
}
