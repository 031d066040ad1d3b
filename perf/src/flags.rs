//! The grammar of `perf`: every command with its help. No action is taken here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::traffic::{Kind, Target};

/// Measures services as their clients see them.
#[derive(Parser)]
#[command(name = "perf")]
pub(crate) struct Perf {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Compare two targets by fast alternation of short slices.
    #[command(alias = "crr")]
    Ratio(Ratio),
    /// Drive one target for a time, in a closed loop or at a rate.
    Load(Load),
    /// One datagram and its answer: no measurement, only whether a target answers.
    Datagram {
        /// Who is asked.
        #[arg(long)]
        target: SocketAddr,
        /// What is sent.
        #[arg(long, default_value = "x")]
        text: String,
    },
    /// Time Beeline's programs alone: what one packet or connect costs (needs root).
    Cost(Cost),
    /// Measure Beeline against plain routing and kube-proxy's rules on this machine (needs root).
    Suite(Suite),
    /// Measure the services of any cluster, from pods that are deployed for it and removed again.
    Service(Service),
    /// Measure how soon packets follow a change at the API of any cluster, by the number of Services it has.
    Control(Control),
    /// The part of `control` that runs in a client's pod: questions on its input, answers on its output.
    Probe,
    /// Write an image with this program and `echo` for a cluster's nodes.
    Image(Image),
    /// Write results as a page and as Markdown.
    Report(Report),
    /// Say result by result whether a second run was better.
    Compare {
        /// The results of the first run.
        old: PathBuf,
        /// Those of the second.
        new: PathBuf,
    },
    /// Keep the rules that kube-proxy would write for a cluster in network namespaces, until a signal ends it (needs root).
    Rules(Rules),
    /// Keep connections and datagrams going for a time, and count what got lost meanwhile.
    Soak(Soak),
}

/// How targets are reached, and what is done.
#[derive(Args, Clone)]
pub(crate) struct Traffic {
    /// What one operation is.
    #[arg(long, value_enum, default_value_t = Kind::Crr)]
    pub(crate) traffic: Kind,
    /// The port of HTTP where --traffic bulk is asked; lines and datagrams go to the targets' own ports.
    #[arg(long, default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// Connections are ended by a reset: none waits in TIME_WAIT, so that no port is used up.
    #[arg(long)]
    pub(crate) reset: bool,
}

impl Traffic {
    /// The server at `address`.
    pub(crate) fn target(&self, address: SocketAddr) -> Target {
        Target { address: address.ip(), echo: address.port(), http: self.http_port, reset: self.reset }
    }
}

