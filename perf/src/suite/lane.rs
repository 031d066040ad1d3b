//! What a lane's node does with services: a table of kinds, each with how it is set up. A lane that cannot be set up
//! here says why, and keeps its row.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::beeline::{self, Dataplane};
use super::topology::{self, BACKENDS, ECHO, NODE, NODE_SEGMENT, Topology};
use crate::peers::iptables::{self, ClusterCidr};
use crate::peers::load::{self, program};
use crate::peers::nftables;
use crate::peers::services::{TESTED_IP, TESTED_NODE_PORT, TESTED_PORT, services};
use crate::traffic::Target;

/// Services beyond which nftables is loaded only when forced: it takes minutes, and stalls a small machine.
const MOST_NFTABLES: usize = 10_000;
/// To load 10,000 services into nftables in parts, on two CPUs; in one transaction it is four times that.
const NFTABLES_SECONDS: f64 = 30.0;
/// To make a lane's namespaces.
const TOPOLOGY: Duration = Duration::from_millis(300);
/// Pods of the cluster, as rules know them: the client's and the backends' networks.
const CLUSTER: ClusterCidr<'static> = ClusterCidr("10.0.0.0/14");
const SERVICE_CIDR: &str = "10.96.0.0/16";

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody: plain routing, the backend's own address.
    None,
    /// Nobody, with connection tracking on: what every rule pays first.
    Conntrack,
    /// kube-proxy's rules in iptables mode.
    Iptables,
    /// kube-proxy's rules in nftables mode.
    Nftables,
    /// A proxy in user space on the node.
    Haproxy,
    /// Beeline; the client is a pod.
    BeelinePod,
    /// Beeline; the client is outside.
    BeelineOutside,
    /// Beeline with native XDP on the uplinks; the client is outside.
    BeelineXdp,
}

impl Kind {
    /// As in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Conntrack => "conntrack",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::BeelinePod | Self::BeelineOutside => "beeline",
            Self::BeelineXdp => "beeline-xdp",
        }
    }
}

/// Which lane is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    /// Zero where there are none.
    pub(crate) services: usize,
}

impl Wanted {
    /// Short enough for a namespace's name.
    pub(crate) fn tag(self) -> String {
        let kind = match self.kind {
            Kind::BeelinePod => "bp",
            Kind::BeelineOutside => "bo",
            Kind::BeelineXdp => "bx",
            kind => &kind.name()[..2],
        };
        format!("{kind}{}", self.services)
    }

    /// About how long it takes to make. Rules take the square of their number: each transaction looks at all there are.
    pub(crate) fn expected(self) -> Duration {
        let ten_thousand = self.services as f64 / 1e4;
        let seconds = match self.kind {
            Kind::Nftables => NFTABLES_SECONDS * ten_thousand.powi(2),
            Kind::Iptables => 1.5 * ten_thousand.powi(2),
            Kind::BeelinePod | Kind::BeelineOutside | Kind::BeelineXdp => 0.8 + ten_thousand,
            Kind::None | Kind::Conntrack | Kind::Haproxy => 0.0,
        };
        Duration::from_secs_f64(seconds) + TOPOLOGY
    }
}

/// A lane that serves.
pub(crate) struct Lane {
    pub(crate) wanted: Wanted,
    // Dropped in this order: what serves before where it serves.
    pub(crate) beeline: Option<Dataplane>,
    _proxy: Option<Proxy>,
    pub(crate) topology: Topology,
    /// How long it took to load all services.
    pub(crate) loaded_in: Duration,
}

