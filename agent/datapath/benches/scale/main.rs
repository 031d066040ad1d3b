//! Scale of the service tables, without an API server: Services and EndpointSlices through `service::Tables` into the maps, as the agent
//! does it. One JSON line a result.
//!
//! ```text
//! cargo bench -p datapath --bench scale -- --services 10000 --endpoints 3 [--changes 1000] [--seconds 5] [--dual]
//! ```
//!
//! A child in a network namespace of its own is the agent: it loads everything, changes one endpoint at a time, and is killed; a second
//! child adopts what it left. What the API adds (JSON, watches) is measured on a whole cluster: `cargo xtask bench scale`.

mod cluster;
mod node;
mod usage;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use datapath::{Dataplane, NodeConfig, Options, Uplink, XdpChoice};
use service::{Diff, Tables};

use cluster::Cluster;
use node::Node;

type Failure = Box<dyn std::error::Error>;

/// Holds the child's part: `PHASE BPF_DIR CGROUP`.
const ROLE: &str = "BEELINE_BENCH_ROLE";
/// The rate at which CPU time is taken.
const CHANGES_PER_SECOND: u32 = 100;

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    cluster: Cluster,
    changes: usize,
    seconds: u64,
}

impl Case {
    fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut case = Self { cluster: Cluster::default(), changes: 1000, seconds: 5 };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut number = || -> Result<usize, Failure> {
                let text = words.next().ok_or_else(|| format!("{word}: a number is missing"))?;
                Ok(text.parse().map_err(|error| format!("{word} {text}: {error}"))?)
            };
            match word.as_str() {
                "--services" => case.cluster.services = number()?,
                "--endpoints" => case.cluster.endpoints = number()?,
                "--changes" => case.changes = number()?,
                "--seconds" => case.seconds = number()? as u64,
                "--dual" => case.cluster.dual = true,
                // cargo gives it.
                "--bench" => {}
                _ => {
                    return Err(
                        format!("{word}: --services, --endpoints, --changes, --seconds N, --dual").into()
                    );
                }
            }
        }
        Ok(case)
    }
}

