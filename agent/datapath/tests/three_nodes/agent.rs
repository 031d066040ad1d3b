//! A node's agent without an API server: crates `network`, `service` and `datapath` joined as `beeline-agent` joins them, told what to do by
//! lines on standard input.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datapath::{Dataplane, NodeAddresses, NodeConfig, Options, PodPort, Tunnel, Uplink, Vxlan, XdpChoice};
use network::neighbours::Neighbours;
use network::routes::{NodeRoute, NodeRoutes, desired};
use network::{Cidr, PodIdentity, PodInterface, PodNetwork, Wiring, tunnel};
use serde::{Deserialize, Serialize};
use service::{HostPort, NodeFacts, ObjectKey, Protocol, Tables};

use crate::fabric::{Fabric, NODES};
use crate::process::{self, Failure, Place, Process, say};

/// How agents are started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mode {
    /// `off`, `generic` or `native`.
    pub xdp: String,
    /// The third node is reached by VXLAN.
    pub tunnel: bool,
    /// See `Options::layout_salt`.
    pub salt: u64,
    /// First size of the tables of established flows.
    pub flows: u32,
}

/// What the child is told.
#[derive(Serialize, Deserialize)]
struct Setup {
    node: usize,
    addresses: Vec<[IpAddr; 2]>,
    bpf_directory: PathBuf,
    cgroup: String,
    state: PathBuf,
    mode: Mode,
}

/// The parent's handle.
pub struct Agent(Process);

impl Agent {
    /// Starts the process; [`Agent::ready`] waits for it.
    pub fn start(fabric: &Fabric, node: usize, mode: &Mode) -> Self {
        let address =
            |node| [fabric.address4(node).parse::<IpAddr>().unwrap(), fabric.address6(node).parse().unwrap()];
        let setup = Setup {
            node,
            addresses: (0..NODES).map(address).collect(),
            bpf_directory: fabric.bpf_directory(node),
            cgroup: fabric.cgroup(node),
            state: fabric.directory.path().join(format!("n{node}")),
            mode: mode.clone(),
        };
        let place = Place::unserved(fabric.node(node));
        Self(Process::start(&place, "agent", &serde_json::to_string(&setup).unwrap()))
    }

    /// Waits until the programs are attached.
    pub fn ready(self) -> Self {
        Self(self.0.ready())
    }

