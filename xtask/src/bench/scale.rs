//! The agent of a node of a cluster with many services: how long it takes to follow the API from nothing and after a crash, how long one
//! change of an endpoint takes from the event to the tables, and its memory and CPU time. One JSON line a result.
//!
//! The services have no selector and the EndpointSlices are written by hand; their endpoints do not exist, and nothing is sent to them.
//! Times of starts include the start of the process and the polling of its health port, some ten milliseconds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process::{self, Histogram};
use crate::cluster::api::{Api, Pace, Request};
use crate::cluster::plan::{Node, Plan};
use crate::cluster::{agent, down, up};
use crate::flags::{Profile, Proxy, UpArgs};
use crate::{build, scenarios};

const CASES: &[(usize, usize)] = &[(10_000, 3), (5_000, 50)];
/// Requests in one list for curl.
const BATCH: usize = 500;
/// At the same time: what one etcd without batching of its own can use.
const PARALLEL: u8 = 8;
const CHANGES: usize = 1_000;
const CHANGES_PER_SECOND: u32 = 100;
const IDLE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// What the agent measures from the arrival of an event on.
const SYNC: &str = "kubeproxy_sync_proxy_rules_duration_seconds";

/// One size.
#[derive(Clone, Copy)]
struct Case {
    services: usize,
    endpoints: usize,
}

/// Brings a cluster of one node up for each case, and takes it down.
pub(super) fn run(cases: &[(usize, usize)], no_build: bool) -> Result<()> {
    if !no_build {
        build::run(Profile::Release)?;
    }
    for (services, endpoints) in if cases.is_empty() { CASES } else { cases } {
        let args = UpArgs {
            nodes: 1,
            ipv6: false,
            release: true,
            no_build: true,
            no_demo: true,
            proxy: Proxy::Beeline,
        };
        let plan = up::choose(&args)?;
        let result = up::bring_up(&plan)
            .and_then(|()| Case { services: *services, endpoints: *endpoints }.measure(&plan));
        down::remove(result.is_ok())?;
        result?;
    }
    Ok(())
}

impl Case {
    fn measure(self, plan: &Plan) -> Result<()> {
        let node = plan.nodes().remove(0);
        let api = Api::open(plan)?;
        self.say("empty", json!({"memory": process::memory(pid(&node)?)?}));
        self.fill(&api, &node)?;
        self.verify(plan, &node)?;
        self.change(&api, &node)?;
        self.verify(plan, &node)?;
        let used = process::cpu(pid(&node)?)?;
        std::thread::sleep(IDLE);
        self.say("idle", json!({"cpu_percent": percent(process::cpu(pid(&node)?)? - used, IDLE)}));
        agent::daemon(&node).crash()?;
        self.start("start after kill -9", plan, &node)?;
        self.verify(plan, &node)?;
        agent::daemon(&node).stop(Duration::from_secs(10))?;
        std::fs::remove_dir_all(node.bpf_directory()).context("remove the tables")?;
        self.start("start with no tables", plan, &node)?;
        self.verify(plan, &node)
    }

    /// Fails unless every service has all its backends in the tables.
    fn verify(self, plan: &Plan, node: &Node) -> Result<()> {
        let tables = agent::tables(plan, node)?;
        let frontends = tables["frontends"].as_array().context("frontends")?;
        let backends = |frontend: &Value| frontend["backends"].as_array().map_or(0, Vec::len);
        let full = frontends.iter().filter(|frontend| backends(frontend) == self.endpoints).count();
        if full < self.services {
            bail!("{full} of {} services have {} backends in the tables", self.services, self.endpoints);
        }
        Ok(())
    }

    fn say(self, what: &str, values: Value) {
        let mut line = json!({"case": what, "services": self.services, "endpoints": self.endpoints});
        if let (Some(line), Value::Object(values)) = (line.as_object_mut(), values) {
            line.extend(values);
        }
        println!("{line}");
    }

