//! What a process uses, as the kernel counts it, and what the agent's histograms say between two readings.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Clock ticks a second in `/proc` (`USER_HZ`, 100 on every architecture that Rust's Linux targets have).
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of all threads so far, from `/proc/PID/stat`.
pub(super) fn cpu(pid: i32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may hold spaces and brackets: fields are counted from the last bracket.
    let fields = stat.rsplit_once(')').context("a process's stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory in MB (10^6 bytes): all, anonymous, of files and mapped tables, and the most there was.
pub(super) fn memory(pid: i32) -> Result<Value> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some((kib * 1.024).round() / 1e3)
    };
    Ok(
        json!({"rss_mb": field("VmRSS"), "anon_mb": field("RssAnon"), "mapped_mb": field("RssFile"), "peak_mb": field("VmHWM")}),
    )
}

/// A histogram of the Prometheus text format: upper bounds in seconds with cumulative counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// Finds it in a scrape.
    pub(super) fn read(text: &str, name: &str) -> Self {
        let start = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&start)?.split_once("\"} ")?;
            Some((bound.replace("+Inf", "inf").parse().ok()?, count.parse().ok()?))
        };
        Self(text.lines().filter_map(bucket).collect())
    }

    /// How many observations there are since `before`, and the bounds in milliseconds below which half and 99 % of them are.
    pub(super) fn since(&self, before: &Self) -> Value {
        let earlier = |index: usize| before.0.get(index).map_or(0, |(_, count)| *count);
        let new: Vec<(f64, u64)> = self
            .0
            .iter()
            .enumerate()
            .map(|(index, (bound, count))| (*bound, count - earlier(index)))
            .collect();
        let total = new.last().map_or(0, |(_, count)| *count);
        let below = |share: f64| {
            let wanted = (total as f64 * share).ceil() as u64;
            new.iter().find(|(_, count)| *count >= wanted.max(1)).map(|(bound, _)| bound * 1e3)
        };
        json!({"count": total, "p50_below_ms": below(0.5), "p99_below_ms": below(0.99)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_read_and_compared_with_an_earlier_reading() {
        let text = |counts: [u64; 3]| {
            let [one, two, three] = counts;
            format!(
                "# TYPE x histogram\nx_bucket{{le=\"0.001\"}} {one}\nx_bucket{{le=\"0.002\"}} {two}\nx_bucket{{le=\"+Inf\"}} {three}\nx_sum 1\n"
            )
        };
        let (before, after) =
            (Histogram::read(&text([5, 5, 5]), "x"), Histogram::read(&text([103, 105, 105]), "x"));
        assert_eq!(after.since(&before), json!({"count": 100, "p50_below_ms": 1.0, "p99_below_ms": 2.0}));
    }

    #[test]
    fn this_process_has_memory() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert!(memory(pid).expect("a status")["rss_mb"].as_f64() > Some(0.0));
        cpu(pid).expect("a stat");
    }
}
