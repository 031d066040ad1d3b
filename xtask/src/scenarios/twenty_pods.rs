//! A Deployment of twenty pods: all Ready; a deleted pod is replaced and leaves every node's tables. The times from
//! Ready to serving and from deletion to not serving are measured at the tables of every node, and printed.
//!
//! Resolution: the tables are polled by starting `beeline-agent status`, and pods are watched through kubectl; both
//! together take some ten milliseconds, which the printed times include.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Report, eventually, kubectl_with, kubectl_words, traffic::Background};
use crate::cluster::plan::Plan;
use crate::cluster::{agent, demo, kubectl};

const PODS: usize = 20;

pub(super) fn run(plan: &Plan, report: &mut Report) {
    report.check("twenty pods become Ready and serve", || {
        let manifest = include_str!("rollout.yaml")
            .replace("name: long", "name: twenty")
            .replace("app: long", "app: twenty");
        kubectl_with("apply", &manifest.replace("replicas: 4", "replicas: 0").replace("GRACE", "5"))?;
        let times = ready_to_serving(plan)?;
        print_times("Ready to serving on every node", &times)
    });
    report.check("a deleted pod is replaced and leaves every node's tables", || {
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(delete_one(plan)?);
        }
        print_times("deletion to not serving on every node", &times)
    });
    report.check("the twenty pods are removed", || {
        kubectl_words("delete deployment,service twenty --grace-period=1")?;
        eventually(Duration::from_secs(60), || match kubectl_words("get pods -l app=twenty -o name")? {
            left if left.is_empty() => Ok(()),
            left => bail!("pods are left: {left}"),
        })
    });
}

/// Scales to twenty and returns, for each pod, the time between its Ready condition (as a watcher sees it) and its
/// presence in every node's tables. A pod that serves before the watcher hears of it counts as zero.
fn ready_to_serving(plan: &Plan) -> Result<Vec<Duration>> {
    let service = service_address()?;
    let ready = watch_ready()?;
    kubectl_words(&format!("scale deployment twenty --replicas={PODS}"))?;
    let mut ready_at: BTreeMap<String, Instant> = BTreeMap::new();
    let mut serving_at: BTreeMap<String, Instant> = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while ready_at.len() < PODS || serving_at.len() < PODS {
        for (address, at) in ready.1.try_iter() {
            ready_at.entry(address).or_insert(at);
        }
        for address in serving(plan, &service)? {
            serving_at.entry(address).or_insert_with(Instant::now);
        }
        if Instant::now() > deadline {
            bail!("{} pods are Ready and {} serve after 120 s", ready_at.len(), serving_at.len());
        }
    }
    let times = ready_at
        .iter()
        .filter_map(|(pod, ready)| Some(serving_at.get(pod)?.saturating_duration_since(*ready)));
    Ok(times.collect())
}

/// Deletes the first pod; the time from the moment the API has accepted it to its absence from every node's tables.
fn delete_one(plan: &Plan) -> Result<Duration> {
    let service = service_address()?;
    let first = demo::field(
        &["get", "pods", "-l", "app=twenty"],
        "{.items[0].metadata.name}/{.items[0].status.podIP}",
    )?;
    let (name, address) = first.split_once('/').context("a pod's name and address")?;
    kubectl_words(&format!("delete pod {name} --wait=false"))?;
    let deleted = Instant::now();
    let gone = eventually(Duration::from_secs(30), || {
        let left = any_serving(plan, &service)?;
        if left.contains(address) {
            bail!("{address} is still in a table")
        }
        Ok(Instant::now())
    })?;
    eventually(Duration::from_secs(60), || match serving(plan, &service)?.len() {
        PODS => Ok(()),
        other => bail!("{other} pods serve"),
    })?;
    Ok(gone.duration_since(deleted))
}

fn service_address() -> Result<String> {
    demo::field(&["get", "service", "twenty"], "{.spec.clusterIP}")
}

/// Pod addresses that are in the service's table on every node.
fn serving(plan: &Plan, service: &str) -> Result<BTreeSet<String>> {
    let mut tables = tables(plan, service)?.into_iter();
    let first = tables.next().unwrap_or_default();
    Ok(tables.fold(first, |all, table| all.intersection(&table).cloned().collect()))
}

/// Pod addresses that are in the service's table on any node.
fn any_serving(plan: &Plan, service: &str) -> Result<BTreeSet<String>> {
    Ok(tables(plan, service)?.into_iter().flatten().collect())
}

fn tables(plan: &Plan, service: &str) -> Result<Vec<BTreeSet<String>>> {
    plan.nodes().iter().map(|node| Ok(backends(&agent::tables(plan, node)?, service))).collect()
}

fn backends(status: &Value, service: &str) -> BTreeSet<String> {
    let frontends = status["frontends"].as_array().into_iter().flatten();
    let backends = frontends
        .filter(|frontend| frontend["address"] == service)
        .filter_map(|frontend| frontend["backends"].as_array());
    backends.flatten().filter_map(|backend| Some(backend["address"].as_str()?.to_owned())).collect()
}

/// Watches pods; each message is a Ready pod's address and when this was heard. The watch ends with the guard.
fn watch_ready() -> Result<(Background, mpsc::Receiver<(String, Instant)>)> {
    let path = r#"{.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
    let mut watch = Background::start(&mut kubectl::command([
        "get",
        "pods",
        "-l",
        "app=twenty",
        "-w",
        "-o",
        &format!("jsonpath={path}"),
    ]))?;
    let output = watch.0.stdout.take().context("kubectl's output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_suffix(" True")
                && sender.send((address.to_owned(), Instant::now())).is_err()
            {
                break;
            }
        }
    });
    Ok((watch, receiver))
}

fn print_times(what: &str, times: &[Duration]) -> Result<()> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |share: f64| {
        sorted.get(((sorted.len() - 1) as f64 * share).round() as usize).copied().unwrap_or_default()
    };
    if sorted.is_empty() {
        bail!("nothing was measured");
    }
    println!(
        "    {what}: p50 {} ms, p99 {} ms over {}",
        at(0.5).as_millis(),
        at(0.99).as_millis(),
        sorted.len()
    );
    Ok(())
}