fn main() -> ExitCode {
    let result = Case::parse(std::env::args().skip(1)).and_then(|case| match std::env::var(ROLE) {
        Ok(role) => child(&case, &role),
        Err(_) => parent(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the node, runs the first agent, kills it, and runs the second.
fn parent() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() || !datapath::has_programs() {
        println!("skipped: needs root and a built BPF object");
        return Ok(());
    }
    let node = Node::new()?;
    for phase in ["load", "adopt"] {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args().skip(1)).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env(ROLE, format!("{phase} {} {}", node.bpf_dir().display(), node.cgroup()));
        let mut child = node.run(|| command.spawn())??;
        let output = child.stdout.take().ok_or("the child's output")?;
        let mut done = false;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "done" {
                done = true;
                child.kill()?;
            } else {
                println!("{line}");
            }
        }
        child.wait()?;
        if !done {
            return Err(format!("the agent of phase {phase} ended early").into());
        }
    }
    Ok(())
}

/// The agent: says `done` and waits for its end.
fn child(case: &Case, role: &str) -> Result<(), Failure> {
    let [phase, bpf_dir, cgroup] = role.split(' ').collect::<Vec<_>>()[..] else { return Err(role.into()) };
    let say = |what: &str, values: serde_json::Value| {
        let Cluster { services, endpoints, dual } = case.cluster;
        let mut line =
            serde_json::json!({"case": what, "services": services, "endpoints": endpoints, "dual": dual});
        if let (Some(line), serde_json::Value::Object(values)) = (line.as_object_mut(), values) {
            line.extend(values);
        }
        println!("{line}");
    };
    let before = usage::memory()?;
    let begun = Instant::now();
    let (dataplane, learned) = open(bpf_dir, cgroup)?;
    let opened = begun.elapsed();
    let learned_services = learned.services.len();
    let mut tables = Tables::new("node0");
    tables.adopt(learned);
    let nodes = case.cluster.nodes();
    dataplane.apply(&tables.set_nodes(&nodes, "", dataplane.now_ms()))?;
    let empty = usage::memory()?;
    let loaded = load(case, &dataplane, &mut tables)?;
    let full = usage::memory()?;
    say(
        phase,
        serde_json::json!({
            "open_ms": ms(opened), "taken_ms": ms(loaded.taken), "compiled_ms": ms(loaded.compiled),
            "written_ms": ms(loaded.written), "total_ms": ms(opened + loaded.taken + loaded.compiled + loaded.written),
            "learned_services": learned_services, "rows_written": loaded.rows, "service_ports": tables.counts().0, "backends": tables.counts().1,
            "memory_start": before, "memory_open": empty, "memory_full": full,
        }),
    );
    if phase == "load" {
        say("change", changes(case, &dataplane, &mut tables)?);
        say("cpu", cpu(case, &dataplane, &mut tables)?);
        say("memory", serde_json::json!({ "memory_end": usage::memory()? }));
    }
    println!("done");
    std::io::stdout().flush()?;
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn open(bpf_dir: &str, cgroup: &str) -> Result<(Dataplane, service::Learned), Failure> {
    let device = network::device::find(node::DEVICE)?;
    let uplink = Uplink {
        name: node::DEVICE.into(),
        ifindex: device.index,
        mac: device.mac,
        mtu: device.mtu,
        veth: device.veth,
    };
    let options = Options {
        bpf_dir: bpf_dir.into(),
        cgroup: cgroup.into(),
        uplinks: vec![uplink],
        xdp: XdpChoice::Generic,
        // The flow tables are the kernel's memory, not the agent's, and nothing flows here.
        flow_entries: Some(4096),
        ..Options::default()
    };
    let config = NodeConfig {
        pod_cidrs: vec![("10.128.0.0".parse()?, 24), ("fd00:128::".parse()?, 64)],
        cluster_cidrs: vec![("10.128.0.0".parse()?, 9), ("fd00:128::".parse()?, 48)],
        service_cidrs: vec![("10.96.0.0".parse()?, 12), ("fd00:96::".parse()?, 108)],
        addresses: vec!["172.30.0.11".parse()?, "fd30::11".parse()?],
        spoof_check: true,
        masquerade: true,
        ..NodeConfig::default()
    };
    Ok(Dataplane::open(options, config)?)
}

/// How long a full load took, by part.
#[derive(Default)]
struct Load {
    /// Facts taken from the objects.
    taken: Duration,
    /// The difference computed.
    compiled: Duration,
    /// The difference written.
    written: Duration,
    rows: usize,
}

/// Objects as the first lists bring them, one at a time; only the agent's share is timed.
fn load(case: &Case, dataplane: &Dataplane, tables: &mut Tables) -> Result<Load, Failure> {
    let mut load = Load::default();
    for index in 0..case.cluster.services {
        let service = case.cluster.service(index);
        let begun = Instant::now();
        dataplane.apply(&tables.service_applied(&service, dataplane.now_ms()))?;
        load.taken += begun.elapsed();
        for slice in case.cluster.slices(index) {
            let begun = Instant::now();
            dataplane.apply(&tables.slice_applied(&slice, dataplane.now_ms()))?;
            load.taken += begun.elapsed();
        }
    }
    let begun = Instant::now();
    let diff = tables.start(dataplane.now_ms());
    load.compiled = begun.elapsed();
    load.rows = rows(&diff);
    let begun = Instant::now();
    dataplane.apply(&diff)?;
    load.written = begun.elapsed();
    Ok(load)
}

fn rows(diff: &Diff) -> usize {
    diff.backends.len() + diff.services.len() + diff.frontends.len()
}

/// One endpoint of one service is replaced, again and again.
fn changes(case: &Case, dataplane: &Dataplane, tables: &mut Tables) -> Result<serde_json::Value, Failure> {
    let (mut compiled, mut written, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..case.changes {
        let slice = case.cluster.changed(change);
        let begun = Instant::now();
        let diff = tables.slice_applied(&slice, dataplane.now_ms());
        let middle = Instant::now();
        dataplane.apply(&diff)?;
        let end = Instant::now();
        if rows(&diff) == 0 {
            return Err(format!("change {change} changed nothing").into());
        }
        compiled.push(middle - begun);
        written.push(end - middle);
        total.push(end - begun);
    }
    Ok(serde_json::json!({
        "changes": case.changes, "total_us": quantiles(total), "compiled_us": quantiles(compiled), "written_us": quantiles(written),
    }))
}

/// CPU time while changes come at a fixed rate, and while none come.
fn cpu(case: &Case, dataplane: &Dataplane, tables: &mut Tables) -> Result<serde_json::Value, Failure> {
    let (begun, used) = (Instant::now(), usage::cpu()?);
    let mut change = case.changes;
    let mut built = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(case.seconds) {
        let making = Instant::now();
        let slice = case.cluster.changed(change);
        built += making.elapsed();
        dataplane.apply(&tables.slice_applied(&slice, dataplane.now_ms()))?;
        change += 1;
        let next = Duration::from_secs(1) * (change - case.changes) as u32 / CHANGES_PER_SECOND;
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
    }
    let busy = (usage::cpu()? - used).saturating_sub(built).as_secs_f64() / begun.elapsed().as_secs_f64();
    let (begun, used) = (Instant::now(), usage::cpu()?);
    std::thread::sleep(Duration::from_secs(case.seconds.min(2)));
    let idle = (usage::cpu()? - used).as_secs_f64() / begun.elapsed().as_secs_f64();
    let percent = |share: f64| (share * 1e4).round() / 1e2;
    Ok(
        serde_json::json!({"changes_per_s": CHANGES_PER_SECOND, "busy_percent": percent(busy), "idle_percent": percent(idle)}),
    )
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn quantiles(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort();
    let at = |share: f64| {
        let index = ((times.len().max(1) - 1) as f64 * share).ceil() as usize;
        times.get(index).map(|time| time.as_nanos() as f64 / 1e3)
    };
    serde_json::json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}
