//! No service rule is outside eBPF: neither iptables nor nftables of any node holds anything.

use std::process::Command;

use anyhow::bail;

use super::Report;
use crate::cluster::plan::Plan;
use crate::shell;

const LISTINGS: &[&[&str]] = &[&["iptables-save"], &["ip6tables-save"], &["nft", "list", "ruleset"]];

pub(super) fn run(plan: &Plan, report: &mut Report) {
    for node in plan.nodes() {
        for listing in LISTINGS {
            let name = format!("{} of {} is empty", listing.join(" "), node.name);
            report.check(&name, || {
                let output =
                    node.host().run(|| shell::quiet(Command::new(listing[0]).args(&listing[1..])))?;
                match output.lines().find(|line| is_rule(line)) {
                    None => Ok(()),
                    Some(rule) => bail!("a rule: {rule}"),
                }
            });
        }
    }
}

/// Comments, table names, the built-in chains and `COMMIT` are no rules.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with(['#', '*', ':']) || line == "COMMIT")
}
