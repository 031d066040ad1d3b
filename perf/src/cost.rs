//! `perf cost`: what one run of a program costs, by BPF_PROG_TEST_RUN and by the kernel's own run-time statistics.
//!
//! BPF_PROG_TEST_RUN hands the same buffer to every run, so a program that changes the packet would see its own result.
//! A wrapper writes the packet anew before each run and tail-calls the program; the same wrapper around a program that
//! does nothing is measured in turn, and its time taken off.
//!
//! It measures warm caches and predicted branches: a lower bound of what a packet costs on a busy machine.

mod cases;
mod kernel;
mod sockets;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::flags::Cost;
use crate::progress::Progress;
use crate::results::{Line, Outcome, Unit, Writer};
use crate::statistics::{self, Estimate};

pub(crate) use cases::{CASES, Case};
pub(crate) use kernel::{Bench, Loaded};

/// About what loading and filling the tables takes for a case, and then its runs.
pub(crate) const LOAD: Duration = Duration::from_millis(700);
pub(crate) const EACH: Duration = Duration::from_millis(1200);

/// How often programs run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Runs in one slice.
    pub(crate) repeat: u32,
    /// Pairs of slices: nothing, program, program, nothing.
    pub(crate) pairs: usize,
    /// Runs before, which fill the tables in cases of new flows.
    pub(crate) warm_up: u32,
}

impl Plan {
    /// Seconds in all, or a smoke.
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            Self { repeat: 1000, pairs: 3, warm_up: 1000 }
        } else {
            // The flow tables have 65,536 entries: they are full before it is measured.
            Self { repeat: 50_000, pairs: 20, warm_up: 300_000 }
        }
    }
}

/// `perf cost`.
pub(crate) fn run(args: &Cost) -> Result<()> {
    let mut writer = Writer::new(args.out.as_deref())?;
    writer.write(&Line::Environment(Environment::record()))?;
    let progress = Progress::new(count());
    let failed = measure(&args.object, args.quick, args.only.as_deref(), &mut |outcome| {
        progress.step();
        progress.say(&describe(&outcome));
        writer.write(&Line::Result(outcome))
    })?;
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// How many cases there are.
pub(crate) fn count() -> usize {
    CASES.len() + sockets::CASES.len()
}

/// Measures every case whose name contains `only` and hands on each result. A case that fails does not end it: it has a
/// row without a value, and is named in what is returned.
pub(crate) fn measure(
    object: &Option<PathBuf>,
    quick: bool,
    only: Option<&str>,
    told: &mut dyn FnMut(Outcome) -> Result<()>,
) -> Result<Vec<String>> {
    let path = object.clone().unwrap_or_else(|| PathBuf::from("target/bpf/beeline.o"));
    let plan = Plan::new(quick);
    let mut failed = Vec::new();
    let mut tell = |name: &str, seen: Result<Seen>| {
        told(match seen {
            Ok(seen) => outcome(name, seen),
            Err(error) => {
                let why = format!("{error:#}");
                failed.push(format!("{name}: {why}"));
                not_measured(name, why)
            }
        })
    };
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        tell(case.name, kernel::in_namespace(|| Bench::new(&path, case)?.measure(&plan)))?;
    }
    for case in sockets::CASES.iter().filter(|case| wanted(case.name)) {
        tell(case.name, kernel::in_namespace(|| sockets::measure(&path, case, quick)))?;
    }
    Ok(failed)
}

/// What a case gave, nanoseconds a run.
pub(crate) struct Seen {
    pub(crate) net: Estimate,
    pub(crate) gross_ns: f64,
    pub(crate) loop_ns: f64,
    pub(crate) runs: u64,
    pub(crate) method: &'static str,
}

fn outcome(name: &str, seen: Seen) -> Outcome {
    Outcome {
        group: "program".to_owned(),
        test: name.to_owned(),
        lane: "beeline".to_owned(),
        services: None,
        reference: None,
        unit: Unit::Nanoseconds,
        estimate: seen.net,
        published: None,
        skipped: None,
        detail: json!({
            "gross_ns": seen.gross_ns, "loop_ns": seen.loop_ns, "runs": seen.runs, "method": seen.method,
        }),
    }
}

fn not_measured(name: &str, why: String) -> Outcome {
    let nothing = Estimate { value: 0.0, interval: [0.0; 2] };
    let seen = Seen { net: nothing, gross_ns: 0.0, loop_ns: 0.0, runs: 0, method: "none" };
    Outcome { skipped: Some(why), detail: Value::Null, ..outcome(name, seen) }
}

/// A result as a line for people.
pub(crate) fn describe(outcome: &Outcome) -> String {
    if let Some(why) = &outcome.skipped {
        return format!("{:<60} skipped: {why}", outcome.test);
    }
    let Estimate { value, interval: [low, high] } = outcome.estimate;
    format!("{:<60} {value:>8.1} ns ({low:.1} to {high:.1})", outcome.test)
}

/// The difference of two series of slices, pair by pair.
pub(crate) fn difference(gross: &[f64], loops: &[f64]) -> Estimate {
    let net: Vec<_> = gross.iter().zip(loops).map(|(gross, empty)| gross - empty).collect();
    statistics::mean(&net)
}
