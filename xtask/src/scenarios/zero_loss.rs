//! Nothing is lost: long connections, short ones and datagrams go on over both families, from a pod (through its sockets and through its
//! packets alone) and from outside through a NodePort, while agents die, are upgraded to another table layout and change a thousand
//! endpoints, while the flow table grows, and while a node is drained. Only what led to a killed pod may break.
//!
//! The agent ends a connected UDP socket whose backend has left; `perf soak` connects it again. A datagram that was under way in that
//! moment is told apart from lost ones and printed: its answer has no socket.
//!
//! `--full` makes it 200 long connections, 5,000 short ones a minute and 150 datagrams a second.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::soak::{Client, Load, Soak};
use super::{Report, eventually, kubectl_with, kubectl_words, traffic};
use crate::cluster::api::{Api, Pace, Request};
use crate::cluster::plan::{Node, Plan};
use crate::cluster::{agent, cgroup, demo, kubectl};
use crate::place::Place;

/// Of each of the three clients.
const MODERATE: Load = Load { long: 20, short_per_minute: 500, udp_rate: 30 };
const FULL: Load = Load { long: 67, short_per_minute: 1_667, udp_rate: 50 };
/// One more client holds this many connections while the flow table grows: two entries each, past three quarters of [`SMALL_TABLE`].
const CROWD: Load = Load { long: 250, short_per_minute: 60, udp_rate: 3 };
/// Entries of the flow table that must grow.
const SMALL_TABLE: &str = "512";
const CHANGES: usize = 1_000;
const CHANGES_PER_SECOND: u32 = 100;
/// Before and after what happens: connections are made and used on both sides of it.
const SETTLE: Duration = Duration::from_secs(2);
const SYNC: Duration = Duration::from_secs(30);

