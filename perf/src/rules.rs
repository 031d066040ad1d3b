//! `perf rules`: the rules that kube-proxy would write for a live cluster's Services, kept in network namespaces of nodes
//! while this runs: a peer for `perf service`, on clusters whose own proxy is off. No proxy for real use: IPv4, cluster IPs and
//! node ports of services with endpoints; no affinity, no policies, no connection-tracking entries removed.
//!
//! Two watches of `kubectl` say that something changed; then everything is read and what differs is written.

mod objects;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::flags::{RuleKind, Rules as Args};
use crate::namespace::Namespace;
use crate::peers::iptables::{self, ClusterCidr};
use crate::peers::services::ServicePort;
use crate::peers::{load, nftables};
use crate::service::kubectl::Kubectl;

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Before watches are started again, or a failed write is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Here each change replaces the whole table: more than this would stall a small machine.
const MOST_NFTABLES: usize = 1_000;

/// Why the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// An object is new, changed or gone.
    Changed,
    /// A watch ended.
    Ended,
    /// A signal.
    Stop,
}

/// `perf rules`.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "rules need root");
    let mut nodes = args.netns.iter().map(|path| Node::open(path)).collect::<Result<Vec<_>>>()?;
    let (sender, events) = mpsc::channel();
    let stop = sender.clone();
    ctrlc::set_handler(move || stop.send(Event::Stop).unwrap_or_default()).context("watch for signals")?;
    let result = follow(args, &mut nodes, &sender, &events);
    for node in &mut nodes {
        node.write(args, &[]).with_context(|| format!("remove rules from {}", node.path.display()))?;
    }
    result
}

fn follow(args: &Args, nodes: &mut [Node], sender: &Sender<Event>, events: &Receiver<Event>) -> Result<()> {
    let kubectl = Kubectl::new(args.kubeconfig.as_deref(), "default");
    let mut watches = Vec::new();
    let mut ready = args.ready_file.as_deref();
    loop {
        if watches.is_empty() {
            watches = ["services", "endpointslices"]
                .map(|kind| Watch::start(&kubectl, kind, sender.clone()))
                .into_iter()
                .collect::<Result<_>>()?;
        }
        match refresh(args, &kubectl, nodes) {
            Ok(()) => {
                if let Some(path) = ready.take() {
                    std::fs::write(path, "").with_context(|| format!("write {}", path.display()))?;
                }
            }
            Err(error) => {
                eprintln!("rules stay as they are: {error:#}");
                thread::sleep(PAUSE);
                // A write that failed is tried again even if nothing changes.
                let _ = sender.send(Event::Changed);
            }
        }
        let first = events.recv().context("the watches are gone")?;
        thread::sleep(if first == Event::Ended { PAUSE } else { GATHER });
        let all: Vec<_> = [first].into_iter().chain(events.try_iter()).collect();
        if all.contains(&Event::Stop) {
            return Ok(());
        }
        if all.contains(&Event::Ended) {
            watches.clear();
        }
    }
}

/// Reads the cluster and makes every namespace's rules what they should be.
fn refresh(args: &Args, kubectl: &Kubectl, nodes: &mut [Node]) -> Result<()> {
    let services = kubectl.json(&["get", "services", "--all-namespaces"])?;
    let slices = kubectl.json(&["get", "endpointslices", "--all-namespaces"])?;
    let ports = objects::service_ports(&services, &slices);
    ensure!(
        args.kind == RuleKind::Iptables || ports.len() <= MOST_NFTABLES,
        "{} service ports: more than {MOST_NFTABLES} are not loaded into nftables at once",
        ports.len()
    );
    nodes.iter_mut().try_for_each(|node| {
        node.write(args, &ports).with_context(|| format!("rules of {}", node.path.display()))
    })
}

/// A node's namespace and what was written there last.
struct Node {
    path: PathBuf,
    namespace: Namespace,
    written: String,
}

impl Node {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), namespace: Namespace::open(path)?, written: String::new() })
    }

    /// Makes the rules those of `ports`; without any, removes all of ours.
    fn write(&mut self, args: &Args, ports: &[ServicePort]) -> Result<()> {
        let cluster = ClusterCidr(&args.cluster_cidr);
        let wanted = match (args.kind, ports) {
            (_, []) => String::new(),
            (RuleKind::Iptables, _) => iptables::rules(ports, cluster),
            (RuleKind::Nftables, _) => {
                let addresses = self.inside(addresses)?;
                nftables::transactions(ports, cluster, &args.service_cidr, &addresses).concat()
            }
        };
        if wanted == self.written {
            return Ok(());
        }
        match args.kind {
            RuleKind::Iptables => {
                let change = iptables::change(&self.written, &wanted);
                self.inside(|| load::iptables(&change))?;
            }
            RuleKind::Nftables => {
                let replaced = format!("add table ip kube-proxy\ndelete table ip kube-proxy\n{wanted}");
                self.inside(|| load::nftables(&replaced))?;
            }
        }
        eprintln!("{}: {} service ports", self.path.display(), ports.len());
        self.written = wanted;
        Ok(())
    }

    /// Calls `work` on a thread of its own that lives there.
    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let enter = || self.namespace.enter().and_then(|()| work());
        thread::scope(|scope| scope.spawn(enter).join())
            .map_err(|_| anyhow::anyhow!("the thread in {} panicked", self.path.display()))?
    }
}

/// IPv4 addresses of the calling thread's network namespace, without loopback's: where node ports are served.
fn addresses() -> Result<Vec<Ipv4Addr>> {
    let output = std::process::Command::new("ip")
        .args(["-json", "-4", "address", "show", "scope", "global"])
        .output()
        .context("run ip")?;
    ensure!(output.status.success(), "ip address: {}", String::from_utf8_lossy(&output.stderr).trim());
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).context("read what ip gave")?;
    let infos = links.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array());
    let texts = infos.flatten().filter_map(|info| info["local"].as_str());
    texts.map(|text| text.parse().with_context(|| format!("address {text}"))).collect()
}

/// A `kubectl get --watch`; it ends with its owner.
struct Watch(Child);

impl Watch {
    /// Every object that there is counts as changed first: nothing is lost between reading and watching.
    fn start(kubectl: &Kubectl, kind: &str, events: Sender<Event>) -> Result<Self> {
        let mut command = kubectl.command(&["get", kind, "--all-namespaces", "--watch", "-o", "name"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run kubectl")?;
        let output = child.stdout.take().context("kubectl's output")?;
        thread::spawn(move || {
            for _ in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = events.send(Event::Changed);
            }
            let _ = events.send(Event::Ended);
        });
        Ok(Self(child))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
