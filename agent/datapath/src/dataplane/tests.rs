//! What the programs are told, from what the node is. The rest of the handle is tested by `tests/two_nodes`, with real packets.

#![expect(clippy::unwrap_used, reason = "tests")]

use abi::{Ip4, Ip6};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ip4(text: &str) -> Ip4 {
    text.parse::<Ipv4Addr>().unwrap().into()
}

fn ip6(text: &str) -> Ip6 {
    text.parse::<Ipv6Addr>().unwrap().into()
}

fn uplink(veth: bool) -> Uplink {
    Uplink { ifindex: 2, mac: [0; 6], mtu: 1500, veth }
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
    };
    let config = config(&node, uplink(false), 7).unwrap();
    assert_eq!(
        config.features,
        features::PEER_NAME | features::IPV6 | features::SPOOF_CHECK | features::MASQUERADE
    );
    assert_eq!(
        (config.snat4, config.snat6),
        (ip4("172.30.0.11"), ip6("fd30::11")),
        "the first of each family"
    );
    assert_eq!((config.cluster4_shift, config.cluster6_shift), (8, 0));
    assert!(config.pods4.contains(ip4("10.244.3.200")) && !config.pods4.contains(ip4("10.244.4.0")));
    assert!(
        config.pods6.contains(ip6("fd00:10:244:3::9")) && config.services6.contains(ip6("fd00:10:96::a"))
    );
    assert!(!config.cluster4.contains(config.hairpin4) && !config.cluster6.contains(config.hairpin6));
    assert_eq!(config.uplink, 2);
    assert_ne!(config.netns_cookie, 0);
}

#[test]
fn a_node_without_pod_ranges_claims_no_pod() {
    let node = NodeConfig { addresses: vec![ip("172.30.0.11")], ..NodeConfig::default() };
    let config = config(&node, uplink(false), 7).unwrap();
    assert_eq!(config.features, features::PEER_NAME);
    assert_eq!((config.pods4, config.cluster4, config.services4), (Cidr4::NONE, Cidr4::NONE, Cidr4::NONE));
    assert_eq!((config.pods6, config.cluster6, config.services6), (Cidr6::NONE, Cidr6::NONE, Cidr6::NONE));
}

#[test]
fn native_xdp_is_not_chosen_on_a_veth_unless_asked_for() {
    for (choice, veth, expected) in [
        (XdpChoice::Auto, false, &["native", "generic"][..]),
        (XdpChoice::Auto, true, &["generic"]),
        (XdpChoice::Native, true, &["native"]),
        (XdpChoice::Off, false, &[]),
    ] {
        let modes: Vec<&str> = choice.modes(uplink(veth)).iter().map(|mode| mode.as_str()).collect();
        assert_eq!(modes, expected, "{choice:?}, veth {veth}");
    }
}