/// A service that clients ask, by its name and its node port.
type Asked = (&'static str, u16);

const SELECTED: Asked = ("zero-loss", 30190);
const BY_HAND: Asked = ("zero-loss-by-hand", 30191);

/// Something that happens while clients ask; it gives the names of the pods that it killed.
struct Event {
    name: &'static str,
    asked: Asked,
    /// Done before there are clients.
    before: fn(&Plan) -> Result<()>,
    happens: fn(&Plan) -> Result<BTreeSet<String>>,
}

const EVENTS: &[Event] = &[
    event("kill -9 and restart of every agent", SELECTED, agents_die),
    event("upgrade of every agent to another table layout, and back", SELECTED, upgrades),
    event("a thousand endpoint changes", BY_HAND, endpoints_change),
    Event { before: begin_small, ..event("the flow table grows", SELECTED, table_grows) },
    event("a node is drained", SELECTED, node_drained),
];

const fn event(name: &'static str, asked: Asked, happens: fn(&Plan) -> Result<BTreeSet<String>>) -> Event {
    Event { name, asked, before: |_| Ok(()), happens }
}

/// The clients' pods: one connects by sockets that the node's programs see, of the other only packets are seen. Two pods, since ports are
/// given to a pod's sockets without knowing where packets alone are sent.
const PODS: [&str; 2] = ["zero-loss-sockets", "zero-loss-packets"];

pub(super) fn run(plan: &Plan, report: &mut Report) {
    run_at(plan, report, MODERATE);
}

/// The same with the load of the issue that this scenario shows.
pub(super) fn run_full(plan: &Plan, report: &mut Report) {
    run_at(plan, report, FULL);
}

fn run_at(plan: &Plan, report: &mut Report, load: Load) {
    report.check("backends and a client are there", || {
        kubectl_with("apply", include_str!("zero_loss.yaml"))?;
        for pod in PODS {
            let spec = format!(
                r#"{{"spec":{{"nodeName":"{}","terminationGracePeriodSeconds":1}}}}"#,
                client_node(plan).name
            );
            let run = ["run", pod, "--image=busybox", "--image-pull-policy=Never", "--overrides", &spec];
            kubectl::output(run.into_iter().chain(["--command", "--", "sleep", "1000000"]))?;
        }
        kubectl_words("rollout status deployment/zero-loss --timeout=60s")?;
        kubectl_words(&format!("wait --for=condition=Ready pod/{} pod/{} --timeout=60s", PODS[0], PODS[1]))?;
        let slices = slices(&pods()?, 15);
        let requests = slices.iter().map(|slice| Request {
            method: "POST",
            path: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned(),
            body: slice.to_string(),
        });
        Api::open(plan)?.send(&requests.collect::<Vec<_>>(), Pace::Parallel(1))
    });
    for event in EVENTS {
        report.check(event.name, || (event.before)(plan).and_then(|()| meanwhile(plan, load, event)));
    }
    report.check("the pods are removed", || {
        let [one, other] = PODS;
        kubectl_words("delete endpointslice zero-loss-ipv4 zero-loss-ipv6")?;
        kubectl_words(&format!(
            "delete deployment/zero-loss service/zero-loss service/zero-loss-by-hand pod/{one} pod/{other} --grace-period=1"
        ))
        .map(drop)
    });
}

/// The node of the clients' pod: not the one that is drained.
fn client_node(plan: &Plan) -> Node {
    plan.nodes().remove(plan.nodes().len() - 1)
}

/// Runs `event` under the load of three clients and judges what they lost.
fn meanwhile(plan: &Plan, load: Load, event: &Event) -> Result<()> {
    let (service, port) = event.asked;
    let [sockets, packets] = [client_namespace(plan, PODS[0])?, client_namespace(plan, PODS[1])?];
    let inside = addresses(&demo::field(&["get", "service", service], "{.spec.clusterIPs[*]}")?, 9090)?;
    let entry = plan.nodes().remove(0);
    let outside: Vec<SocketAddr> = entry.addresses.map(|address| (address, port).into()).to_vec();
    let client = |name, place: Place, namespace, targets| Client {
        name,
        place,
        namespace,
        tcp: targets,
        udp: targets,
    };
    let clients = [
        client("a pod's sockets", client_node(plan).host(), Some(sockets.as_path()), &inside),
        // Outside the node's cgroup.
        client("a pod's packets", Place::default(), Some(packets.as_path()), &inside),
        client("outside", traffic::client(), None, &outside),
    ];
    let soaks = clients.iter().map(|client| Soak::start(plan, client, load)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(SETTLE);
    let result = (event.happens)(plan);
    std::thread::sleep(SETTLE);
    let totals = soaks.into_iter().map(Soak::stop).collect::<Result<Vec<_>>>()?;
    totals.iter().for_each(|totals| println!("    {}", totals.summary()));
    let killed = result?;
    totals.iter().try_for_each(|totals| totals.judge(&killed))
}

/// The network namespace of a client's pod, by one of its processes.
fn client_namespace(plan: &Plan, pod: &str) -> Result<PathBuf> {
    let uid = demo::field(&["get", "pod", pod], "{.metadata.uid}")?;
    let pid = cgroup::member(&client_node(plan).cgroup(), &format!("pod{uid}"))?;
    Ok(Path::new("/proc").join(pid.to_string()).join("ns/net"))
}

fn addresses(words: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let parse =
        |word: &str| Ok((word.parse::<IpAddr>().with_context(|| format!("address {word}"))?, port).into());
    words.split_whitespace().map(parse).collect()
}

fn agents_die(plan: &Plan) -> Result<BTreeSet<String>> {
    for node in plan.nodes() {
        agent::daemon(&node).crash()?;
        std::thread::sleep(Duration::from_secs(1));
        agent::ensure(plan, &node)?;
        agent::wait_until_synced(&node, SYNC)?;
    }
    Ok(BTreeSet::new())
}

fn upgrades(plan: &Plan) -> Result<BTreeSet<String>> {
    for node in plan.nodes() {
        let before = pins(&node)?;
        for flags in [&["--layout-salt", "1"][..], &[]] {
            restart_with(plan, &node, flags)?;
            if !flags.is_empty() && pins(&node)? == before {
                bail!("the tables of {} are the same as before", node.name);
            }
        }
    }
    Ok(BTreeSet::new())
}

fn restart_with(plan: &Plan, node: &Node, flags: &[&str]) -> Result<()> {
    agent::daemon(node).stop(Duration::from_secs(10))?;
    agent::ensure_with(plan, node, flags)?;
    agent::wait_until_synced(node, SYNC)?;
    // What follows the first full sync: tables of other layouts are removed.
    std::thread::sleep(SETTLE);
    Ok(())
}

/// The paths below the node's pins.
fn pins(node: &Node) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![node.bpf_directory()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.insert(path);
        }
    }
    Ok(found)
}

/// Each change leaves another selection of the four pods in one of the slices. All pods live on, so connections to them do, too.
fn endpoints_change(plan: &Plan) -> Result<BTreeSet<String>> {
    let pods = pods()?;
    let change = |number: usize| {
        let slice = slices(&pods, 1 + number * 7 % 15).swap_remove(number % 2);
        Request {
            method: "PATCH",
            path: format!(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{}",
                slice["metadata"]["name"].as_str().unwrap_or_default()
            ),
            body: json!({ "endpoints": slice["endpoints"] }).to_string(),
        }
    };
    let requests: Vec<Request> = (0..CHANGES).map(change).collect();
    Api::open(plan)?.send(&requests, Pace::PerSecond(CHANGES_PER_SECOND))?;
    Ok(BTreeSet::new())
}

