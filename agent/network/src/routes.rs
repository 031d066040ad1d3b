//! Routes to other nodes' pods: each podCIDR by way of its node's address on the shared segment, or through the tunnel device if the node
//! is on another segment ([`NodeRoutes::way_to`] tells). For what the node's own stack sends; the data plane's programs have tables.
//!
//! `desired` decides, [`NodeRoutes`] makes the kernel's table equal to it. Only routes that carry our protocol mark are touched, so a
//! restarted agent removes what an earlier one left and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use abi::route::VNI_PODS;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteIpTunnel, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage,
    RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::Cidr;
use crate::link::ROUTE_PROTOCOL;
use crate::rtnl::{Mode, Request, RtnlError, Socket};

/// Metric of the route that ends packets to unused addresses of the node's own podCIDR; pods' own routes are longer anyway.
const UNREACHABLE_METRIC: u32 = 4096;

/// What routing needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoute {
    /// Node name.
    pub name: String,
    /// InternalIP addresses.
    pub addresses: Vec<IpAddr>,
    /// spec.podCIDRs.
    pub pod_cidrs: Vec<Cidr>,
    /// Where the node's tunnel ends, if it is on another segment.
    pub tunnel: Option<Ipv4Addr>,
}

/// How a podCIDR is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By a node on the shared segment.
    Node(IpAddr),
    /// In VXLAN to a node on another segment.
    Tunnel(Ipv4Addr),
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(address) => write!(f, "via {address}"),
            Self::Tunnel(address) => write!(f, "in a tunnel to {address}"),
        }
    }
}

/// How the kernel reaches an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// On a segment of this node (or it is this node's own).
    OnLink,
    /// By a router.
    Router(IpAddr),
}

/// The routes that a node named `own` needs. A CIDR whose node has neither a tunnel nor an address of its family has none.
pub fn desired(own: &str, nodes: &[NodeRoute]) -> BTreeMap<Cidr, Via> {
    let others = nodes.iter().filter(|node| node.name != own);
    others
        .flat_map(|node| {
            let via = |cidr: &Cidr| {
                let on_segment = || node.addresses.iter().find(|address| address.is_ipv4() == cidr.is_ipv4());
                node.tunnel.map(Via::Tunnel).or_else(|| on_segment().copied().map(Via::Node))
            };
            node.pod_cidrs.iter().filter_map(move |cidr| Some((*cidr, via(cidr)?)))
        })
        .collect()
}

/// The kernel's routes to other nodes, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct NodeRoutes {
    socket: Socket,
}

impl NodeRoutes {
    /// Opens the table.
    pub fn open() -> Result<Self, RtnlError> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Makes our routes to other nodes' pods equal to `desired`. Nothing is sent when they are. `tunnel` is the index of the tunnel device;
    /// without one, routes through it are left out.
    pub fn sync(&mut self, desired: &BTreeMap<Cidr, Via>, tunnel: Option<u32>) -> Result<(), RtnlError> {
        let current = self.current()?;
        let possible =
            desired.iter().filter_map(|(cidr, via)| Some((cidr, via, route(*cidr, *via, tunnel)?)));
        let added = possible.filter(|(cidr, via, _)| current.get(*cidr) != Some(*via));
        let removed = current.keys().filter(|cidr| !desired.contains_key(*cidr));
        let mut batch: Vec<Request> = removed.map(|cidr| delete(*cidr)).collect();
        batch.extend(added.map(|(cidr, via, message)| {
            Request::new(format!("route {cidr} {via}"), Mode::Replace, RouteNetlinkMessage::NewRoute(message))
        }));
        self.socket.execute(batch)
    }

    /// Our routes to other nodes' pods as the kernel has them.
    pub fn current(&mut self) -> Result<BTreeMap<Cidr, Via>, RtnlError> {
        let mut found = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for message in self.socket.dump("list routes", RouteNetlinkMessage::GetRoute(query))? {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    found.extend(ours(&route));
                }
            }
        }
        Ok(found)
    }

    /// How the kernel would send a packet to `address`; `None` if it knows no way.
    pub fn way_to(&mut self, address: IpAddr) -> Result<Option<Way>, RtnlError> {
        let query = RouteNetlinkMessage::GetRoute(unmarked(Cidr::host(address)));
        let found = match self.socket.get(&format!("look up the way to {address}"), query) {
            Ok(found) => found,
            Err(error) if error.is_unreachable() => None,
            Err(error) => return Err(error),
        };
        let Some(RouteNetlinkMessage::NewRoute(route)) = found else { return Ok(None) };
        let router = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            _ => None,
        });
        Ok(Some(router.map_or(Way::OnLink, Way::Router)))
    }
}

