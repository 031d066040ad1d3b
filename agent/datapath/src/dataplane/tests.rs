//! Restart, upgrade to other layouts and back, growth, and failures half-way, on real maps and links. Packets are the business of `tests/`.
//!
//! Needs root and a build with programs; otherwise it says so and passes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::flow::{Flow4, FlowKey4, FlowState, KIND_FORWARD, KIND_REVERSE, tcp_bits};
use abi::maps::{FLOW4, FLOW4_NEXT, FLOW6_NEXT, MAPS};
use abi::route::{KIND_L2, KIND_NONE, KIND_TUNNEL};
use abi::{Port, Proto};
use service::{NodeFacts, Tables as Services};

use super::*;
use crate::options::{Tunnel, Uplink, Vxlan, XdpChoice};
use crate::sys::{BPF_ANY, BPF_NOEXIST};
use crate::table::Table;

/// A node of a test: a network namespace on a thread of its own, a directory of the BPF filesystem, a cgroup. Gone when dropped.
struct Node {
    name: String,
    bpf_dir: PathBuf,
}

impl Node {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("bldpu{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        leave_network();
        let link = ["link", "add", "up0", "type", "veth", "peer", "name", "up1"];
        for words in [&link[..], &["link", "set", "up0", "up"], &["link", "set", "lo", "up"]] {
            assert!(Command::new("ip").args(words).status().unwrap().success(), "ip {words:?}");
        }
        let bpf_dir = PathBuf::from(format!("/sys/fs/bpf/{name}"));
        Self { name, bpf_dir }
    }

    fn options(&self, salt: u64) -> Options {
        let ifindex = ifindex("up0").unwrap();
        let uplink =
            Uplink { name: "up0".to_owned(), ifindex, mac: [2, 0, 0, 0, 0, 1], mtu: 1500, veth: true };
        Options {
            bpf_dir: self.bpf_dir.clone(),
            cgroup: self.name.clone(),
            uplinks: vec![uplink],
            xdp: XdpChoice::Generic,
            flow_entries: Some(1024),
            layout_salt: salt,
            ..Options::default()
        }
    }

    fn open(&self, salt: u64) -> (Dataplane, Learned) {
        Dataplane::open(self.options(salt), config()).unwrap()
    }

    fn pins(&self, salt: u64) -> Pins {
        Pins::new(&self.bpf_dir, salt)
    }

    fn flows(&self, salt: u64) -> Table<FlowKey4, Flow4> {
        Table::open(&self.pins(salt).path(&FLOW4)).unwrap()
    }

    /// Program ids by pin.
    fn attached(&self) -> BTreeMap<PathBuf, u32> {
        let program = |path: &PathBuf| sys::link_info(sys::get(path).unwrap().as_fd()).unwrap().program_id;
        let links = Links::new(&self.bpf_dir).pinned();
        links.into_iter().map(|link| (link.path.clone(), program(&link.path))).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.bpf_dir);
        if let Ok((cgroup, file)) = cgroup::open(&self.name) {
            drop(file);
            let _ = std::fs::remove_dir(cgroup.path());
        }
    }
}

/// Index of a device of this namespace.
fn ifindex(name: &str) -> Option<u32> {
    let output = Command::new("ip").args(["-o", "link", "show", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(':').next()?.parse().ok()
}

/// Gives the calling thread a network namespace of its own.
#[expect(
    deprecated,
    reason = "its unsafe successor is for flags that split file descriptors; this one does not"
)]
fn leave_network() {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
}

/// Runs on a thread whose namespace is its own, if this machine can.
fn on_node(test: impl FnOnce(&Node) + Send + 'static) {
    if !rustix::process::geteuid().is_root() || !crate::has_programs() {
        println!("skipped: needs root and a build with BPF programs (cargo xtask build)");
        return;
    }
    std::thread::spawn(move || test(&Node::new())).join().unwrap();
}

