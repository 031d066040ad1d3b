//! All source ports towards a backend are in use: new connections are dropped with a reason that is counted, an alarm and an Event say so,
//! connections that are there go on, and when ports are free again so is the way.
//!
//! The node has ten ports for this, so that forty clients are more than enough.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};

use super::soak::{Client, Load, Soak};
use super::{Report, contains, eventually, kubectl_with, kubectl_words, traffic};
use crate::cluster::agent;
use crate::cluster::plan::{Node, Plan};

const PORTS: &str = "20000-20009";
const CLIENTS: Load = Load { long: 40, short_per_minute: 0, udp_rate: 0 };
const DROPS: &str = "beeline_drops_total{reason=\"ports-exhausted\"}";
const ALARM: &str = "beeline_alarm{alarm=\"ports-exhausted\"}";
/// The alarm reads its counter every five seconds, and ends after half a minute without a drop.
const RAISED: Duration = Duration::from_secs(20);
const ENDED: Duration = Duration::from_secs(90);
/// A closing connection is remembered for a minute, and looked at every ten seconds.
const CLOSED: Duration = Duration::from_secs(150);

pub(super) fn run(plan: &Plan, report: &mut Report) {
    let entry = plan.nodes().remove(0);
    report.check("a backend is there, and a node with ten source ports", || {
        let far = plan.nodes().remove(plan.nodes().len() - 1);
        kubectl_with("apply", &include_str!("ports_run_out.yaml").replace("FAR_NODE", &far.name))?;
        kubectl_words("wait --for=condition=Ready pod/far --timeout=60s")?;
        restart_with(plan, &entry, &["--snat-ports", PORTS])
    });
    let targets = entry.addresses.map(|address| SocketAddr::from((address, 30192)));
    for target in targets {
        report.check(&format!("{target}: drops are counted, and connections that are there go on"), || {
            exhaust(plan, &entry, target)
        });
    }
    report.check("closed connections give their ports back", || {
        eventually(CLOSED, || match agent::metric(&entry, "beeline_snat_connections")? {
            0.0 => Ok(()),
            ports => bail!("{ports} connections hold a port"),
        })?;
        let few = Load { long: 2, short_per_minute: 60, udp_rate: 0 };
        let soak = Soak::start(plan, &client(&targets), few)?;
        std::thread::sleep(Duration::from_secs(3));
        soak.stop()?.all_connected()
    });
    report.check("an Event says that ports ran out, and one that they are free again", || {
        for reason in ["SourcePortsExhausted", "SourcePortsAvailable"] {
            eventually(ENDED, || {
                let events = kubectl_words(&format!("get events --field-selector reason={reason} -o name"))?;
                contains(&events, &["event/"])
            })?;
        }
        eventually(ENDED, || match agent::metric(&entry, ALARM)? {
            0.0 => Ok(()),
            _ => bail!("the alarm is still on"),
        })
    });
    report.check("the node has its ports back", || {
        restart_with(plan, &entry, &[])?;
        kubectl_words("delete pod/far service/far --grace-period=1").map(drop)
    });
}

fn restart_with(plan: &Plan, node: &Node, flags: &[&str]) -> Result<()> {
    agent::daemon(node).stop(Duration::from_secs(10))?;
    agent::ensure_with(plan, node, flags)?;
    agent::wait_until_synced(node, Duration::from_secs(30))
}

fn client(targets: &[SocketAddr]) -> Client<'_> {
    Client { name: "clients", place: traffic::client(), namespace: None, tcp: targets, udp: &[] }
}

/// Forty clients for ten ports.
fn exhaust(plan: &Plan, entry: &Node, target: SocketAddr) -> Result<()> {
    let before = agent::metric(entry, DROPS)?;
    // It waits for connections that cannot be made, for twenty seconds at most.
    let soak = Soak::start(plan, &client(&[target]), CLIENTS)?;
    eventually(RAISED, || match agent::metric(entry, ALARM)? {
        1.0 => Ok(()),
        _ => bail!("no alarm is on"),
    })?;
    let drops = agent::metric(entry, DROPS)? - before;
    let totals = soak.stop()?;
    println!("    {drops} packets dropped; {}", totals.summary());
    if drops == 0.0 {
        bail!("nothing was dropped");
    }
    totals.only_waited()
}