fn ours(route: &RouteMessage) -> Option<(Cidr, Via)> {
    if route.header.protocol != ROUTE_PROTOCOL {
        return None;
    }
    let mut destination = None;
    let mut via = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address).map(Via::Node),
            RouteAttribute::Encap(encap) => via = tunnel_end(encap).map(Via::Tunnel),
            _ => {}
        }
    }
    let cidr = Cidr::new(destination?, route.header.destination_prefix_length).ok()?;
    Some((cidr, via?))
}

fn tunnel_end(encap: &[RouteLwTunnelEncap]) -> Option<Ipv4Addr> {
    encap.iter().find_map(|part| match part {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(address)) => Some(*address),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// The route message; `None` for a tunnel without a device.
fn route(cidr: Cidr, via: Via, tunnel: Option<u32>) -> Option<RouteMessage> {
    let mut message = to(cidr);
    match via {
        Via::Node(address) => message.attributes.push(RouteAttribute::Gateway(address.into())),
        Via::Tunnel(end) => {
            message.header.scope = RouteScope::Link;
            let encap = [RouteIpTunnel::Id(u64::from(VNI_PODS)), RouteIpTunnel::Destination(end)];
            message.attributes.extend([
                RouteAttribute::EncapType(RouteLwEnCapType::Ip),
                RouteAttribute::Encap(encap.map(RouteLwTunnelEncap::Ip).to_vec()),
                RouteAttribute::Oif(tunnel?),
            ]);
        }
    }
    Some(message)
}

/// Whatever the route to `cidr` is, if it is ours.
fn delete(cidr: Cidr) -> Request {
    let mut message = to(cidr);
    message.header.scope = RouteScope::NoWhere;
    Request::new(format!("remove route to {cidr}"), Mode::IfExists, RouteNetlinkMessage::DelRoute(message))
}

/// Ends packets to addresses of the node's own podCIDR that no pod holds.
pub(crate) fn unreachable(cidr: Cidr) -> Request {
    let mut message = to(cidr);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(UNREACHABLE_METRIC));
    Request::new(
        format!("make the rest of {cidr} unreachable"),
        Mode::Replace,
        RouteNetlinkMessage::NewRoute(message),
    )
}

fn to(cidr: Cidr) -> RouteMessage {
    let mut message = unmarked(cidr);
    message.header.protocol = ROUTE_PROTOCOL;
    message
}

fn unmarked(cidr: Cidr) -> RouteMessage {
    let destination = RouteAttribute::Destination(cidr.base().into());
    let mut message = match cidr.base() {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    };
    message.header.destination_prefix_length = cidr.prefix();
    message.attributes.push(destination);
    message
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> NodeRoute {
        NodeRoute {
            name: name.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            tunnel: None,
        }
    }

    #[track_caller]
    fn check(nodes: &[NodeRoute], expected: &[&str]) {
        let routes = desired("a", nodes);
        let routes: Vec<String> = routes.iter().map(|(cidr, via)| format!("{cidr} {via}")).collect();
        assert_eq!(routes, expected);
    }

    #[test]
    fn each_pod_cidr_of_another_node_goes_by_its_address_of_the_same_family() {
        check(
            &[
                node("a", &["172.30.0.11", "fd30::11"], &["10.244.0.0/24", "fd00:10:244::/64"]),
                node("b", &["172.30.0.12", "fd30::12"], &["10.244.1.0/24", "fd00:10:244:1::/64"]),
            ],
            &["10.244.1.0/24 via 172.30.0.12", "fd00:10:244:1::/64 via fd30::12"],
        );
    }

    #[test]
    fn a_cidr_without_a_node_address_of_its_family_has_no_route() {
        check(
            &[node("b", &["172.30.0.12"], &["10.244.1.0/24", "fd00:10:244:1::/64"])],
            &["10.244.1.0/24 via 172.30.0.12"],
        );
        check(&[node("b", &[], &["10.244.1.0/24"])], &[]);
    }

    #[test]
    fn both_families_of_a_node_on_another_segment_go_through_its_tunnel() {
        let end = Ipv4Addr::new(172, 31, 0, 12);
        let far = node("b", &["172.31.0.12"], &["10.244.1.0/24", "fd00:10:244:1::/64"]);
        check(
            &[NodeRoute { tunnel: Some(end), ..far }],
            &["10.244.1.0/24 in a tunnel to 172.31.0.12", "fd00:10:244:1::/64 in a tunnel to 172.31.0.12"],
        );
    }
}