fn config() -> NodeConfig {
    let range = |text: &str, length| (text.parse().unwrap(), length);
    NodeConfig {
        pod_cidrs: vec![range("10.244.1.0", 24), range("fd00:10:244:1::", 64)],
        cluster_cidrs: vec![range("10.244.0.0", 16), range("fd00:10:244::", 56)],
        service_cidrs: vec![range("10.96.0.0", 16), range("fd00:10:96::", 112)],
        addresses: vec!["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()],
        ..NodeConfig::default()
    }
}

/// Services of every kind of row.
fn publish(dataplane: &Dataplane, learned: Learned) -> Services {
    let mut tables = Services::new("node1");
    tables.adopt(learned);
    let facts = NodeFacts {
        name: "node1".to_owned(),
        number: 1,
        addresses: vec!["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()],
    };
    tables.set_nodes(&[facts], "", dataplane.now_ms());
    let service = serde_json::json!({
        "metadata": {"namespace": "default", "name": "web", "annotations": {"beeline.io/algorithm": "maglev", "beeline.io/maglev-size": "1021"}},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}},
    });
    let slice = serde_json::json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.244.1.5"], "nodeName": "node1", "conditions": {"ready": true}},
            {"addresses": ["10.244.2.5"], "nodeName": "node2", "conditions": {"ready": true}},
        ],
    });
    tables.service_applied(&serde_json::from_value(service).unwrap(), dataplane.now_ms());
    tables.slice_applied(&serde_json::from_value(slice).unwrap(), dataplane.now_ms());
    dataplane.apply(&tables.start(dataplane.now_ms())).unwrap();
    tables
}

fn sorted(mut learned: Learned) -> Learned {
    learned.frontends.sort();
    learned.services.sort_by_key(|service| service.id);
    learned.services.iter_mut().for_each(|service| service.backends.sort());
    learned.vips.sort();
    learned.source_ranges.sort();
    learned
}

/// A translated connection with this client port: key and value of both entries.
fn pair(port: u16) -> [(FlowKey4, Flow4); 2] {
    let address = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().into();
    let key = FlowKey4 {
        src: address("192.0.2.9"),
        dst: address("172.30.0.11"),
        sport: Port::from_host(port),
        dport: Port::from_host(30_080),
        proto: Proto::TCP,
        ..FlowKey4::default()
    };
    let now = (sys::monotonic_ns() >> abi::flow::TICK_SHIFT) as u32;
    let state = FlowState {
        sport: Port::from_host(port),
        dport: Port::from_host(8080),
        kind: KIND_FORWARD,
        tcp: tcp_bits::SYN | tcp_bits::REPLIED,
        last_seen: now,
        ..FlowState::default()
    };
    let value = Flow4 { src: address("172.30.0.11"), dst: address("10.244.2.5"), state };
    let reverse = key.reverse(&value);
    let state = FlowState { sport: key.dport, dport: key.sport, kind: KIND_REVERSE, ..state };
    [(key, value), (reverse, Flow4 { src: key.dst, dst: key.src, state })]
}

fn insert_flows(table: &Table<FlowKey4, Flow4>, ports: std::ops::Range<u16>) {
    for (key, value) in ports.flat_map(pair) {
        table.insert(&key, &value, BPF_ANY).unwrap();
    }
}

#[track_caller]
fn check_flows(table: &Table<FlowKey4, Flow4>, ports: std::ops::Range<u16>) {
    let mut entries = 0;
    table.each(|_, _| entries += 1).unwrap();
    assert_eq!(entries, ports.len() * 2);
    for (key, value) in ports.flat_map(pair) {
        let found = table.get(&key).unwrap().unwrap();
        assert_eq!((found.src, found.dst, found.state.tcp), (value.src, value.dst, value.state.tcp));
    }
}

