//! `cargo xtask status`: the cluster's processes, its nodes as the API shows them, and each node's data plane.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::daemon::Daemon;
use crate::cluster::plan::{self, Plan};
use crate::cluster::{agent, containerd, control, kubectl, rules};
use crate::flags::Proxy;

/// Prints the status, as text or as one JSON document.
pub(crate) fn run(as_json: bool) -> Result<()> {
    let plan = Plan::read()?;
    let document = document(&plan);
    if as_json {
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    println!("kubeconfig  {}", plan::kubeconfig().display());
    for process in document["processes"].as_array().into_iter().flatten() {
        let rss = process["rss_kib"]
            .as_u64()
            .map_or("dead".to_owned(), |kib| format!("{:.1} MB", kib as f64 / 1024.0));
        println!("{:<11} {rss}", process["name"].as_str().unwrap_or_default());
    }
    println!(
        "{}",
        kubectl::output(["get", "nodes", "-o", "wide"]).unwrap_or_else(|error| format!("{error:#}"))
    );
    if plan.proxy != Proxy::Beeline {
        println!("Services are served by rules: {:?}", plan.proxy);
        return Ok(());
    }
    for node in plan.nodes() {
        println!("--- data plane of {}", node.name);
        println!("{}", agent::status(&plan, &node, false).unwrap_or_else(|error| format!("{error:#}")));
    }
    Ok(())
}

fn document(plan: &Plan) -> Value {
    let mut daemons = vec![control::daemon(), containerd::daemon()];
    daemons.extend((plan.proxy != Proxy::Beeline).then(rules::daemon));
    let agents = plan.nodes().iter().map(agent::daemon).collect::<Vec<_>>();
    let processes: Vec<_> = daemons.iter().chain(&agents).map(process).collect();
    let nodes = kubectl::output(["get", "nodes", "-o", "json"]).ok();
    let nodes = nodes.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let data_planes: serde_json::Map<_, _> = plan
        .nodes()
        .iter()
        .map(|node| {
            let status =
                agent::status(plan, node, true).ok().and_then(|text| serde_json::from_str(&text).ok());
            (node.name.clone(), status.unwrap_or(Value::Null))
        })
        .collect();
    json!({"plan": plan, "processes": processes, "nodes": nodes.map(|list| list["items"].clone()), "dataPlanes": data_planes})
}

fn process(daemon: &Daemon) -> Value {
    let pid = daemon.pid().map(|pid| pid.as_raw_nonzero().get());
    json!({"name": daemon.name, "pid": pid, "rss_kib": pid.and_then(resident_kib)})
}

/// A process's resident memory in KiB, from `/proc/PID/status`.
pub(crate) fn resident_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
