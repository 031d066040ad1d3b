//! Scenarios on a whole cluster: real etcd, containerd, runc and kubectl, nodes as network namespaces.
//!
//! A scenario is one file with a `run`; the table below is their order. They share one cluster, made before the first
//! and removed after the last; a scenario leaves no objects behind. Timings are printed, never judged.

mod bad_input;
mod crashes;
mod kubectl_commands;
mod kubectl_streams;
mod no_rules;
mod perf_service;
mod ports_run_out;
mod rollout;
mod services;
mod soak;
mod traffic;
mod twenty_pods;
mod zero_loss;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cluster::plan::{self, Plan};
use crate::cluster::{down, kubectl, up};
use crate::flags::{Proxy, TestArgs, UpArgs};
use crate::shell;
use crate::test::Count;

type Scenario = (&'static str, fn(&Plan, &mut Report));

const SCENARIOS: &[Scenario] = &[
    ("services", services::run),
    ("no-rules", no_rules::run),
    ("perf-service", perf_service::run),
    ("kubectl-commands", kubectl_commands::run),
    ("kubectl-streams", kubectl_streams::run),
    ("bad-input", bad_input::run),
    ("rollout", rollout::run),
    ("twenty-pods", twenty_pods::run),
    ("crashes", crashes::run),
    ("zero-loss", zero_loss::run),
    ("ports-run-out", ports_run_out::run),
];

/// What takes the place of a scenario of the same name with `--full`.
const FULL: &[Scenario] = &[("zero-loss", zero_loss::run_full)];

/// Collects what the scenarios found.
#[derive(Default)]
pub(crate) struct Report {
    count: Count,
    scenario: &'static str,
}

impl Report {
    /// Runs one check, prints its result, and counts it.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let result = check();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.count.passed += 1;
                println!("cluster {}: {name} ... ok ({seconds:.1} s)", self.scenario);
            }
            Err(error) => {
                self.count.failed += 1;
                println!("cluster {}: {name} ... FAILED ({seconds:.1} s)\n    {error:#}", self.scenario);
            }
        }
    }
}

/// Brings a cluster up, runs the scenarios that `--only` leaves, and takes it down unless `--keep` is given.
pub(crate) fn run(args: &TestArgs) -> Result<Count> {
    let up_args = UpArgs {
        nodes: 2,
        ipv6: false,
        release: false,
        no_build: true,
        no_demo: true,
        proxy: Proxy::Beeline,
    };
    let plan = up::choose(&up_args)?;
    let mut report = Report::default();
    let brought_up = up::bring_up(&plan);
    let is_up = brought_up.is_ok();
    report.scenario = "up";
    report.check("a cluster comes up", || brought_up);
    if is_up {
        for (name, scenario) in
            SCENARIOS.iter().filter(|(name, _)| args.only.as_deref().is_none_or(|only| name.contains(only)))
        {
            report.scenario = name;
            let full = FULL.iter().find(|(full, _)| args.full && full == name);
            full.map_or(*scenario, |(_, full)| *full)(&plan, &mut report);
        }
    }
    if !args.keep {
        report.scenario = "down";
        let left = || down::remove(report_is_green(&report.count)).and_then(|()| nothing_is_left());
        let result = left();
        report.check("nothing is left of the cluster", || result);
    }
    Ok(report.count)
}

/// Logs are kept when something failed.
fn report_is_green(count: &Count) -> bool {
    count.failed == 0
}

fn nothing_is_left() -> Result<()> {
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let left: Vec<_> =
        namespaces.filter(|entry| entry.file_name().to_string_lossy().starts_with("bl-")).collect();
    if !left.is_empty() {
        bail!("network namespaces are left: {left:?}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if let Some(line) =
        mounts.lines().find(|line| line.contains(plan::RUN) || line.contains("target/cluster/"))
    {
        bail!("a mount is left: {line}");
    }
    let mount = crate::cluster::cgroup::unified()?;
    if let Some(group) = plan::cgroups(plan::MAX_NODES).iter().find(|group| mount.join(group).exists()) {
        bail!("a cgroup is left: {group}");
    }
    Ok(())
}

/// Tries `attempt` until it succeeds; after `limit` its last error is the result.
pub(crate) fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("still after {limit:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Fails unless `text` contains every one of `parts`.
pub(crate) fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        if !text.contains(part) {
            bail!("`{part}` is not in:\n{text}");
        }
    }
    Ok(())
}

/// kubectl with one line of words that hold no spaces.
pub(crate) fn kubectl_words(line: &str) -> Result<String> {
    kubectl::output(line.split_whitespace())
}

/// Feeds `manifest` to `kubectl ARGUMENTS -f -` and returns its output.
pub(crate) fn kubectl_with(arguments: &str, manifest: &str) -> Result<String> {
    let mut command = kubectl::command(arguments.split_whitespace().chain(["-f", "-"]));
    shell::fed(&mut command, manifest.as_bytes())
}

/// The error that a command must end with.
pub(crate) fn fails<T>(result: Result<T>) -> Result<String> {
    match result {
        Ok(_) => bail!("it succeeded, and it must not"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