#[test]
fn a_new_process_adopts_everything_that_the_last_one_wrote() {
    on_node(|node| {
        let (first, learned) = node.open(0);
        assert_eq!(learned, Learned::default());
        publish(&first, learned);
        drop(first);
        let before = node.attached();
        let (second, learned) = node.open(0);
        assert_eq!(learned.vips.len(), 2, "cluster IP and load balancer");
        assert_eq!(learned.source_ranges, [(learned.services[0].id, "192.0.2.0".parse().unwrap(), 24)]);
        assert_eq!(learned.services[0].maglev, [1021, 0]);
        assert_eq!(learned.frontends.len(), 3);
        let status = crate::status::read(&node.bpf_dir, true).unwrap();
        assert!(status.missing.is_empty(), "{status}");
        assert!(status.frontends.iter().all(|frontend| frontend.algorithm == "maglev"), "{status}");
        assert_eq!(status.frontends[0].backends.len(), 2);
        let after = node.attached();
        assert!(before.keys().eq(after.keys()), "the same links");
        assert!(before.iter().all(|(pin, program)| after[pin] != *program), "with new programs");
        let diff = publish(&second, learned.clone());
        drop(diff);
        drop(second);
        assert_eq!(sorted(node.open(0).1), sorted(learned), "publishing the same changes nothing");
    });
}

#[test]
fn what_the_former_backend_of_a_client_left_goes_when_it_is_idle_whatever_the_client_does() {
    on_node(|node| {
        let (dataplane, _) = node.open(0);
        let table = node.flows(0);
        let [(key, value), (reverse, answer)] = pair(1024);
        let former = FlowKey4 { src: "10.244.2.6".parse::<std::net::Ipv4Addr>().unwrap().into(), ..reverse };
        let long_ago = answer.state.last_seen.wrapping_sub(1_000_000);
        let silent = Flow4 { state: FlowState { last_seen: long_ago, ..answer.state }, ..answer };
        for (key, value) in [(key, value), (reverse, answer), (former, silent)] {
            table.insert(&key, &value, BPF_ANY).unwrap();
        }
        assert_eq!(dataplane.collect_flows().unwrap().deleted, 1);
        assert!(table.get(&former).unwrap().is_none());
        check_flows(&table, 1024..1025);
    });
}

#[test]
fn tables_of_another_layout_are_carried_over_in_both_directions() {
    on_node(|node| {
        let (first, learned) = node.open(0);
        publish(&first, learned);
        insert_flows(&node.flows(0), 1024..1224);
        drop(first);
        let expected = sorted(node.open(0).1);
        let (upgraded, learned) = node.open(7);
        assert_eq!(sorted(learned), expected);
        check_flows(&node.flows(7), 1024..1224);
        let id = |salt, spec| sys::RawMap::open(&node.pins(salt).path(spec)).unwrap().info().id;
        assert_ne!(id(0, &abi::maps::SVC), id(7, &abi::maps::SVC), "what the agent writes is copied");
        assert_eq!(id(0, &FLOW4), id(7, &FLOW4), "connections of the same form are shared");
        assert_eq!(
            upgraded.pins.others(&FLOW4).len(),
            1,
            "the old table stays until the new ones are complete"
        );
        insert_flows(&node.flows(7), 1224..1300);
        drop(upgraded);
        // Back before anybody said that the new tables are complete: the old pins are stale.
        let (back, learned) = node.open(0);
        assert_eq!(sorted(learned), expected);
        check_flows(&node.flows(0), 1024..1300);
        back.forget_old_layouts();
        assert!(MAPS.iter().all(|spec| back.pins.others(spec).is_empty()));
        assert_eq!(back.node_config(), config());
        let inner = back.lock();
        assert_eq!(inner.installed.config.hash_seed, inner.maps.control().hash_seed);
    });
}