    /// Creates everything and waits until the agent has it.
    fn fill(self, api: &Api, node: &Node) -> Result<()> {
        let begun = Instant::now();
        let post = |path: &str, body: Value| Request {
            method: "POST",
            path: path.to_owned(),
            body: body.to_string(),
        };
        api.send(&[post("/api/v1/namespaces", json!({"metadata": {"name": "scale"}}))], Pace::Parallel(1))?;
        let all: Vec<usize> = (0..self.services).collect();
        for batch in all.chunks(BATCH) {
            let services =
                batch.iter().map(|index| post("/api/v1/namespaces/scale/services", service(*index)));
            let slices = batch.iter().map(|index| {
                post("/apis/discovery.k8s.io/v1/namespaces/scale/endpointslices", self.slice(*index, None))
            });
            api.send(&services.chain(slices).collect::<Vec<_>>(), Pace::Parallel(PARALLEL))?;
        }
        let created = begun.elapsed();
        self.wait_for_rows(node)?;
        self.say(
            "created",
            json!({"objects": 2 * self.services, "seconds": created.as_secs_f64(), "behind_ms": (begun.elapsed() - created).as_millis() as u64,
                "memory": process::memory(pid(node)?)?}),
        );
        Ok(())
    }

    fn wait_for_rows(self, node: &Node) -> Result<()> {
        scenarios::eventually(PATIENCE, || {
            match agent::metric(node, "beeline_table_rows{table=\"frontends\"}")? as usize {
                rows if rows >= self.services => Ok(()),
                rows => bail!("{rows} of {} frontends are in the tables", self.services),
            }
        })
    }

    /// Replaces one endpoint of one service, again and again, at a fixed rate.
    fn change(self, api: &Api, node: &Node) -> Result<()> {
        let change = |number: usize| {
            let index = number.wrapping_mul(7919) % self.services;
            let slice = self.slice(index, Some(number));
            Request {
                method: "PATCH",
                path: format!("/apis/discovery.k8s.io/v1/namespaces/scale/endpointslices/s{index}"),
                body: json!({"endpoints": slice["endpoints"]}).to_string(),
            }
        };
        let requests: Vec<Request> = (0..CHANGES).map(change).collect();
        let before = Histogram::read(&agent::ask_port(node, "10249/metrics")?, SYNC);
        let (begun, used) = (Instant::now(), process::cpu(pid(node)?)?);
        api.send(&requests, Pace::PerSecond(CHANGES_PER_SECOND))?;
        let took = begun.elapsed();
        let cpu = percent(process::cpu(pid(node)?)? - used, took);
        let after = Histogram::read(&agent::ask_port(node, "10249/metrics")?, SYNC);
        let rate = CHANGES as f64 / took.as_secs_f64();
        self.say(
            "changes",
            json!({"per_second": rate.round(), "cpu_percent": cpu, "event_to_table": after.since(&before), "memory": process::memory(pid(node)?)?}),
        );
        Ok(())
    }

    /// Starts the agent and waits until its tables follow the API.
    fn start(self, what: &str, plan: &Plan, node: &Node) -> Result<()> {
        let begun = Instant::now();
        agent::ensure(plan, node)?;
        agent::wait_until_synced(node, PATIENCE)?;
        let synced = begun.elapsed();
        let used = process::cpu(pid(node)?)?;
        self.wait_for_rows(node)?;
        let sync = agent::metric(node, "kubeproxy_sync_full_proxy_rules_duration_seconds_sum").ok();
        self.say(
            what,
            json!({"synced_ms": synced.as_millis() as u64, "cpu_ms": used.as_millis() as u64, "full_sync_s": sync, "memory": process::memory(pid(node)?)?}),
        );
        Ok(())
    }

    /// The EndpointSlice of a service; a change has another last endpoint.
    fn slice(self, index: usize, change: Option<usize>) -> Value {
        let endpoint = |position: usize| {
            let mut number = index * self.endpoints + position;
            if let Some(change) = change.filter(|_| position + 1 == self.endpoints) {
                // Beyond all that are in use.
                number = self.services * self.endpoints + change;
            }
            let address = format!("10.{}.{}.{}", 128 + (number >> 16), number >> 8 & 255, number & 255);
            json!({"addresses": [address], "nodeName": format!("other{}", number % 100), "conditions": {"ready": true}})
        };
        json!({
            "metadata": {"name": format!("s{index}"), "labels": {
                "kubernetes.io/service-name": format!("s{index}"), "endpointslice.kubernetes.io/managed-by": "bench"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": (0..self.endpoints).map(endpoint).collect::<Vec<_>>(),
        })
    }
}

/// A Service without a selector; the API server gives it its address.
fn service(index: usize) -> Value {
    json!({"metadata": {"name": format!("s{index}")}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn pid(node: &Node) -> Result<i32> {
    let pid = agent::daemon(node).pid().with_context(|| format!("the agent of {} is dead", node.name))?;
    Ok(pid.as_raw_nonzero().get())
}

fn percent(used: Duration, of: Duration) -> f64 {
    (used.as_secs_f64() / of.as_secs_f64() * 1e4).round() / 1e2
}