/// A node without flows and with a small table for them: a table never becomes smaller than the one that it takes over.
fn begin_small(plan: &Plan) -> Result<()> {
    let entry = plan.nodes().remove(0);
    agent::daemon(&entry).stop(Duration::from_secs(10))?;
    std::fs::remove_dir_all(entry.bpf_directory()).context("remove the tables")?;
    agent::ensure_with(plan, &entry, &["--flow-entries", SMALL_TABLE])?;
    agent::wait_until_synced(&entry, SYNC)
}

fn table_grows(plan: &Plan) -> Result<BTreeSet<String>> {
    const GROWTHS: &str = "beeline_flow_table_growths_total";
    let entry = plan.nodes().remove(0);
    let targets: Vec<SocketAddr> = entry.addresses.map(|address| (address, SELECTED.1).into()).to_vec();
    let crowd =
        Client { name: "the crowd", place: traffic::client(), namespace: None, tcp: &targets, udp: &targets };
    let soak = Soak::start(plan, &crowd, CROWD)?;
    let grown = eventually(Duration::from_secs(60), || match agent::metric(&entry, GROWTHS)? {
        0.0 => bail!("the flow table has not grown"),
        growths => Ok((growths, agent::metric(&entry, "beeline_flow_table_entries")?)),
    });
    std::thread::sleep(SETTLE);
    let totals = soak.stop()?;
    println!("    {}", totals.summary());
    let (growths, entries) = grown?;
    println!("    the flow tables grew {growths} times and have room for {entries} entries");
    totals.judge(&BTreeSet::new())?;
    restart_with(plan, &entry, &[])?;
    Ok(BTreeSet::new())
}

fn node_drained(plan: &Plan) -> Result<BTreeSet<String>> {
    let node = plan.nodes().remove(0).name;
    let here = format!(
        "get pods -l app=zero-loss --field-selector spec.nodeName={node} -o jsonpath={{.items[*].metadata.name}}"
    );
    let killed: BTreeSet<String> = kubectl_words(&here)?.split_whitespace().map(str::to_owned).collect();
    if killed.is_empty() {
        bail!("no backend runs on {node}");
    }
    kubectl_words(&format!(
        "drain {node} --pod-selector=app=zero-loss --delete-emptydir-data --timeout=60s"
    ))?;
    kubectl_words("rollout status deployment/zero-loss --timeout=60s")?;
    if !kubectl_words(&here)?.is_empty() {
        bail!("{node} still has backends");
    }
    kubectl_words(&format!("uncordon {node}"))?;
    Ok(killed)
}

/// The addresses of the four backends.
fn pods() -> Result<Vec<[String; 2]>> {
    let path = r#"{range .items[*]}{.status.podIPs[0].ip} {.status.podIPs[1].ip}{"\n"}{end}"#;
    let text = demo::field(&["get", "pods", "-l", "app=zero-loss"], path)?;
    let pair = |line: &str| {
        let (one, other) = line.split_once(' ')?;
        let (four, six) = if one.contains('.') { (one, other) } else { (other, one) };
        Some([four.to_owned(), six.to_owned()])
    };
    let pods: Vec<_> = text.lines().filter_map(pair).collect();
    if pods.len() != 4 {
        bail!("{} backends have two addresses: {text}", pods.len());
    }
    Ok(pods)
}

/// The two EndpointSlices of the service without a selector, with the pods whose bits are set.
fn slices(pods: &[[String; 2]], chosen: usize) -> Vec<Value> {
    let slice = |(family, name): (usize, &str)| {
        let members = pods.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 != 0);
        let endpoints = members
            .map(|(_, addresses)| json!({"addresses": [addresses[family]], "conditions": {"ready": true}}));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": format!("zero-loss-{}", name.to_lowercase()), "labels": {
                "kubernetes.io/service-name": "zero-loss-by-hand", "endpointslice.kubernetes.io/managed-by": "scenario"}},
            "addressType": name,
            "ports": [{"name": "tcp", "port": 9090, "protocol": "TCP"}, {"name": "udp", "port": 9090, "protocol": "UDP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    };
    [(0, "IPv4"), (1, "IPv6")].into_iter().map(slice).collect()
}