#[test]
fn what_programs_write_while_they_change_is_merged_without_undoing_news() {
    on_node(|node| {
        drop(node.open(0));
        let old = node.flows(0);
        let new =
            Table::<FlowKey4, Flow4>::new(sys::RawMap::create("new", old.raw().info()).unwrap()).unwrap();
        let [(key, value), _] = pair(2000);
        new.insert(&key, &Flow4 { state: FlowState { tcp: tcp_bits::FIN, ..value.state }, ..value }, BPF_ANY)
            .unwrap();
        insert_flows(&old, 2000..2002);
        assert_eq!(carry::add(old.raw(), new.raw()).unwrap(), 3);
        assert_eq!(new.get(&key).unwrap().unwrap().state.tcp, tcp_bits::FIN);
    });
}

#[test]
fn flow_tables_grow_with_all_their_entries_up_to_the_limit() {
    on_node(|node| {
        let (dataplane, learned) = node.open(0);
        publish(&dataplane, learned);
        insert_flows(&node.flows(0), 1024..1424);
        let count = dataplane.collect_flows().unwrap();
        assert_eq!((count.entries, count.deleted, count.fill_percent), (800, 0, 78));
        check_flows(&node.flows(0), 1024..1424);
        assert_eq!(node.flows(0).raw().info().max_entries, 2048, "78 % is full enough to grow");
        assert_eq!(dataplane.events(), [Event::FlowsGrown { entries: 4096 }]);
        assert!(!dataplane.pins.path(&FLOW4_NEXT).exists() && !dataplane.pins.path(&FLOW6_NEXT).exists());
        let live = dataplane.links.maps_in_use();
        assert!(live.contains(&node.flows(0).raw().info().id), "programs use the grown table");
        assert!(dataplane.grow_flows().unwrap() && dataplane.grow_flows().unwrap());
        assert!(!dataplane.grow_flows().unwrap(), "eight times the first size is the limit");
        check_flows(&node.flows(0), 1024..1424);
        drop(dataplane);
        // A build of another layout keeps the size.
        drop(node.open(7));
        assert_eq!(node.flows(7).raw().info().max_entries, 8192);
        check_flows(&node.flows(7), 1024..1424);
    });
}

#[test]
fn a_growth_that_was_interrupted_goes_on_with_the_next_process() {
    on_node(|node| {
        for step in ["one table made", "both made", "one taken over"] {
            let (dataplane, _) = node.open(0);
            let size = node.flows(0).raw().info().max_entries;
            insert_flows(&node.flows(0), 1024..1030);
            assert!(growth::make_next(&dataplane.pins, 1 << 20).unwrap());
            let pins = dataplane.pins.clone();
            drop(dataplane);
            let next: Table<FlowKey4, Flow4> = Table::open(&pins.path(&FLOW4_NEXT)).unwrap();
            match step {
                "one table made" => std::fs::remove_file(pins.path(&FLOW4_NEXT)).unwrap(),
                "both made" => insert_flows(&next, 1030..1040),
                _ => {
                    growth::copy(&pins).unwrap();
                    insert_flows(&next, 1030..1040);
                    std::fs::rename(pins.path(&FLOW6_NEXT), pins.path(&abi::maps::FLOW6)).unwrap();
                }
            }
            let (_dataplane, _) = node.open(0);
            let grown = node.flows(0).raw().info().max_entries;
            if step == "one table made" {
                assert_eq!(grown, size, "{step}");
                check_flows(&node.flows(0), 1024..1030);
            } else {
                assert_eq!(grown, size * 2, "{step}");
                check_flows(&node.flows(0), 1024..1040);
            }
            assert!(!pins.path(&FLOW4_NEXT).exists() && !pins.path(&FLOW6_NEXT).exists(), "{step}");
        }
    });
}

