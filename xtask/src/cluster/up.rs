//! `cargo xtask up`: a table of steps, each done again at will. Whatever fails, or Ctrl-C, takes the cluster down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::plan::{self, Plan};
use crate::cluster::{agent, containerd, control, demo, down, fabric, images, kubectl, rules};
use crate::flags::{Proxy, UpArgs};
use crate::{build, shell};

type Step = (&'static str, fn(&Plan) -> Result<()>);

const STEPS: &[Step] = &[
    ("BPF file system", |_| mount_bpf()),
    ("network namespaces, links and addresses", fabric::ensure),
    ("containerd", |_| containerd::ensure()),
    ("images of the examples", images::load_examples),
    ("etcd and the control plane", control::ensure),
    ("certificates of the nodes", |plan| plan.nodes().iter().try_for_each(|node| control::issue(plan, node))),
    ("agents", |plan| plan.nodes().iter().try_for_each(|node| agent::ensure(plan, node))),
    ("nodes are Ready", wait_for_nodes),
    ("another proxy's rules, if asked for", rules::ensure),
];

/// Set by Ctrl-C; looked at between steps.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Builds, brings the cluster up and shows the example answering.
pub(crate) fn run(args: &UpArgs) -> Result<()> {
    if !args.no_build {
        build::run(args.profile())?;
    }
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Release)).context("handle Ctrl-C")?;
    let plan = choose(args)?;
    if plan.ipv6 && plan.proxy != Proxy::Beeline {
        bail!("--proxy iptables and nftables serve IPv4 only: --ipv6 needs --proxy beeline");
    }
    let started = Instant::now();
    let result = bring_up(&plan).and_then(|()| if args.no_demo { Ok(()) } else { demo::run(&plan) });
    if let Err(error) = result {
        eprintln!("up failed, taking down what was made");
        down::remove(false)?;
        return Err(error);
    }
    println!(
        "up in {:.1} s: export KUBECONFIG={}",
        started.elapsed().as_secs_f64(),
        plan::kubeconfig().display()
    );
    Ok(())
}

/// Runs all steps, saying how long each took.
pub(crate) fn bring_up(plan: &Plan) -> Result<()> {
    plan.write()?;
    for (name, step) in STEPS {
        if INTERRUPTED.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        let started = Instant::now();
        step(plan).with_context(|| format!("step `{name}`"))?;
        println!("  {:>6.2} s  {name}", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The plan of the cluster that is up, if it is the one asked for; else a new one.
pub(crate) fn choose(args: &UpArgs) -> Result<Plan> {
    let Ok(old) = Plan::read() else { return Ok(Plan::new(args, control::choose_port()?)) };
    let wanted = Plan::new(args, old.port);
    if wanted != old {
        bail!(
            "another cluster is up ({} nodes, proxy {:?}): `cargo xtask down` removes it",
            old.nodes,
            old.proxy
        );
    }
    Ok(wanted)
}

fn mount_bpf() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        shell::words("mount -t bpf bpf /sys/fs/bpf")?;
    }
    Ok(())
}

fn wait_for_nodes(plan: &Plan) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let ready = || {
        let path = r#"{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let output = kubectl::output(["get", "nodes", "-o", &format!("jsonpath={path}")])?;
        anyhow::Ok(output.lines().filter(|line| *line == "True").count())
    };
    loop {
        let count = ready()?;
        if count == usize::from(plan.nodes) {
            return Ok(());
        }
        if let Some(dead) = plan.nodes().iter().find(|node| agent::daemon(node).pid().is_none()) {
            // Waiting on a dead process fails with the end of its log.
            agent::daemon(dead).wait(Duration::ZERO, || false)?;
        }
        if INTERRUPTED.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            bail!(
                "{count} of {} nodes are Ready after 60 s; logs are in {}",
                plan.nodes,
                plan::logs().display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
