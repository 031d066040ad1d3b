//! A node's agent without an API server: crates `network`, `service` and `datapath` joined as `beeline-agent` joins them, told what to do by
//! lines on standard input.

use std::io::{BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::Instant;

use datapath::{Dataplane, NodeAddresses, NodeConfig, Options, PodPort, Uplink, XdpChoice};
use network::neighbours::Neighbours;
use network::routes::{NodeRoute, NodeRoutes, desired};
use network::{Cidr, PodIdentity, PodInterface, PodNetwork, Wiring};
use service::{Diff, NodeFacts, Tables};

use crate::fabric::Fabric;
use crate::peer::{self, Place, child, line, say};

/// The parent's handle.
pub struct Agent {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agent {
    pub fn start(fabric: &Fabric, node: usize) -> Self {
        Self::of_build(fabric, node, 0)
    }

    /// The agent of a build whose tables have other layouts than those of another number.
    pub fn of_build(fabric: &Fabric, node: usize, salt: u64) -> Self {
        let place = Place::outside(fabric.node(node));
        let state = fabric.directory.path().join(format!("n{node}"));
        let xdp = std::env::var("BEELINE_TEST_XDP").unwrap_or_else(|_| "auto".to_owned());
        let arguments = format!(
            "{node} {} {} {} {xdp} {salt}",
            fabric.bpf_directory(node),
            fabric.cgroup(node),
            state.display()
        );
        let (child, input, mut output) = child(&place, "agent", &arguments);
        assert_eq!(line(&mut output).as_deref(), Some("ready"));
        Self { child, input, output }
    }

    /// Gives an order; it must succeed. Returns what the agent said.
    #[track_caller]
    pub fn tell(&mut self, order: &str) -> String {
        writeln!(self.input, "{order}").unwrap();
        let answer = line(&mut self.output).unwrap();
        let (word, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
        assert_eq!(word, "ok", "{order}: {answer}");
        rest.to_owned()
    }

    /// Gives the pod in this namespace its network; its addresses.
    pub fn add_pod(&mut self, uid: &str, namespace: &str) -> Vec<IpAddr> {
        let addresses = self.tell(&format!("pod {uid} /run/netns/{namespace}"));
        addresses.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    vec![format!("10.245.{node}.0/24").parse().unwrap(), format!("fd00:10:245:{node}::/64").parse().unwrap()]
}

fn addresses(node: usize) -> Vec<IpAddr> {
    vec![format!("172.31.77.1{node}").parse().unwrap(), format!("fd31:77::1{node}").parse().unwrap()]
}

fn pairs(cidrs: &[Cidr]) -> Vec<(IpAddr, u8)> {
    cidrs.iter().map(|cidr| (cidr.base(), cidr.prefix())).collect()
}

/// The child's side.
pub fn main() {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    let arguments = std::env::var("BEELINE_TEST_ARGUMENTS").unwrap();
    let words: Vec<&str> = arguments.split(' ').collect();
    let [node, bpf_dir, cgroup, state, xdp, salt] = words[..] else { panic!("{arguments}") };
    let node: usize = node.parse().unwrap();
    let xdp = match xdp {
        "native" => XdpChoice::Native,
        "generic" => XdpChoice::Generic,
        "off" => XdpChoice::Off,
        _ => XdpChoice::Auto,
    };
    let device = network::device::find("eth0").unwrap();
    let uplink = Uplink {
        name: "eth0".into(),
        ifindex: device.index,
        mac: device.mac,
        mtu: device.mtu,
        veth: device.veth,
    };
    let options = Options {
        bpf_dir: bpf_dir.into(),
        cgroup: cgroup.into(),
        uplinks: vec![uplink],
        xdp,
        entries: small(),
        layout_salt: salt.parse().unwrap(),
        ..Options::default()
    };
    let config = NodeConfig {
        pod_cidrs: pairs(&pod_cidrs(node)),
        cluster_cidrs: vec![("10.245.0.0".parse().unwrap(), 16), ("fd00:10:245::".parse().unwrap(), 56)],
        service_cidrs: vec![("10.97.0.0".parse().unwrap(), 16), ("fd00:10:97::".parse().unwrap(), 112)],
        addresses: addresses(node),
        spoof_check: true,
        masquerade: true,
        ..NodeConfig::default()
    };
    let (dataplane, learned) = Dataplane::open(options, config).unwrap_or_else(|error| panic!("{error}"));
    let dataplane = Arc::new(dataplane);
    let mut tables = Tables::new(format!("node{node}"));
    let restarted = !learned.services.is_empty();
    tables.adopt(learned);
    let network = network::Config { state_dir: state.into(), uplink: "eth0".into() };
    let network = PodNetwork::new(network, Arc::new(Served(Arc::clone(&dataplane)))).unwrap();
    network.set_pod_cidrs(&pod_cidrs(node)).unwrap();
    join(&dataplane, &mut tables, node);
    if !restarted {
        dataplane.apply(&tables.start(dataplane.now_ms())).unwrap();
    }
    eprintln!("node {node}: XDP {}", dataplane.xdp().unwrap_or("off"));
    say("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for order in std::io::stdin().lines() {
        match obey(&order.unwrap(), &dataplane, &mut tables, &network, &runtime) {
            Ok(answer) => say(format!("ok {answer}").trim_end()),
            Err(error) => say(&format!("error {error}")),
        }
    }
}

/// Tables of a test need not be large.
fn small() -> Vec<(&'static str, u32)> {
    ["bl1_flow4", "bl1_flow6"].into_iter().map(|name| (name, 4096)).collect()
}

/// Tells tables, kernel routes and neighbours about both nodes.
fn join(dataplane: &Arc<Dataplane>, tables: &mut Tables, own: usize) {
    let numbered = [0, 1].map(|node| (node, node as u16 + 1));
    let rows = numbered.map(|(node, number)| NodeAddresses {
        number,
        local: node == own,
        addresses: addresses(node),
        pod_cidrs: pairs(&pod_cidrs(node)),
        tunnel: None,
    });
    dataplane.set_nodes(&rows).unwrap();
    let facts = numbered.map(|(node, number)| NodeFacts {
        name: format!("node{node}"),
        number,
        addresses: addresses(node),
    });
    dataplane.apply(&tables.set_nodes(&facts, "", dataplane.now_ms())).unwrap();
    let routes = [0, 1].map(|node| NodeRoute {
        name: format!("node{node}"),
        addresses: addresses(node),
        pod_cidrs: pod_cidrs(node),
        tunnel: None,
    });
    NodeRoutes::open().unwrap().sync(&desired(&format!("node{own}"), &routes), None).unwrap();
    let mut neighbours = Neighbours::open("eth0").unwrap();
    let mut watch = neighbours.watch().unwrap();
    neighbours.manage(&dataplane.wanted_neighbours()).unwrap();
    for (address, mac) in neighbours.known().unwrap() {
        dataplane.set_neighbour(address, Some(mac));
    }
    let dataplane = Arc::clone(dataplane);
    std::thread::spawn(move || {
        loop {
            for change in watch.changes().unwrap() {
                dataplane.set_neighbour(change.address, change.mac);
            }
        }
    });
}

fn obey(
    order: &str,
    dataplane: &Dataplane,
    tables: &mut Tables,
    network: &PodNetwork,
    runtime: &tokio::runtime::Runtime,
) -> Result<String, peer::Failure> {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    let (begun, now) = (Instant::now(), dataplane.now_ms());
    let identity = |uid: &str| PodIdentity { uid: uid.into(), namespace: "default".into(), name: uid.into() };
    let diff = match verb {
        "pod" => {
            let (uid, netns) = rest.split_once(' ').ok_or("pod UID NETNS")?;
            let interface = runtime.block_on(network.setup(&identity(uid), netns.as_ref()))?;
            return Ok(interface.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "));
        }
        "recover" => {
            let live: Vec<PodIdentity> = rest.split(' ').map(identity).collect();
            runtime.block_on(network.recover(&live))?;
            dataplane.drop_unclaimed_pods();
            Diff::default()
        }
        "service" => tables.service_applied(&serde_json::from_str(rest)?, now),
        "slice" => tables.slice_applied(&serde_json::from_str(rest)?, now),
        "start" => {
            let diff = tables.start(now);
            dataplane.apply(&diff)?;
            dataplane.forget_old_layouts();
            return Ok(String::new());
        }
        "grow" => return Ok(format!("{}", dataplane.grow_flows()?)),
        "collect" => return Ok(format!("{}", dataplane.collect_flows()?.entries)),
        _ => return Err(format!("unknown order {verb}").into()),
    };
    dataplane.apply(&diff)?;
    Ok(begun.elapsed().as_micros().to_string())
}
