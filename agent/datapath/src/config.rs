//! The programs' constants, from what the node is. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::config::{Cidr4, Cidr6, Config, features};

use crate::options::{NodeConfig, Options};

/// Source of a pod's connection to itself through a service: a link-local address that nobody has (RFC 3927).
const HAIRPIN4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The same for IPv6: a unique local address (RFC 4193), since pods resolve link-local ones instead of routing them.
const HAIRPIN6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6565, 0x6c69, 0x6e65, 0, 0, 0, 2);

/// What the kernel tells and an earlier process has settled.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Cookie of the node's network namespace.
    pub netns_cookie: u64,
    /// Seed of flow signatures.
    pub hash_seed: u32,
}

/// The constants of a node; features that depend on what can be attached are left off.
pub fn constants(options: &Options, node: &NodeConfig, given: Given) -> Config {
    let mut config = Config { hash_seed: given.hash_seed, netns_cookie: given.netns_cookie, ..Config::EMPTY };
    (config.hairpin4, config.hairpin6) = (HAIRPIN4.into(), HAIRPIN6.into());
    if let Some((range, length)) = range4(&node.pod_cidrs) {
        config.pods4 = range;
        config.cluster4_shift = 32 - u32::from(length.min(32));
    }
    if let Some((range, length)) = range6(&node.pod_cidrs) {
        config.pods6 = range;
        config.cluster6_shift = 64 - u32::from(length.min(64));
    }
    config.cluster4 = range4(&node.cluster_cidrs).map_or(Cidr4::NONE, |(range, _)| range);
    config.cluster6 = range6(&node.cluster_cidrs).map_or(Cidr6::NONE, |(range, _)| range);
    config.services4 = range4(&node.service_cidrs).map_or(Cidr4::NONE, |(range, _)| range);
    config.services6 = range6(&node.service_cidrs).map_or(Cidr6::NONE, |(range, _)| range);
    config.features = features::PEER_NAME;
    for address in node.addresses.iter().rev() {
        match address {
            IpAddr::V4(v4) => config.snat4 = (*v4).into(),
            IpAddr::V6(v6) => {
                config.snat6 = (*v6).into();
                config.features |= features::IPV6;
            }
        }
    }
    for (on, feature) in [
        (node.spoof_check, features::SPOOF_CHECK),
        (node.masquerade, features::MASQUERADE),
        (node.vxlan.is_some(), features::TUNNEL),
    ] {
        config.features |= if on { feature } else { 0 };
    }
    if let Some(ports) = &options.snat_ports {
        (config.snat_port_first, config.snat_port_last) = (*ports.start(), *ports.end());
        // The one range is all.
        (config.snat_high_first, config.snat_high_last) = (1, 0);
    }
    config.uplink = options.uplinks.first().map_or(0, |uplink| uplink.ifindex);
    config.vxlan = node.vxlan.as_ref().map_or(0, |vxlan| vxlan.ifindex);
    config.maglev_seed = maglev_seed(&config);
    config
}

/// Nodes of one cluster have the same service ranges, and clusters that share clients seldom do.
fn maglev_seed(config: &Config) -> u32 {
    let mixed = config.services4.net.mix() ^ config.services6.net.mix().rotate_left(16);
    mixed.wrapping_mul(0x9e37_79b1) | 1
}

fn range4(ranges: &[(IpAddr, u8)]) -> Option<(Cidr4, u8)> {
    ranges.iter().find_map(|(net, length)| match net {
        IpAddr::V4(v4) => Some((Cidr4::new((*v4).into(), *length), *length)),
        IpAddr::V6(_) => None,
    })
}

