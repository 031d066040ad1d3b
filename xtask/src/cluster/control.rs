//! The control plane's process: in its own namespace, with one more listener on this machine's loopback for kubectl.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::daemon::Daemon;
use crate::cluster::kubectl;
use crate::cluster::plan::{self, Node, Plan, url_host};
use crate::place::Place;
use crate::{shell, tree};

/// The API server's port on the fabric, and the one it gets on loopback where it is free.
const PORT: u16 = 6443;

/// Gives its listener as fd 3, in the words of `sd_listen_fds(3)`, then becomes the program.
const PASS_LISTENER: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";

/// The process.
pub(crate) fn daemon() -> Daemon {
    Daemon::new("control")
}

/// A loopback port for kubectl: the usual one, or any that is free.
pub(crate) fn choose_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    Ok(listener.context("find a free port")?.local_addr()?.port())
}

/// Starts it unless it runs, and waits until it is ready.
pub(crate) fn ensure(plan: &Plan) -> Result<()> {
    if daemon().pid().is_none() {
        start(plan)?;
    }
    daemon().wait(Duration::from_secs(60), kubectl::ready)
}

fn start(plan: &Plan) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, plan.port))
        .with_context(|| format!("listen on 127.0.0.1:{} for kubectl", plan.port))?;
    let place = Place {
        namespace: Some(plan::CONTROL.to_owned()),
        cgroup: Some(format!("{}/control", plan::CGROUP)),
    };
    let mut command = place.command("/bin/sh")?;
    command.args(["-c", PASS_LISTENER, "sh"]).arg(tree::program(plan.profile, "beeline-control")).arg("all");
    command
        .arg("--data-dir")
        .arg(data())
        .arg("--bind")
        .arg(format!("{}:{PORT}", url_host(plan.control()[0])));
    command.arg("--advertise-address").arg(plan.control()[0].to_string());
    command.args([
        "--service-cluster-ip-range",
        &plan.service_cidr(),
        "--cluster-cidr",
        &plan.cluster_cidr(),
    ]);
    command.arg("--admin-kubeconfig").arg(plan::kubeconfig());
    command.args(["--admin-server", &format!("https://127.0.0.1:{}", plan.port)]);
    daemon().start(&place, &mut command, Stdio::from(OwnedFd::from(listener)))
}

/// Writes the certificates and the kubeconfig of `node`.
pub(crate) fn issue(plan: &Plan, node: &Node) -> Result<()> {
    if node.directory().join("kubeconfig").exists() {
        return Ok(());
    }
    let mut command = Command::new(tree::program(plan.profile, "beeline-control"));
    command.arg("issue-node").arg("--data-dir").arg(data()).args(["--name", &node.name]);
    for address in node.addresses {
        command.arg("--address").arg(address.to_string());
    }
    command.arg("--server").arg(format!("https://{}:{PORT}", url_host(plan.control()[0])));
    command.arg("--out").arg(node.directory());
    shell::quiet(&mut command).map(drop)
}

fn data() -> std::path::PathBuf {
    plan::directory().join("control")
}
