//! `perf ratio` and `perf load`: one measurement of targets that the caller names. Nothing is started or deployed.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::alternate::{self, Side};
use crate::environment::Environment;
use crate::flags::{Load, Ratio};
use crate::load;
use crate::namespace::Namespace;
use crate::results::{Line, Outcome, Unit, Writer};
use crate::statistics::Estimate;

/// Before the first slice or second that counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// Connections that the client closes hold their port for a minute (TIME_WAIT), unless the kernel is told to keep none.
/// The reference and the target may be one address behind a socket load balancer, and share its ports.
const MOST_CONNECTIONS: usize = 10_000;

/// How many operations a client may do against one target.
pub(crate) fn most_operations(kind: crate::traffic::Kind, reset: bool) -> usize {
    let kept = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets").unwrap_or_default();
    if kind.uses_ports() && !reset && kept.trim() != "0" { MOST_CONNECTIONS } else { usize::MAX }
}

/// `perf ratio`.
pub(crate) fn ratio(args: &Ratio) -> Result<()> {
    let open = |path: &Option<std::path::PathBuf>| path.as_deref().map(Namespace::open).transpose();
    let (reference, target) = (open(&args.reference_netns)?, open(&args.target_netns)?);
    ensure!(
        reference.is_some() == target.is_some(),
        "--reference-netns and --target-netns are given both or not at all"
    );
    let kind = args.traffic.traffic;
    let plan = alternate::Plan {
        pairs: args.pairs as usize,
        slice: Duration::from_millis(args.slice_ms),
        warm_up: WARM_UP,
        most_operations: most_operations(kind, args.traffic.reset),
    };
    let side = |namespace, address| Side { namespace, traffic: kind.open(args.traffic.target(address)) };
    let seen = alternate::compare(
        &plan,
        side(reference.as_ref(), args.reference),
        side(target.as_ref(), args.target),
    )?;
    let Estimate { value, interval: [low, high] } = seen.ratio;
    for (name, side) in [("reference", &seen.reference), ("target", &seen.target)] {
        let latency = &side.latency;
        eprintln!(
            "{name:<10} {:>8.0}/s  p50 {:>7.1} us  p99 {:>7.1} us  CPU {:>6.1} us  ({} operations, {} failed)",
            side.rate, latency.p50_us, latency.p99_us, side.cpu_us, side.operations, side.failures
        );
    }
    eprintln!("target / reference: {value:.3} (95 %: {low:.3} to {high:.3}), {} pairs", seen.pairs);
    report(
        kind.name(),
        Unit::Ratio,
        seen.ratio,
        json!(seen),
        Some(args.reference.to_string()),
        args.target.to_string(),
    )
}

/// `perf load`.
pub(crate) fn load(args: &Load) -> Result<()> {
    let kind = args.traffic.traffic;
    let most = u64::try_from(most_operations(kind, args.traffic.reset)).unwrap_or(u64::MAX);
    let seen = load::run(&load::Plan {
        kind,
        target: args.traffic.target(args.target),
        time: Duration::from_secs(args.seconds),
        warm_up: WARM_UP,
        threads: usize::from(args.threads),
        rate: args.rate,
        most_operations: most,
        namespace: args.netns.clone(),
    })?;
    let latency = &seen.latency;
    eprintln!(
        "{:.0}/s in {:.1} s ({} operations, {} failed)  p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} us",
        seen.rate,
        seen.seconds,
        seen.operations,
        seen.failures,
        latency.p50_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us
    );
    let estimate = Estimate { value: seen.rate, interval: [seen.rate; 2] };
    report(kind.name(), Unit::Rate, estimate, json!(seen), None, args.target.to_string())
}

fn report(
    test: &str,
    unit: Unit,
    estimate: Estimate,
    detail: serde_json::Value,
    reference: Option<String>,
    lane: String,
) -> Result<()> {
    let mut writer = Writer::new(None)?;
    writer.write(&Line::Environment(Environment::record()))?;
    writer.write(&Line::Result(Outcome {
        group: "named targets".to_owned(),
        test: test.to_owned(),
        lane,
        services: None,
        reference,
        unit,
        estimate,
        published: None,
        skipped: None,
        detail,
    }))
}