    /// Gives an order; it must succeed. Returns what the agent said.
    #[track_caller]
    pub fn tell(&mut self, order: &str) -> String {
        let answer = self.0.ask(order);
        let (word, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
        assert_eq!(word, "ok", "{order}: {answer}");
        rest.to_owned()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Gives the pod in this namespace its network; its addresses, IPv4 first.
    pub fn add_pod(&mut self, uid: &str, namespace: &str) -> [IpAddr; 2] {
        let addresses = self.tell(&format!("pod {uid} /run/netns/{namespace}"));
        let addresses: Vec<IpAddr> = addresses.split(' ').map(|address| address.parse().unwrap()).collect();
        addresses.try_into().unwrap()
    }
}

struct Served(Arc<Dataplane>);

impl Wiring for Served {
    fn wire(&self, interface: &PodInterface) -> Result<(), network::BoxError> {
        Ok(self.0.add_pod(&PodPort {
            ifindex: interface.host_ifindex,
            ifname: interface.host_ifname.clone(),
            host_mac: interface.host_mac,
            pod_mac: interface.pod_mac,
            addresses: interface.addresses.clone(),
        })?)
    }

    fn unwire(&self, interface: &PodInterface) {
        self.0.remove_pod(&interface.host_ifname);
    }
}

fn pod_cidrs(node: usize) -> Vec<Cidr> {
    vec![format!("10.246.{node}.0/24").parse().unwrap(), format!("fd00:10:246:{node}::/64").parse().unwrap()]
}

fn pairs(cidrs: &[Cidr]) -> Vec<(IpAddr, u8)> {
    cidrs.iter().map(|cidr| (cidr.base(), cidr.prefix())).collect()
}

/// One node, in the child.
struct Node {
    dataplane: Arc<Dataplane>,
    tables: Tables,
    network: PodNetwork,
    runtime: tokio::runtime::Runtime,
}

/// The child's side.
pub fn main() {
    let setup: Setup = serde_json::from_str(&process::arguments()).unwrap();
    let mut node = Node::open(&setup);
    say("ready");
    for order in std::io::stdin().lines() {
        match node.obey(&order.unwrap()) {
            Ok(answer) => say(format!("ok {answer}").trim_end()),
            Err(error) => say(&format!("error {error}")),
        }
    }
}

impl Setup {
    /// Segments differ in the third group of their nodes' IPv4 addresses.
    fn tunnel_to(&self, other: usize) -> Option<Tunnel> {
        let v4 = |node: usize| match self.addresses[node][0] {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => unreachable!("IPv4 comes first"),
        };
        let (here, there) = (v4(self.node).octets()[2], v4(other).octets()[2]);
        let gateway = Ipv4Addr::new(172, 31, here, 254);
        (self.mode.tunnel && here != there).then(|| Tunnel { to: v4(other), gateway })
    }

    fn options(&self) -> Options {
        let device = network::device::find("eth0").unwrap();
        let uplink = Uplink {
            name: "eth0".into(),
            ifindex: device.index,
            mac: device.mac,
            mtu: device.mtu,
            veth: device.veth,
        };
        Options {
            bpf_dir: self.bpf_directory.clone(),
            cgroup: self.cgroup.clone(),
            uplinks: vec![uplink],
            xdp: match self.mode.xdp.as_str() {
                "native" => XdpChoice::Native,
                "generic" => XdpChoice::Generic,
                _ => XdpChoice::Off,
            },
            flow_entries: Some(self.mode.flows),
            layout_salt: self.mode.salt,
            ..Options::default()
        }
    }

    fn node_config(&self, vxlan: Option<u32>) -> NodeConfig {
        NodeConfig {
            pod_cidrs: pairs(&pod_cidrs(self.node)),
            cluster_cidrs: vec![("10.246.0.0".parse().unwrap(), 16), ("fd00:10:246::".parse().unwrap(), 56)],
            service_cidrs: vec![("10.98.0.0".parse().unwrap(), 16), ("fd00:10:98::".parse().unwrap(), 112)],
            addresses: self.addresses[self.node].to_vec(),
            spoof_check: true,
            masquerade: true,
            vxlan: vxlan.map(|ifindex| Vxlan { name: tunnel::DEVICE.to_owned(), ifindex }),
        }
    }
}

impl Node {
    fn open(setup: &Setup) -> Self {
        let others = (0..NODES).filter(|other| setup.tunnel_to(*other).is_some());
        let IpAddr::V4(own) = setup.addresses[setup.node][0] else { unreachable!("IPv4 comes first") };
        let vxlan = (others.count() > 0).then(|| tunnel::ensure(own, 1500).unwrap().index);
        let opened = Dataplane::open(setup.options(), setup.node_config(vxlan));
        let (dataplane, learned) = opened.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(dataplane.xdp().unwrap_or("off"), setup.mode.xdp, "XDP's mode");
        let dataplane = Arc::new(dataplane);
        let mut tables = Tables::new(format!("node{}", setup.node));
        let restarted = !learned.services.is_empty();
        tables.adopt(learned);
        let network = network::Config { state_dir: setup.state.clone(), uplink: "eth0".into() };
        let network = PodNetwork::new(network, Arc::new(Served(Arc::clone(&dataplane)))).unwrap();
        network.set_pod_cidrs(&pod_cidrs(setup.node)).unwrap();
        if vxlan.is_some() {
            network.set_overhead(tunnel::OVERHEAD);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut node = Self { dataplane, tables, network, runtime };
        node.join(setup, vxlan);
        if !restarted {
            node.dataplane.apply(&node.tables.start(node.dataplane.now_ms())).unwrap();
        }
        node
    }

    /// Tells tables, kernel routes and neighbours about all nodes.
    fn join(&mut self, setup: &Setup, vxlan: Option<u32>) {
        let numbered: Vec<(usize, u16)> = (0..NODES).map(|node| (node, node as u16 + 1)).collect();
        let rows = numbered.iter().map(|&(node, number)| NodeAddresses {
            number,
            local: node == setup.node,
            addresses: setup.addresses[node].to_vec(),
            pod_cidrs: pairs(&pod_cidrs(node)),
            tunnel: setup.tunnel_to(node),
        });
        self.dataplane.set_nodes(&rows.collect::<Vec<_>>()).unwrap();
        let facts = numbered.iter().map(|&(node, number)| NodeFacts {
            name: format!("node{node}"),
            number,
            addresses: setup.addresses[node].to_vec(),
        });
        let now = self.dataplane.now_ms();
        self.dataplane.apply(&self.tables.set_nodes(&facts.collect::<Vec<_>>(), "", now)).unwrap();
        let routes = numbered.iter().map(|&(node, _)| NodeRoute {
            name: format!("node{node}"),
            addresses: setup.addresses[node].to_vec(),
            pod_cidrs: pod_cidrs(node),
            tunnel: setup.tunnel_to(node).map(|tunnel| tunnel.to),
        });
        let routes = desired(&format!("node{}", setup.node), &routes.collect::<Vec<_>>());
        NodeRoutes::open().unwrap().sync(&routes, vxlan).unwrap();
        let mut neighbours = Neighbours::open("eth0").unwrap();
        let mut watch = neighbours.watch().unwrap();
        neighbours.manage(&self.dataplane.wanted_neighbours()).unwrap();
        for (address, mac) in neighbours.known().unwrap() {
            self.dataplane.set_neighbour(address, Some(mac));
        }
        let dataplane = Arc::clone(&self.dataplane);
        std::thread::spawn(move || {
            loop {
                for change in watch.changes().unwrap() {
                    dataplane.set_neighbour(change.address, change.mac);
                }
            }
        });
    }

    fn obey(&mut self, order: &str) -> Result<String, Failure> {
        let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
        let (begun, now) = (Instant::now(), self.dataplane.now_ms());
        let identity =
            |uid: &str| PodIdentity { uid: uid.into(), namespace: "default".into(), name: uid.into() };
        let diff = match verb {
            "pod" => {
                let (uid, netns) = rest.split_once(' ').ok_or("pod UID NETNS")?;
                let interface = self.runtime.block_on(self.network.setup(&identity(uid), netns.as_ref()))?;
                return Ok(interface.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "));
            }
            "recover" => {
                let live: Vec<PodIdentity> = rest.split(' ').map(identity).collect();
                self.runtime.block_on(self.network.recover(&live))?;
                self.dataplane.drop_unclaimed_pods();
                return Ok(String::new());
            }
            "hostport" => self.host_port(rest, now)?,
            "service" => self.tables.service_applied(&serde_json::from_str(rest)?, now),
            "slice" => self.tables.slice_applied(&serde_json::from_str(rest)?, now),
            "start" => {
                self.dataplane.apply(&self.tables.start(now))?;
                self.dataplane.forget_old_layouts();
                return Ok(String::new());
            }
            "grow" => return Ok(self.dataplane.grow_flows()?.to_string()),
            "collect" => return Ok(self.dataplane.collect_flows()?.entries.to_string()),
            "drops" => {
                let drops = self.dataplane.drops().into_iter().filter(|(_, packets)| *packets > 0);
                return Ok(drops
                    .map(|(reason, packets)| format!("{}={packets} ", reason.as_str()))
                    .collect());
            }
            _ => return Err(format!("unknown order {verb}").into()),
        };
        self.dataplane.apply(&diff)?;
        if let Some(problem) = diff.problems.first() {
            return Err(problem.to_string().into());
        }
        Ok(begun.elapsed().as_micros().to_string())
    }

    /// `UID PORT HOST-IP|any POD-IP,POD-IP`: that port of the node, TCP and UDP, is the pod's port 8080.
    fn host_port(&mut self, rest: &str, now: u64) -> Result<service::Diff, Failure> {
        let words: Vec<&str> = rest.split(' ').collect();
        let [uid, port, host_ip, addresses] = words[..] else {
            return Err("hostport UID PORT HOST-IP|any POD-IPS".into());
        };
        let pod_ips: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        let pod_ips = pod_ips?;
        let host_ip = if host_ip == "any" { None } else { Some(host_ip.parse()?) };
        let port = port.parse()?;
        let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| HostPort {
            host_ip,
            port,
            protocol,
            pod_ips: pod_ips.clone(),
            container_port: 8080,
        });
        Ok(self.tables.set_host_ports(ObjectKey::new("default", uid), ports.to_vec(), now))
    }
}
