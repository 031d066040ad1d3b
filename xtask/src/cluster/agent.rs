//! A node's agent process.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::cluster::daemon::Daemon;
use crate::cluster::plan::{self, Node, Plan};
use crate::cluster::{containerd, fabric};
use crate::{shell, tree};

/// The process of `node`'s agent.
pub(crate) fn daemon(node: &Node) -> Daemon {
    Daemon::new(&node.name)
}

/// Starts the agent of `node` unless it runs. It is ready when its Node is.
pub(crate) fn ensure(plan: &Plan, node: &Node) -> Result<()> {
    let place = node.system();
    let directory = node.directory();
    let mut command = place.command(tree::program(plan.profile, "beeline-agent"))?;
    command.args(["run", "--node-name", &node.name, "--node-ip", &node.address_list()]);
    command.arg("--kubeconfig").arg(directory.join("kubeconfig"));
    command.arg("--root-dir").arg(directory.join("root"));
    command.arg("--run-dir").arg(format!("{}/{}", plan::RUN, node.name));
    command.arg("--containerd-socket").arg(containerd::socket());
    command.args(["--containerd-namespace", &node.containerd_namespace(), "--cgroup-root", &node.cgroup()]);
    command.arg("--serving-cert").arg(directory.join("kubelet.crt"));
    command.arg("--serving-key").arg(directory.join("kubelet.key"));
    command.arg("--client-ca").arg(directory.join("ca.crt"));
    command.arg("--bpf-dir").arg(node.bpf_directory());
    command.args(["--uplink", fabric::UPLINK]);
    command.args(["--cluster-cidr", &plan.cluster_cidr(), "--service-cidr", &plan.service_cidr()]);
    daemon(node).start(&place, &mut command, Stdio::null())
}

/// What `beeline-agent status` prints for `node`.
pub(crate) fn status(plan: &Plan, node: &Node, json: bool) -> Result<String> {
    ask(plan, node, if json { &["--json"] } else { &[] })
}

/// The frontends and backends in the data plane's tables of `node`.
pub(crate) fn tables(plan: &Plan, node: &Node) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&ask(plan, node, &["--json", "--tables"])?)?)
}

fn ask(plan: &Plan, node: &Node, flags: &[&str]) -> Result<String> {
    let mut command = Command::new(tree::program(plan.profile, "beeline-agent"));
    command.arg("status").arg("--bpf-dir").arg(node.bpf_directory()).args(flags);
    node.host().run(|| shell::quiet(&mut command))
}
