//! The proxy of a cluster that Beeline's data plane does not serve: one `perf rules` process writes rules of kube-proxy's shape
//! into all nodes.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::daemon::Daemon;
use crate::cluster::plan::{self, Plan};
use crate::flags::Proxy;
use crate::place::{Place, pin};
use crate::tree;

/// The process.
pub(crate) fn daemon() -> Daemon {
    Daemon::new("rules")
}

/// Starts it, if the plan wants it, unless it runs; waits until the first rules are there.
pub(crate) fn ensure(plan: &Plan) -> Result<()> {
    let kind = match plan.proxy {
        Proxy::Beeline => return Ok(()),
        Proxy::Iptables => "iptables",
        Proxy::Nftables => "nftables",
    };
    if daemon().pid().is_some() {
        return Ok(());
    }
    let ready = plan::directory().join("rules-ready");
    match std::fs::remove_file(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut command = Command::new(tree::program(plan.profile, "perf"));
    command.args(["rules", kind, "--cluster-cidr", &v4(&plan.cluster_cidr())]);
    command.args(["--service-cidr", &v4(&plan.service_cidr())]);
    command.arg("--kubeconfig").arg(plan::kubeconfig()).arg("--ready-file").arg(&ready);
    for node in plan.nodes() {
        command.arg("--netns").arg(pin(&node.namespace));
    }
    daemon().start(&Place::default(), &mut command, Stdio::null())?;
    daemon().wait(Duration::from_secs(20), || ready.exists())
}

/// The IPv4 range of a pair.
fn v4(pair: &str) -> String {
    pair.split(',').find(|range| range.contains('.')).unwrap_or(pair).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_ipv4_is_found_in_either_order() {
        for pair in ["10.96.0.0/16,fd00::/112", "fd00::/112,10.96.0.0/16"] {
            assert_eq!(v4(pair), "10.96.0.0/16");
        }
    }
}
