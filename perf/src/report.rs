//! `perf report`: results as a page (self-contained HTML, plots inside) and as Markdown. It computes nothing: what it
//! shows is in the results.

mod bounds;
mod html;
mod markdown;
mod plots;
mod section;
mod summary;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::environment::Environment;
use crate::flags::Report as Args;
use crate::results::{self, Line, Outcome};

/// What a file of results holds.
pub(crate) struct Report {
    pub(crate) environments: Vec<Environment>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Report {
    /// From the lines of a file.
    pub(crate) fn new(lines: Vec<Line>) -> Self {
        let mut report = Self { environments: Vec::new(), outcomes: Vec::new() };
        for line in lines {
            match line {
                Line::Environment(environment) => report.environments.push(environment),
                Line::Result(outcome) => report.outcomes.push(outcome),
            }
        }
        report
    }

    /// Groups, in order of appearance.
    fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for outcome in &self.outcomes {
            if !groups.contains(&outcome.group.as_str()) {
                groups.push(&outcome.group);
            }
        }
        groups
    }

    /// Whether nothing of a group was measured here.
    fn is_published(&self, group: &str) -> bool {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.group == group)
            .all(|outcome| outcome.published.is_some())
    }
}

/// What an environment says, as pairs of words.
fn facts(environment: &Environment) -> Vec<(String, String)> {
    let list = |pairs: &std::collections::BTreeMap<String, String>| {
        pairs.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
    };
    let fixed = [
        ("time", time(environment.time)),
        ("command", environment.command.clone()),
        ("revision", environment.revision.clone()),
        ("kernel", environment.kernel.clone()),
        ("CPU", format!("{} x {}", environment.cpus, environment.cpu)),
        ("memory", format!("{} MiB", environment.memory_mib)),
        ("virtual machine", if environment.virtual_machine { "yes" } else { "no" }.to_owned()),
        ("mitigations", list(&environment.mitigations)),
        ("settings", list(&environment.settings)),
        ("offloads", list(&environment.offloads)),
        ("versions", list(&environment.versions)),
        ("load average before", environment.load_before.clone()),
    ];
    fixed
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Seconds since 1970 as a date.
fn time(seconds: u64) -> String {
    let stamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    stamp.map_or_else(|| format!("{seconds} s since 1970"), |stamp| stamp.to_string())
}

/// What a reader must know before the first figure.
const NOTES: &[&str] = &[
    "A ratio is the rate of a lane divided by the rate of its reference, alternated with it in short slices in one run; \
     in brackets its 95 % interval. Above 1 the lane is faster.",
    "Absolute rates are of one machine and minute. Latencies below a millisecond across two CPUs are mostly wake-ups.",
    "Bulk TCP tells no lanes apart where the network is memory: segmentation offload hides what a packet costs.",
    "Rows with a dagger were not measured in this run: their source stands below the table.",
];

/// `perf report`.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        args.html.is_some() || args.markdown.is_some(),
        "nothing to write: --html or --markdown is needed"
    );
    let lines: Vec<_> = args.results.iter().map(|path| results::read(path)).collect::<Result<_>>()?;
    let report = Report::new(lines.concat());
    let names = || args.results.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    ensure!(!report.outcomes.is_empty(), "no result in {}", names());
    if let Some(path) = &args.html {
        write(path, &html::page(&report)?)?;
    }
    if let Some(path) = &args.markdown {
        write(path, &markdown::page(&report))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