fn range6(ranges: &[(IpAddr, u8)]) -> Option<(Cidr6, u8)> {
    ranges.iter().find_map(|(net, length)| match net {
        IpAddr::V6(v6) => Some((Cidr6::new((*v6).into(), *length), *length)),
        IpAddr::V4(_) => None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use abi::{Ip4, Ip6};

    use super::*;
    use crate::options::{Uplink, Vxlan};

    const GIVEN: Given = Given { netns_cookie: 1, hash_seed: 7 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ip4(text: &str) -> Ip4 {
        text.parse::<Ipv4Addr>().unwrap().into()
    }

    fn ip6(text: &str) -> Ip6 {
        text.parse::<Ipv6Addr>().unwrap().into()
    }

    fn options() -> Options {
        let uplink = |ifindex| Uplink { name: String::new(), ifindex, mac: [0; 6], mtu: 1500, veth: false };
        Options { uplinks: vec![uplink(2), uplink(3)], ..Options::default() }
    }

    #[test]
    fn a_dual_stack_node_knows_its_ranges_and_where_other_nodes_are() {
        let node = NodeConfig {
            pod_cidrs: vec![(ip("10.244.3.0"), 24), (ip("fd00:10:244:3::"), 64)],
            cluster_cidrs: vec![(ip("10.244.0.0"), 16), (ip("fd00:10:244::"), 56)],
            service_cidrs: vec![(ip("10.96.0.0"), 16), (ip("fd00:10:96::"), 112)],
            addresses: vec![ip("172.30.0.11"), ip("172.30.9.9"), ip("fd30::11")],
            spoof_check: true,
            masquerade: true,
            vxlan: None,
        };
        let config = constants(&options(), &node, GIVEN);
        let expected = features::PEER_NAME | features::IPV6 | features::SPOOF_CHECK | features::MASQUERADE;
        assert_eq!(config.features, expected);
        let sources = (ip4("172.30.0.11"), ip6("fd30::11"));
        assert_eq!((config.snat4, config.snat6), sources, "the first of each family");
        assert_eq!((config.cluster4_shift, config.cluster6_shift), (8, 0));
        assert!(config.pods4.contains(ip4("10.244.3.200")) && !config.pods4.contains(ip4("10.244.4.0")));
        assert!(
            config.pods6.contains(ip6("fd00:10:244:3::9")) && config.services6.contains(ip6("fd00:10:96::a"))
        );
        assert!(!config.cluster4.contains(config.hairpin4) && !config.cluster6.contains(config.hairpin6));
        assert_eq!((config.uplink, config.vxlan), (2, 0), "the first uplink is the main one");
    }

    #[test]
    fn a_node_without_pod_ranges_claims_no_pod() {
        let node = NodeConfig { addresses: vec![ip("172.30.0.11")], ..NodeConfig::default() };
        let config = constants(&options(), &node, GIVEN);
        assert_eq!(config.features, features::PEER_NAME);
        assert_eq!(
            (config.pods4, config.cluster4, config.services4),
            (Cidr4::NONE, Cidr4::NONE, Cidr4::NONE)
        );
        assert_eq!(
            (config.pods6, config.cluster6, config.services6),
            (Cidr6::NONE, Cidr6::NONE, Cidr6::NONE)
        );
    }

    #[test]
    fn tunnels_and_source_ports_are_told_when_they_are_asked_for() {
        let vxlan = Vxlan { name: "blvx0".to_owned(), ifindex: 9 };
        let node = NodeConfig { vxlan: Some(vxlan), ..NodeConfig::default() };
        let options = Options { snat_ports: Some(2000..=2003), ..options() };
        let config = constants(&options, &node, GIVEN);
        assert_eq!((config.features & features::TUNNEL, config.vxlan), (features::TUNNEL, 9));
        assert_eq!((config.snat_port_first, config.snat_port_last), (2000, 2003));
        assert!(config.snat_high_last < config.snat_high_first, "no second range");
    }

    #[test]
    fn maglev_seeds_agree_on_all_nodes_of_a_cluster() {
        let services = vec![(ip("10.96.0.0"), 16)];
        let node = |address| NodeConfig {
            service_cidrs: services.clone(),
            addresses: vec![ip(address)],
            ..NodeConfig::default()
        };
        let seed = |address, hash_seed| {
            constants(&options(), &node(address), Given { netns_cookie: 1, hash_seed }).maglev_seed
        };
        assert_eq!(seed("172.30.0.11", 7), seed("172.30.0.12", 8));
    }
}
