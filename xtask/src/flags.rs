//! The grammar of `cargo xtask`: every command with its help. No action is taken here.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Build, test and run Beeline.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Xtask {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Find what is missing on this machine (packages, rust-src, bpf-linker), say why it is needed, install it.
    Setup {
        /// Install what tests and benchmarks can go on without, too.
        #[arg(long)]
        optional: bool,
    },
    /// Build the eBPF object, the control plane, the agent and the images of the examples.
    Build(BuildArgs),
    /// Bring up a development cluster on this machine and show a service answering.
    Up(UpArgs),
    /// Show the processes, nodes and data planes of the development cluster.
    Status {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Remove the development cluster: every process, namespace, mount, link and cgroup.
    Down,
    /// Run a command in the client's namespace, outside the cluster.
    Client {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Run a command on a node: in its network namespace and its cgroup.
    Node {
        /// The node's name, for example `node1`.
        name: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Work with the images of the cluster's nodes.
    #[command(subcommand)]
    Image(Image),
    /// Run the tests; the last line is `N passed, N failed`.
    Test(TestArgs),
    /// Look for packets that break a rule of the data path's stages; the first finding ends it with an error.
    Fuzz {
        /// For how long.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
    },
    /// Measure: services against their peers on this machine, or the agent on a cluster with many services.
    Bench(BenchArgs),
    /// Renew the tables in documents that are made from code.
    Codegen {
        /// Only say what is stale.
        #[arg(long)]
        check: bool,
    },
    /// Check what can be checked about the tree: formatting, lints, invariants, sizes, generated documents.
    Tidy,
}

impl Command {
    /// Whether the command makes namespaces, mounts or BPF programs, or installs packages.
    pub(crate) fn needs_root(&self) -> bool {
        !matches!(self, Self::Build(_) | Self::Fuzz { .. } | Self::Codegen { .. } | Self::Tidy)
    }
}

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Build with optimisation: for measurements and real use.
    #[arg(long)]
    pub(crate) release: bool,
}

impl BuildArgs {
    pub(crate) fn profile(&self) -> Profile {
        Profile::of(self.release)
    }
}

/// Which cargo profile the binaries of a cluster come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

impl Profile {
    fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }
}

#[derive(Args)]
pub(crate) struct UpArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub(crate) nodes: u8,
    /// Make IPv6 the first family of nodes, pods and services (both families are always there).
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Run optimised binaries.
    #[arg(long)]
    pub(crate) release: bool,
    /// Run what is built, and build nothing.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Do not apply and ask the example.
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Who serves Services on the nodes.
    #[arg(long, value_enum, default_value_t = Proxy::Beeline)]
    pub(crate) proxy: Proxy,
}

/// Who serves Services on the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proxy {
    /// Beeline's data plane.
    #[default]
    Beeline,
    /// Rules as kube-proxy writes them in iptables mode, kept by `perf rules`; IPv4 only.
    Iptables,
    /// The same in nftables mode.
    Nftables,
}

impl UpArgs {
    pub(crate) fn profile(&self) -> Profile {
        Profile::of(self.release)
    }
}

#[derive(Subcommand)]
pub(crate) enum Image {
    /// Turn a root directory or an OCI tar into an image in every node's containerd.
    Load {
        /// `NAME=DIR` or `NAME=TAR`, for example `web=./rootfs`.
        #[arg(value_parser = parse_image_source)]
        source: ImageSource,
    },
}

/// An image's name and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageSource {
    pub(crate) name: String,
    pub(crate) path: std::path::PathBuf,
}

fn parse_image_source(text: &str) -> Result<ImageSource, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok(ImageSource { name: name.to_owned(), path: path.into() })
        }
        _ => Err(format!("`{text}` is not NAME=DIR or NAME=TAR")),
    }
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Which tests.
    #[arg(value_enum, default_value_t = Suite::All)]
    pub(crate) suite: Suite,
    /// Cluster scenarios whose name contains this text only.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Leave the cluster of the scenarios up.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Run what is built, and build nothing (cluster scenarios).
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Scenarios under load run at the load of the goals instead of a moderate one.
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) scale: Option<BenchScale>,
    /// A smoke of every case: its figures say nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Directory for the results (JSON lines) and the report (HTML and Markdown); `target/bench` if not given.
    #[arg(long)]
    pub(crate) out: Option<std::path::PathBuf>,
    /// Further arguments of `perf suite`.
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum BenchScale {
    /// A development cluster with many services: full sync, changes, memory and CPU of one agent.
    Scale {
        /// `SERVICESxENDPOINTS`, for example `10000x3`. Repeat it for more; by default 10000x3 and 5000x50.
        #[arg(long = "case", value_parser = parse_size)]
        cases: Vec<(usize, usize)>,
        /// Run what is built, and build nothing.
        #[arg(long)]
        no_build: bool,
    },
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let numbers =
        text.split_once('x').and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
    match numbers {
        Some((services @ 1..=60_000, endpoints @ 1..=100)) => Ok((services, endpoints)),
        _ => Err(format!("`{text}` is not SERVICESxENDPOINTS (up to 60000 and 100)")),
    }
}

/// A group of tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Every crate's own tests; those that need root or a package say so and are skipped without it.
    Unit,
    /// Golden packets on the host and in the kernel.
    Packets,
    /// Scenarios on a whole cluster: real etcd, containerd, kubectl.
    Cluster,
    /// All of them.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Xtask::command().debug_assert();
    }

    #[test]
    fn an_image_source_needs_a_name_and_a_path() {
        assert_eq!(
            parse_image_source("web=./rootfs"),
            Ok(ImageSource { name: "web".into(), path: "./rootfs".into() })
        );
        for wrong in ["web", "=x", "web="] {
            assert!(parse_image_source(wrong).is_err_and(|error| error.contains(wrong)));
        }
    }
}