impl Lane {
    /// Makes the lane and loads its services.
    pub(crate) fn new(wanted: Wanted, echo: &Path, forced: bool) -> Result<Self> {
        let topology = Topology::new(&wanted.tag(), echo)?;
        let all = services(wanted.services, &BACKENDS);
        let node = &topology.node;
        let started = Instant::now();
        let (mut beeline, mut proxy) = (None, None);
        match wanted.kind {
            Kind::None => {}
            Kind::Conntrack => {
                let table = "add table ip perf\nadd chain ip perf forwarded { type filter hook forward priority 0 ; }\n\
                    add rule ip perf forwarded ct state established accept\n\
                    add chain ip perf sent { type filter hook output priority 0 ; }\n\
                    add rule ip perf sent ct state established accept\n";
                node.inside(|| load::nftables(table))?;
            }
            Kind::Iptables => {
                let rules = iptables::rules(&all, CLUSTER);
                node.inside(|| load::iptables(&rules))?;
            }
            Kind::Nftables => {
                ensure!(
                    wanted.services <= MOST_NFTABLES || forced,
                    "more than {MOST_NFTABLES} services in nftables can stall a small machine: --force loads them"
                );
                let node_ports = [NODE, NODE_SEGMENT];
                for part in nftables::transactions(&all, CLUSTER, SERVICE_CIDR, &node_ports) {
                    node.inside(|| load::nftables(&part))?;
                }
            }
            Kind::Haproxy => proxy = Some(Proxy::start(&topology)?),
            Kind::BeelinePod | Kind::BeelineOutside | Kind::BeelineXdp => {
                beeline = Some(beeline::start(wanted.kind, &wanted.tag(), node, &all)?);
            }
        }
        let loaded_in = beeline.as_ref().map_or_else(|| started.elapsed(), |dataplane| dataplane.loaded_in);
        Ok(Self { wanted, beeline, _proxy: proxy, topology, loaded_in })
    }

    /// The service's cluster IP, or the backend itself where nobody serves.
    pub(crate) fn cluster_ip(&self) -> Target {
        match self.wanted.kind {
            Kind::None | Kind::Conntrack => direct(),
            Kind::Haproxy => {
                Target { address: NODE.into(), echo: TESTED_PORT, http: topology::HTTP, reset: false }
            }
            _ => Target { address: TESTED_IP.into(), echo: TESTED_PORT, http: topology::HTTP, reset: false },
        }
    }

    /// The service's node port, or the backend itself where nobody serves.
    pub(crate) fn node_port(&self) -> Target {
        match self.wanted.kind {
            Kind::None | Kind::Conntrack => direct(),
            Kind::Haproxy => self.cluster_ip(),
            _ => Target { address: NODE.into(), echo: TESTED_NODE_PORT, http: topology::HTTP, reset: false },
        }
    }
}

/// The first backend.
pub(crate) fn direct() -> Target {
    Target { address: BACKENDS[0].into(), echo: ECHO, http: topology::HTTP, reset: false }
}

/// A proxy in user space; it ends with its lane.
struct Proxy {
    child: Child,
    configuration: PathBuf,
}

impl Proxy {
    fn start(topology: &Topology) -> Result<Self> {
        let haproxy = program("haproxy").context("haproxy is not installed")?;
        let servers: String = BACKENDS
            .iter()
            .enumerate()
            .map(|(index, address)| format!("  server b{index} {address}:{ECHO}\n"))
            .collect();
        let text = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen tested\n  bind {NODE}:{TESTED_PORT}\n  balance random\n{servers}"
        );
        let configuration = std::env::temp_dir().join(format!("perf-haproxy-{}.cfg", std::process::id()));
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(haproxy);
        command.arg("-db").arg("-f").arg(&configuration);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A terminal's Ctrl-C is for the suite, which ends it.
        command.process_group(0);
        let child = topology.node.inside(|| command.spawn().context("start haproxy"))?;
        let mut proxy = Self { child, configuration };
        proxy.wait(topology)?;
        Ok(proxy)
    }
}

impl Proxy {
    /// Until it answers, or has ended.
    fn wait(&mut self, topology: &Topology) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let address = SocketAddr::from((NODE, TESTED_PORT));
        let answers = || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
        while !topology.client.inside(answers)? {
            if let Some(status) = self.child.try_wait()? {
                bail!("haproxy has ended: {status}");
            }
            ensure!(Instant::now() < deadline, "haproxy does not answer at {address}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.configuration));
    }
}
