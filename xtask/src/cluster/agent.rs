//! A node's agent process.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::daemon::Daemon;
use crate::cluster::plan::{self, Node, Plan};
use crate::cluster::{containerd, fabric};
use crate::flags::Proxy;
use crate::{shell, tree};

/// The process of `node`'s agent.
pub(crate) fn daemon(node: &Node) -> Daemon {
    Daemon::new(&node.name)
}

/// Starts the agent of `node` unless it runs. It is ready when its Node is.
pub(crate) fn ensure(plan: &Plan, node: &Node) -> Result<()> {
    ensure_with(plan, node, &[])
}

/// [`ensure`] with further flags.
pub(crate) fn ensure_with(plan: &Plan, node: &Node, flags: &[&str]) -> Result<()> {
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
    if plan.proxy != Proxy::Beeline {
        command.args(["--data-plane", "off"]);
    }
    command.args(flags);
    daemon(node).start(&place, &mut command, Stdio::null())
}

/// Waits until the tables of the agent of `node` follow the API.
pub(crate) fn wait_until_synced(node: &Node, limit: Duration) -> Result<()> {
    daemon(node).wait(limit, || ask_port(node, "10256/livez").is_ok())
}

/// A metric of the agent of `node`: the sum over all lines that begin with `name`, which may include labels.
pub(crate) fn metric(node: &Node, name: &str) -> Result<f64> {
    let text = ask_port(node, "10249/metrics")?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', ','])))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    if values.is_empty() {
        bail!("the agent of {} has no metric {name}", node.name);
    }
    Ok(values.iter().sum())
}

/// The answer of one of the agent's ports on its node's loopback.
pub(crate) fn ask_port(node: &Node, path: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "5", &format!("http://127.0.0.1:{path}")]);
    node.host().run(|| shell::quiet(&mut curl))
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