#[test]
fn a_growth_that_failed_half_way_goes_on_at_the_next_attempt() {
    on_node(|node| {
        let (dataplane, _) = node.open(0);
        for port in [1024, 1034] {
            assert!(growth::make_next(&dataplane.pins, 1 << 20).unwrap());
            let next: Table<FlowKey4, Flow4> = Table::open(&dataplane.pins.path(&FLOW4_NEXT)).unwrap();
            insert_flows(&node.flows(0), port..port + 5);
            insert_flows(&next, port + 5..port + 10);
            drop(next);
            if port == 1024 {
                assert!(dataplane.grow_flows().unwrap());
            } else {
                // Other constants for the programs are told when the tables are one again.
                dataplane.reconfigure(NodeConfig { masquerade: true, ..config() }).unwrap();
            }
            check_flows(&node.flows(0), 1024..port + 10);
            assert!(!dataplane.pins.path(&FLOW4_NEXT).exists());
        }
        assert_eq!(node.flows(0).raw().info().max_entries, 4096);
        let features = dataplane.lock().installed.config.features;
        assert_eq!(features & growth::FEATURES, 0);
    });
}

#[test]
fn programs_that_cannot_be_attached_everywhere_are_attached_nowhere() {
    on_node(|node| {
        drop(node.open(0));
        let before = node.attached();
        let mut options = node.options(7);
        let nowhere = Uplink { name: "up9".to_owned(), ifindex: 4000, ..options.uplinks[0].clone() };
        options.uplinks.push(nowhere);
        // Generic mode has to make way for native mode, and comes back.
        options.xdp = XdpChoice::Native;
        let Err(error) = Dataplane::open(options, config()) else { panic!("there is no such device") };
        assert!(error.to_string().contains("up9"), "{error}");
        assert_eq!(node.attached(), before, "the old programs stay");
        let live = Links::new(&node.bpf_dir).maps_in_use();
        let in_use = |salt| {
            live.contains(&sys::RawMap::open(&node.pins(salt).path(&abi::maps::SVC)).unwrap().info().id)
        };
        assert!(in_use(0) && !in_use(7));
        // What the failed upgrade has left does not count.
        insert_flows(&node.flows(0), 1024..1026);
        drop(node.open(7));
        check_flows(&node.flows(7), 1024..1026);
    });
}

#[test]
fn several_uplinks_each_have_their_programs() {
    on_node(|node| {
        for words in [
            "link add link up0 name up0.12 type vlan id 12",
            "link add up2 type veth peer name up3",
            "link set up2 up",
        ] {
            // A kernel without VLAN devices tests the other two.
            let _ = Command::new("ip").args(words.split(' ')).status();
        }
        let mut options = node.options(0);
        let named = |name: &str| {
            let ifindex = ifindex(name)?;
            Some(Uplink { name: name.to_owned(), ifindex, ..options.uplinks[0].clone() })
        };
        let more: Vec<Uplink> = ["up2", "up0.12"].into_iter().filter_map(named).collect();
        options.uplinks.extend(more);
        let devices: Vec<String> = options.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        let (dataplane, _) = Dataplane::open(options.clone(), config()).unwrap();
        let found: Vec<String> = dataplane.uplinks().into_iter().map(|uplink| uplink.device).collect();
        assert_eq!(found, devices);
        let pins = node.attached();
        for device in &devices {
            let pin = node.bpf_dir.join("links").join(format!("tcx_up_in-{device}"));
            assert!(pins.contains_key(&pin), "{device}: {pins:?}");
        }
        drop(dataplane);
        options.uplinks.truncate(1);
        drop(Dataplane::open(options, config()).unwrap());
        let left = node.attached().into_keys().filter(|pin| pin.to_string_lossy().contains("-up2")).count();
        assert_eq!(left, 0, "a device that is no uplink any more has no programs");
    });
}

