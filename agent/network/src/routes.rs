//! Routes to other nodes' pods: each podCIDR by way of its node's address on the shared segment.
//!
//! `desired` decides, [`NodeRoutes`] makes the kernel's table equal to it. Only routes that carry our protocol mark are touched, so a
//! restarted agent removes what an earlier one left and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
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
}

/// The routes that a node named `own` needs: podCIDR to gateway. A CIDR whose node has no address of its family has none.
pub fn desired(own: &str, nodes: &[NodeRoute]) -> BTreeMap<Cidr, IpAddr> {
    let others = nodes.iter().filter(|node| node.name != own);
    others
        .flat_map(|node| {
            let gateway = |cidr: &Cidr| {
                node.addresses.iter().find(|address| address.is_ipv4() == cidr.is_ipv4()).copied()
            };
            node.pod_cidrs.iter().filter_map(move |cidr| Some((*cidr, gateway(cidr)?)))
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

    /// Makes our gateway routes equal to `desired`. Nothing is sent when they are.
    pub fn sync(&mut self, desired: &BTreeMap<Cidr, IpAddr>) -> Result<(), RtnlError> {
        let current = self.current()?;
        let added = desired.iter().filter(|(cidr, gateway)| current.get(*cidr) != Some(*gateway));
        let removed = current.iter().filter(|(cidr, _)| !desired.contains_key(*cidr));
        let mut batch: Vec<Request> = removed.map(|(cidr, gateway)| delete(*cidr, *gateway)).collect();
        batch.extend(added.map(|(cidr, gateway)| {
            let message = RouteNetlinkMessage::NewRoute(via(*cidr, *gateway));
            Request::new(format!("route {cidr} via {gateway}"), Mode::Replace, message)
        }));
        self.socket.execute(batch)
    }

    /// Our gateway routes as the kernel has them.
    pub fn current(&mut self) -> Result<BTreeMap<Cidr, IpAddr>, RtnlError> {
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
}

fn ours(route: &RouteMessage) -> Option<(Cidr, IpAddr)> {
    if route.header.protocol != ROUTE_PROTOCOL {
        return None;
    }
    let mut destination = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            _ => {}
        }
    }
    let cidr = Cidr::new(destination?, route.header.destination_prefix_length).ok()?;
    Some((cidr, gateway?))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn via(cidr: Cidr, gateway: IpAddr) -> RouteMessage {
    let mut message = to(cidr);
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    message
}

fn delete(cidr: Cidr, gateway: IpAddr) -> Request {
    Request::new(
        format!("remove route to {cidr}"),
        Mode::IfExists,
        RouteNetlinkMessage::DelRoute(via(cidr, gateway)),
    )
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
    let destination = RouteAttribute::Destination(cidr.base().into());
    let mut message = match cidr.base() {
        IpAddr::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().protocol(ROUTE_PROTOCOL).build(),
        IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().protocol(ROUTE_PROTOCOL).build(),
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
        }
    }

    #[track_caller]
    fn check(nodes: &[NodeRoute], expected: &[&str]) {
        let routes = desired("a", nodes);
        let routes: Vec<String> =
            routes.iter().map(|(cidr, gateway)| format!("{cidr} via {gateway}")).collect();
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
}