#[derive(Args)]
pub(crate) struct Ratio {
    /// The reference: for example a pod's address and echo's port.
    #[arg(long)]
    pub(crate) reference: SocketAddr,
    /// What is compared with it: for example the ClusterIP in front of that pod.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// How many pairs of slices (a pair is reference, target, target, reference).
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) pairs: u32,
    /// How long each slice lasts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) slice_ms: u64,
    /// The reference is asked from the network namespace pinned here.
    #[arg(long)]
    pub(crate) reference_netns: Option<PathBuf>,
    /// The target is asked from the network namespace pinned here.
    #[arg(long)]
    pub(crate) target_netns: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Load {
    /// A server that speaks echo's protocols.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// How long it is measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Operations a second (open loop). Without it: as fast as they are answered.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How many threads; leave a CPU to the server.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Do it in the network namespace pinned here.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Cost {
    /// The BPF object; `target/bpf/beeline.o` if not given.
    #[arg(long)]
    pub(crate) object: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// A smoke: everything runs, figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where the results go, as lines of JSON.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Suite {
    /// Where the results go, as lines of JSON.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// The `echo` to start in every lane; beside this program if not given.
    #[arg(long)]
    pub(crate) echo: Option<PathBuf>,
    /// The BPF object whose programs are timed alone; `target/bpf/beeline.o` if not given.
    #[arg(long)]
    pub(crate) object: Option<PathBuf>,
    /// A smoke: every case for an instant, with ten services; figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only results whose name (group/test/lane) contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Numbers of services.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000])]
    pub(crate) services: Vec<usize>,
    /// Load more than 10,000 services into nftables, too: it may stall the machine for minutes.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct Report {
    /// Lines of JSON, as `perf suite`, `perf service` and others write them. Several files make one report.
    #[arg(required = true)]
    pub(crate) results: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Where the Markdown goes.
    #[arg(long)]
    pub(crate) markdown: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Service {
    /// How to reach the cluster; if not given, what kubectl takes.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// An image that the nodes have, or can pull (`perf image` writes it).
    #[arg(long, default_value = "perf")]
    pub(crate) image: String,
    /// The namespace that is made, and removed with all that is in it.
    #[arg(long, default_value = "perf-service")]
    pub(crate) namespace: String,
    /// The server's node; the first that takes pods if not given.
    #[arg(long)]
    pub(crate) server_node: Option<String>,
    /// What is done.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Crr, Kind::Rr, Kind::Udp, Kind::UdpFlow])]
    pub(crate) traffic: Vec<Kind>,
    /// Where the results go, as lines of JSON.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// How long the pods may take to be ready.
    #[arg(long, default_value_t = 120)]
    pub(crate) wait_seconds: u64,
    /// A smoke: figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leave everything deployed.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

#[derive(Args, Clone)]
pub(crate) struct Control {
    /// How to reach the cluster; if not given, what kubectl takes.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// An image that the nodes have, or can pull (`perf image` writes it).
    #[arg(long, default_value = "perf")]
    pub(crate) image: String,
    /// The namespace that is made, and removed with all that is in it.
    #[arg(long, default_value = "perf-control")]
    pub(crate) namespace: String,
    /// The client's node; the first that takes pods if not given.
    #[arg(long)]
    pub(crate) client_node: Option<String>,
    /// Which addresses pods and Services are asked by.
    #[arg(long, value_enum, default_value_t = Family::Ipv4)]
    pub(crate) family: Family,
    /// How many Services there are besides; each number is reached from the one before.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000])]
    pub(crate) services: Vec<usize>,
    /// How many requests create them at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) parallel: u8,
    /// How long is waited after they were created: a disk that still writes what etcd got is not what is measured.
    #[arg(long, default_value_t = 20)]
    pub(crate) settle_seconds: u64,
    /// How often an EndpointSlice is changed; from 368 on the 99th percentile has an interval of 95 %.
    #[arg(long, default_value_t = 400)]
    pub(crate) flips: usize,
    /// At most this many changes a second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) per_second: u32,
    /// Microseconds between two datagrams of the prober.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=1_000_000))]
    pub(crate) probe_us: u64,
    /// How many Services are added.
    #[arg(long, default_value_t = 100)]
    pub(crate) additions: usize,
    /// How many pods are started.
    #[arg(long, default_value_t = 20)]
    pub(crate) pods: usize,
    /// How long a pod may take to be ready, and a change to be seen.
    #[arg(long, default_value_t = 120)]
    pub(crate) wait_seconds: u64,
    /// Where the results go, as lines of JSON.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// A smoke: figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leave everything deployed.
    #[arg(long)]
    pub(crate) keep: bool,
}

impl Control {
    /// With `--quick`, a little of everything.
    pub(crate) fn smoke_if_quick(mut self) -> Self {
        if self.quick {
            self.services.iter_mut().for_each(|services| *services = (*services).min(20));
            (self.flips, self.additions) = (self.flips.min(10), self.additions.min(3));
            (self.pods, self.settle_seconds) = (self.pods.min(1), 0);
        }
        self
    }
}

#[derive(Args)]
pub(crate) struct Image {
    /// The image's name.
    #[arg(long, default_value = "perf")]
    pub(crate) name: String,
    /// The `echo` (linked statically); beside this program if not given.
    #[arg(long)]
    pub(crate) echo: Option<PathBuf>,
    /// Where the image goes: a tar file.
    #[arg(long, default_value = "perf.tar")]
    pub(crate) out: PathBuf,
}

/// Which of kube-proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuleKind {
    /// Chains.
    Iptables,
    /// Verdict maps.
    Nftables,
}

#[derive(Args)]
pub(crate) struct Rules {
    /// Which of kube-proxy's modes.
    #[arg(value_enum)]
    pub(crate) kind: RuleKind,
    /// How to reach the cluster; if not given, what kubectl takes.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The pinned network namespace of a node: /run/netns/NAME, or /proc/1/ns/net for this machine's own. Repeat it for more.
    #[arg(long, required = true)]
    pub(crate) netns: Vec<PathBuf>,
    /// The IPv4 addresses of pods: their traffic to services keeps its source.
    #[arg(long)]
    pub(crate) cluster_cidr: String,
    /// The IPv4 addresses of services.
    #[arg(long)]
    pub(crate) service_cidr: String,
    /// A file to write when the first rules are there.
    #[arg(long)]
    pub(crate) ready_file: Option<PathBuf>,
}

/// Everything is asked in turn: the first connection goes to the first target, the second to the second.
#[derive(Args, Clone)]
pub(crate) struct Soak {
    /// A server that answers lines (`echo`, port 9090). Repeat it for more.
    #[arg(long)]
    pub(crate) target: Vec<SocketAddr>,
    /// A server that answers datagrams. Repeat it for more.
    #[arg(long)]
    pub(crate) udp_target: Vec<SocketAddr>,
    /// How many connections are held open.
    #[arg(long, default_value_t = 10)]
    pub(crate) long: usize,
    /// Milliseconds between two requests on each of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) request_ms: u64,
    /// How many connections a minute are opened, asked once and closed.
    #[arg(long, default_value_t = 600)]
    pub(crate) short_per_minute: u64,
    /// How many datagrams a second are sent, over all of --udp-flows.
    #[arg(long, default_value_t = 100)]
    pub(crate) udp_rate: u64,
    /// How many sockets the datagrams leave from.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) udp_flows: u64,
    /// How long it goes on.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// How long what is still unanswered at the end is waited for.
    #[arg(long, default_value_t = 10)]
    pub(crate) grace_seconds: u64,
    /// Do it in the network namespace pinned here.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Perf::command().debug_assert();
    }
}
