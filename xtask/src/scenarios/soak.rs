//! `perf soak` as a client of a scenario: long connections, short ones and datagrams while something happens, and what may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::plan::Plan;
use crate::place::Place;
use crate::tree;

/// How much a client does.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Connections held open.
    pub(super) long: u32,
    /// Connections opened, asked once and closed.
    pub(super) short_per_minute: u32,
    /// Datagrams a second, from three sockets.
    pub(super) udp_rate: u32,
}

/// Where a client is and whom it asks.
pub(super) struct Client<'a> {
    pub(super) name: &'a str,
    pub(super) place: Place,
    /// The network namespace, if it has no name.
    pub(super) namespace: Option<&'a Path>,
    pub(super) tcp: &'a [SocketAddr],
    pub(super) udp: &'a [SocketAddr],
}

/// A client that runs; killed when dropped.
pub(super) struct Soak {
    name: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// The bound of a run: scenarios end it before.
const SECONDS: &str = "600";

impl Soak {
    /// Starts a client and returns when all its long connections are up.
    pub(super) fn start(plan: &Plan, client: &Client<'_>, load: Load) -> Result<Self> {
        let mut command = client.place.command(tree::program(plan.profile, "perf"))?;
        command.args(["soak", "--seconds", SECONDS, "--udp-flows", "3"]);
        command.args(["--long", &load.long.to_string(), "--udp-rate", &load.udp_rate.to_string()]);
        command.args(["--short-per-minute", &load.short_per_minute.to_string()]);
        for (flag, targets) in [("--target", client.tcp), ("--udp-target", client.udp)] {
            for target in targets {
                command.arg(flag).arg(target.to_string());
            }
        }
        if let Some(namespace) = client.namespace {
            command.arg("--netns").arg(namespace);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = client.place.run(|| command.spawn().context("start perf soak"))?;
        let output = BufReader::new(child.stdout.take().context("perf's output")?).lines();
        let mut soak = Self { name: client.name.to_owned(), child, output };
        match soak.output.next() {
            Some(Ok(line)) if line == "ready" => Ok(soak),
            other => bail!("perf soak of {} said {other:?} instead of ready", soak.name),
        }
    }

    /// Ends it and gives what it counted.
    pub(super) fn stop(mut self) -> Result<Totals> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let line =
            self.output.next().with_context(|| format!("perf soak of {} gave no totals", self.name))??;
        let counts = serde_json::from_str(&line).with_context(|| format!("totals of perf soak: {line}"))?;
        Ok(Totals { name: self.name.clone(), counts, text: serde_json::from_str(&line)? })
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        // Ours, by its own handle; an error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a client counted.
pub(super) struct Totals {
    name: String,
    counts: Counts,
    text: Value,
}

#[derive(Deserialize)]
struct Counts {
    long: Long,
    short: Short,
    udp: Udp,
}

#[derive(Deserialize)]
struct Long {
    connects: u64,
    connects_failed: u64,
    answers: u64,
    unanswered: u64,
    broken: u64,
    wrong: u64,
    longest_ms: f64,
    broken_by_pod: BTreeMap<String, u64>,
    pods: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Short {
    ok: u64,
    failed: u64,
    slow: u64,
}

#[derive(Deserialize)]
struct Udp {
    sent: u64,
    answered: u64,
    wrong: u64,
    /// Those whose sockets were ended while they were under way are not among them: no path could have brought their answers.
    lost_by_pod: BTreeMap<String, u64>,
    cut_off: u64,
    longest_cut_off_ms: f64,
    failures: Failures,
}

#[derive(Deserialize)]
struct Failures {
    reasons: BTreeMap<String, u64>,
}

impl Totals {
    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let Counts { long, short, udp } = &self.counts;
        let lost = match (udp.lost_by_pod.is_empty(), udp.failures.reasons.is_empty()) {
            (true, true) => String::new(),
            _ => format!(
                " (lost {:?}, cut off {} within {:.1} ms, {:?})",
                udp.lost_by_pod, udp.cut_off, udp.longest_cut_off_ms, udp.failures.reasons
            ),
        };
        format!(
            "{}: {} long connections ({} answers, {} broken, longest {:.0} ms), {} short ({} failed, {} slow), {} of {} datagrams{lost}",
            self.name,
            long.connects,
            long.answers,
            long.broken,
            long.longest_ms,
            short.ok,
            short.failed,
            short.slow,
            udp.answered,
            udp.sent
        )
    }

    /// Fails unless everything was answered, but for what was on its way to a pod of `killed`.
    pub(super) fn judge(&self, killed: &BTreeSet<String>) -> Result<()> {
        let Counts { long, short, udp } = &self.counts;
        let lost = |by_pod: &BTreeMap<String, u64>| {
            by_pod.iter().filter(|(pod, _)| !killed.contains(*pod)).map(|(_, count)| count).sum::<u64>()
        };
        let excused = long.broken - lost(&long.broken_by_pod);
        for (what, count) in [
            ("long connections failed to open", long.connects_failed),
            ("long connections broke", lost(&long.broken_by_pod)),
            ("requests on long connections had no answer", long.unanswered.saturating_sub(excused)),
            ("answers on long connections were wrong", long.wrong),
            ("short connections failed", short.failed),
            ("datagrams were lost", lost(&udp.lost_by_pod)),
            ("datagrams were answered wrongly", udp.wrong),
        ] {
            if count > 0 {
                bail!("{}: {count} {what}: {}", self.name, self.text);
            }
        }
        if long.answers == 0 || short.ok == 0 || udp.answered == 0 {
            bail!("{}: nothing was measured: {}", self.name, self.text);
        }
        Ok(())
    }

    /// Fails unless some long connections were made, some were not, and none of those that were made broke.
    pub(super) fn only_waited(&self) -> Result<()> {
        let Long { answers, broken, wrong, .. } = self.counts.long;
        let made: u64 = self.counts.long.pods.values().sum();
        if answers == 0 || broken + wrong > 0 || made >= self.counts.long.connects {
            bail!("{}: {made} connections were made: {}", self.name, self.text);
        }
        Ok(())
    }

    /// Fails unless every connection was made and answered; datagrams do not count.
    pub(super) fn all_connected(&self) -> Result<()> {
        let Counts { long, short, .. } = &self.counts;
        if long.answers == 0 || short.ok == 0 || long.connects_failed + long.broken + short.failed > 0 {
            bail!("{}: {}", self.name, self.text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn totals(change: impl FnOnce(&mut Value)) -> Totals {
        let mut text = json!({
            "long": {"connects": 3, "connects_failed": 0, "answers": 9, "unanswered": 0, "broken": 0, "wrong": 0, "longest_ms": 1.0, "broken_by_pod": {}, "pods": {"a": 3}},
            "short": {"ok": 5, "failed": 0, "slow": 0},
            "udp": {"sent": 7, "answered": 7, "wrong": 0, "lost_by_pod": {}, "cut_off": 0, "longest_cut_off_ms": 0.0, "failures": {"reasons": {}}},
        });
        change(&mut text);
        Totals { name: "x".to_owned(), counts: serde_json::from_value(text.clone()).unwrap(), text }
    }

    #[test]
    fn only_what_led_to_a_killed_pod_is_excused() {
        let killed = BTreeSet::from(["a".to_owned()]);
        let broken = |pod: &str| {
            totals(|text| {
                text["long"]["broken"] = 1.into();
                text["long"]["unanswered"] = 1.into();
                text["long"]["broken_by_pod"][pod] = 1.into();
            })
        };
        assert!(totals(|_| ()).judge(&killed).is_ok());
        assert!(broken("a").judge(&killed).is_ok());
        assert!(broken("b").judge(&killed).is_err());
        assert!(totals(|text| text["udp"]["lost_by_pod"]["b"] = 2.into()).judge(&killed).is_err());
        assert!(
            totals(|text| text["udp"]["cut_off"] = 2.into()).judge(&killed).is_ok(),
            "their sockets had ended"
        );
        assert!(totals(|text| text["short"]["failed"] = 1.into()).judge(&killed).is_err());
        assert!(totals(|text| text["short"]["ok"] = 0.into()).judge(&killed).is_err(), "nothing was asked");
    }
}