#[test]
fn nodes_on_the_segment_and_behind_routers_have_their_next_hops() {
    on_node(|node| {
        let (dataplane, _) = node.open(0);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let link = ["link", "add", "blvx0", "type", "vxlan", "external", "dstport", "4789"];
        assert!(Command::new("ip").args(link).status().unwrap().success());
        let vxlan = Vxlan { name: "blvx0".to_owned(), ifindex: ifindex("blvx0").unwrap() };
        dataplane.reconfigure(NodeConfig { vxlan: Some(vxlan.clone()), ..config() }).unwrap();
        let pin = |name: &str| node.bpf_dir.join("links").join(name);
        assert!(pin("tcx_tun_in-blvx0").exists() && pin("tcx_up_out-blvx0").exists());
        let tunnel = Tunnel { to: "203.0.113.7".parse().unwrap(), gateway: "172.30.0.1".parse().unwrap() };
        let remote = |number, at: &str, pods: &str, tunnel| NodeAddresses {
            number,
            addresses: vec![address(at)],
            pod_cidrs: vec![(address(pods), 24)],
            tunnel,
            local: false,
        };
        let near = remote(2, "172.30.0.12", "10.244.2.0", None);
        let far = remote(3, "203.0.113.7", "10.244.3.0", Some(tunnel));
        dataplane.set_nodes(&[near.clone(), far]).unwrap();
        assert_eq!(dataplane.wanted_neighbours(), [address("172.30.0.1"), address("172.30.0.12")]);
        dataplane.set_neighbour(address("172.30.0.1"), Some([2, 0, 0, 0, 9, 1]));
        dataplane.set_neighbour(address("172.30.0.12"), Some([2, 0, 0, 0, 9, 2]));
        let hop = |range: u32| {
            let inner = dataplane.lock();
            inner.maps.nexthop.get(inner.maps.v4.podroute.get(range).unwrap().nexthop).unwrap()
        };
        assert_eq!((hop(2).kind, hop(2).dmac.bytes()), (KIND_L2, [2, 0, 0, 0, 9, 2]));
        assert_eq!((hop(3).kind, hop(3).dmac.bytes()), (KIND_TUNNEL, [2, 0, 0, 0, 9, 1]));
        assert_eq!((hop(3).ifindex, hop(3).mtu), (vxlan.ifindex, 1450));
        let peers = || {
            let mut peers = Vec::new();
            dataplane.lock().maps.peermac.each(|key, node| peers.push((key.mac.bytes(), node))).unwrap();
            peers
        };
        assert_eq!(peers(), [([2, 0, 0, 0, 9, 2], 2)], "a router is no node");
        dataplane.set_neighbour(address("172.30.0.12"), Some([2, 0, 0, 0, 9, 3]));
        dataplane.set_neighbour(address("172.30.0.12"), None);
        assert_eq!(peers(), [([2, 0, 0, 0, 9, 3], 2)], "a node that is not seen for a while is one");
        dataplane.set_neighbour(address("172.30.0.12"), Some([2, 0, 0, 0, 9, 2]));
        // The far node has gone, and with it the way to it; no tunnel is needed.
        dataplane.set_nodes(&[near]).unwrap();
        dataplane.reconfigure(config()).unwrap();
        assert_eq!(dataplane.wanted_neighbours(), [address("172.30.0.12")]);
        assert_eq!(hop(3).kind, KIND_NONE);
        assert!(!pin("tcx_tun_in-blvx0").exists() && !pin("tcx_up_out-blvx0").exists());
    });
}

#[test]
fn maps_without_batches_hold_the_same() {
    on_node(|node| {
        drop(node.open(0));
        let path = node.pins(0).path(&FLOW4);
        let slow = RawMap::open(&path).unwrap().without_batches();
        let table: Table<FlowKey4, Flow4> = Table::new(slow).unwrap();
        let (keys, values): (Vec<_>, Vec<_>) = (1024..1034).flat_map(pair).unzip();
        table.insert_all(&keys, &values).unwrap();
        check_flows(&table, 1024..1034);
        check_flows(&node.flows(0), 1024..1034);
        assert!(table.insert(&keys[0], &values[0], BPF_NOEXIST).is_err());
        for table in [table, node.flows(0)] {
            // Keys that are not there are passed over.
            assert_eq!(table.remove_all(&keys[..12]).unwrap(), 12);
            assert_eq!(table.remove_all(&keys[10..]).unwrap(), 8);
            table.insert_all(&keys, &values).unwrap();
        }
    });
}
