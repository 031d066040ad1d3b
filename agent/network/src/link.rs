//! The messages that make one pod's interface: names, hardware addresses, and the three batches (birth, pod side, host side).
//!
//! Pure: nothing is sent here. Everything is derived from the pod's uid, so that recovery needs no record of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::rtnl::{Mode, Request};
use crate::{Cidr, PodInterface};

/// Name of the interface inside every pod.
pub const POD_IFNAME: &str = "eth0";
/// What the host-side names of pod interfaces start with.
pub const HOST_PREFIX: &str = "blp";
/// Hardware address of the host end of every pod's veth. The ends never share a segment, so one address serves all and the
/// gateway's neighbour entry in a pod never changes.
pub const HOST_MAC: [u8; 6] = [0x02, 0xbe, 0xe1, 0x00, 0x00, 0x01];
/// The gateway of every pod, IPv4: link-local, held by no interface (RFC 3927).
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod, IPv6.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Marks our routes in the kernel's table, so that a later agent finds its own (values above 191 are free for applications).
pub const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(0xbe);

/// The host-side interface name of the pod with this uid: 14 characters, within `IFNAMSIZ`.
pub fn host_ifname(uid: &str) -> String {
    format!("{HOST_PREFIX}{:011x}", fnv1a(uid) & 0xfff_ffff_ffff)
}

/// The hardware address of the pod's end: locally administered, unicast.
pub fn pod_mac(uid: &str) -> [u8; 6] {
    let hash = fnv1a(uid).to_be_bytes();
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// FNV-1a, 64 bit: stable across builds and machines, which the standard hasher does not promise.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Creates the pair: the host end here, down; the pod end inside `netns` from its first moment.
pub fn birth(uid: &str, netns: BorrowedFd<'_>, mtu: u32) -> Request {
    let peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name(POD_IFNAME)
        .address(pod_mac(uid).to_vec())
        .mtu(mtu)
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(host_ifname(uid))
        .address(HOST_MAC.to_vec())
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    Request::new(
        format!("create veth {}", host_ifname(uid)),
        Mode::Create,
        RouteNetlinkMessage::NewLink(host),
    )
}

/// The host end routes and needs no address of its own; without a link-local one there is no duplicate detection either. A message of
/// its own, since the kernel applies these attributes only to a link that exists, and after its flags.
pub(crate) fn no_link_local(name: &str, index: u32) -> Request {
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkMessageBuilder::<LinkUnspec>::default().index(index);
    let message = message.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode])).build();
    Request::new(
        format!("keep {name} without an address"),
        Mode::IfExists,
        RouteNetlinkMessage::SetLink(message),
    )
}

/// What is done inside the pod's namespace; `lo` and `eth0` are the indexes there.
pub fn pod_side(addresses: &[IpAddr], lo: u32, eth0: u32) -> Vec<Request> {
    let mut batch = vec![up("lo", lo), up(POD_IFNAME, eth0)];
    for address in addresses {
        batch.push(add_address(*address, eth0));
        batch.extend(default_route(address.is_ipv4(), eth0));
    }
    batch
}

/// What is done on the host side, last: routes and neighbours of the pod, and the interface comes up.
pub fn host_side(interface: &PodInterface) -> Vec<Request> {
    let mut batch = vec![
        no_link_local(&interface.host_ifname, interface.host_ifindex),
        up(&interface.host_ifname, interface.host_ifindex),
    ];
    for address in &interface.addresses {
        batch.push(neighbour(*address, interface.host_ifindex, interface.pod_mac));
        batch.push(Request::new(
            format!("route {address} to {}", interface.host_ifname),
            Mode::Replace,
            RouteNetlinkMessage::NewRoute(host_route(*address, interface.host_ifindex)),
        ));
    }
    batch
}

/// Takes the pod's routes away, whether or not its interface still exists.
pub fn remove_host_routes(interface: &PodInterface) -> Vec<Request> {
    let remove = |address: &IpAddr| {
        let message = RouteNetlinkMessage::DelRoute(host_route(*address, interface.host_ifindex));
        Request::new(format!("remove route to {address}"), Mode::IfExists, message)
    };
    interface.addresses.iter().map(remove).collect()
}

/// Deletes a link by index.
pub fn delete(name: &str, index: u32) -> Request {
    let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).build();
    Request::new(format!("delete link {name}"), Mode::IfExists, RouteNetlinkMessage::DelLink(message))
}

/// Asks for a link by name.
pub fn by_name(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessageBuilder::<LinkUnspec>::default().name(name).build())
}

/// Asks for all links.
pub fn all() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// The index and name of a link message.
pub fn index_and_name(message: &RouteNetlinkMessage) -> Option<(u32, &str)> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })?;
    Some((link.header.index, name))
}

/// The MTU in a link message.
pub fn mtu(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

pub(crate) fn up(name: &str, index: u32) -> Request {
    let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
    Request::new(format!("set {name} up"), Mode::Existing, RouteNetlinkMessage::SetLink(message))
}

fn add_address(address: IpAddr, index: u32) -> Request {
    let host = Cidr::host(address);
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = host.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent),
    ];
    Request::new(format!("add address {address}"), Mode::Replace, RouteNetlinkMessage::NewAddress(message))
}

fn default_route(is_ipv4: bool, index: u32) -> Vec<Request> {
    let add =
        |purpose: &str, message| Request::new(purpose, Mode::Replace, RouteNetlinkMessage::NewRoute(message));
    if is_ipv4 {
        let on_link =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(GATEWAY4, 32).output_interface(index);
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY4).output_interface(index);
        vec![
            add("add IPv4 gateway route", on_link.scope(RouteScope::Link).build()),
            add("add IPv4 default route", default.build()),
            neighbour(GATEWAY4.into(), index, HOST_MAC),
        ]
    } else {
        let default = RouteMessageBuilder::<Ipv6Addr>::new().gateway(GATEWAY6).output_interface(index);
        vec![neighbour(GATEWAY6.into(), index, HOST_MAC), add("add IPv6 default route", default.build())]
    }
}

fn host_route(address: IpAddr, index: u32) -> RouteMessage {
    let prefix = Cidr::host(address).prefix();
    match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, prefix)
            .output_interface(index)
            .scope(RouteScope::Link)
            .protocol(ROUTE_PROTOCOL)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, prefix)
            .output_interface(index)
            .protocol(ROUTE_PROTOCOL)
            .build(),
    }
}

fn neighbour(address: IpAddr, index: u32, mac: [u8; 6]) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    Request::new(
        format!("add neighbour {address}"),
        Mode::Replace,
        RouteNetlinkMessage::NewNeighbour(message),
    )
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hardware_addresses_follow_from_the_uid_and_fit() {
        let uid = "0c2a8b62-5c1e-4c6f-9d11-9a6fd0b3f3aa";
        assert_eq!(host_ifname(uid), host_ifname(uid));
        assert_eq!(host_ifname(uid).len(), 14);
        assert_ne!(host_ifname(uid), host_ifname("0c2a8b62-5c1e-4c6f-9d11-9a6fd0b3f3ab"));
        let mac = pod_mac(uid);
        assert_eq!(mac[0] & 0b11, 0b10, "locally administered and unicast");
        assert_ne!(mac, HOST_MAC);
    }
}
