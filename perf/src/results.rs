//! Results as lines of JSON: first where they come from, then one line a result. Files may be put together by `cat`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environment::Environment;
use crate::statistics::Estimate;

/// One line of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Line {
    /// What the results after it come from.
    Environment(Environment),
    /// A result.
    Result(Outcome),
}

/// What a value means: which is better, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Rate divided by the reference's rate.
    #[serde(rename = "ratio")]
    Ratio,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Operations (packets) a second.
    #[serde(rename = "/s")]
    Rate,
}

impl Unit {
    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::Ratio | Self::Rate)
    }

    /// As it is written behind a number.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "",
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Seconds => "s",
            Self::Rate => "/s",
        }
    }
}

/// One result. Its name is `group/test/lane`: the same name is the same measurement in another run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What kind of path was measured: `node-local`, `forwarded`, `node-port`, `program`, `live`, `rules`, `service`.
    pub(crate) group: String,
    /// What was done: a kind of traffic, or what was run.
    pub(crate) test: String,
    /// Who did it: `none`, `ct`, `iptables`, `nftables`, `beeline`, ..
    pub(crate) lane: String,
    /// How many services there were, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) services: Option<usize>,
    /// The lane that a ratio refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    pub(crate) unit: Unit,
    pub(crate) estimate: Estimate,
    /// Not measured here: who published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<String>,
    /// Why there is no value, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// Everything that was seen: latencies, CPU time, counts.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) detail: Value,
}

impl Outcome {
    /// `group/test/lane` and the number of services.
    pub(crate) fn name(&self) -> String {
        let services = self.services.map(|services| format!("-{services}")).unwrap_or_default();
        format!("{}/{}/{}{services}", self.group, self.test, self.lane)
    }
}

/// Writes lines to a file and tells people what was seen.
pub(crate) struct Writer {
    file: Option<File>,
}

impl Writer {
    /// Writes to `path` anew, or to standard output.
    pub(crate) fn new(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            File::create(path)
        };
        let file = path
            .map(|path| create(path).with_context(|| format!("create {}", path.display())))
            .transpose()?;
        Ok(Self { file })
    }

    /// One line, at once: what was measured survives what comes after it.
    pub(crate) fn write(&mut self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line)?;
        match &mut self.file {
            Some(file) => writeln!(file, "{text}").context("write a result"),
            None => {
                println!("{text}");
                Ok(())
            }
        }
    }
}

/// Reads a file's lines.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            let place = || format!("{} line {}", path.display(), number + 1);
            serde_json::from_str(&line.with_context(place)?).with_context(place)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A result with these values and nothing else of interest.
    pub(crate) fn outcome(name: [&str; 3], services: usize, unit: Unit, value: f64, half: f64) -> Outcome {
        Outcome {
            group: name[0].to_owned(),
            test: name[1].to_owned(),
            lane: name[2].to_owned(),
            services: Some(services),
            reference: (unit == Unit::Ratio).then(|| "none".to_owned()),
            unit,
            estimate: Estimate { value, interval: [value - half, value + half] },
            published: None,
            skipped: None,
            detail: Value::Null,
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let directory = std::env::temp_dir().join(format!("perf-results-{}", std::process::id()));
        let path = directory.join("sub/results.jsonl");
        let mut writer = Writer::new(Some(&path)).unwrap();
        writer.write(&Line::Environment(Environment::record())).unwrap();
        let outcome = outcome(["node-local", "crr", "iptables"], 10, Unit::Ratio, 0.8, 0.01);
        writer.write(&Line::Result(outcome)).unwrap();
        let lines = read(&path).unwrap();
        assert!(matches!(&lines[0], Line::Environment(environment) if environment.cpus > 0));
        assert!(matches!(&lines[1], Line::Result(result) if result.name() == "node-local/crr/iptables-10"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_line_that_is_not_a_result_is_named() {
        let path = std::env::temp_dir().join(format!("perf-bad-{}", std::process::id()));
        std::fs::write(&path, "{\"kind\": \"result\"}\n").unwrap();
        let error = read(&path).unwrap_err();
        assert!(format!("{error:#}").contains("line 1: missing field `group`"), "{error:#}");
        std::fs::remove_file(&path).unwrap();
    }
}
