//! `perf service` and `perf control` on the cluster: their image is made and loaded, every way is asked from both nodes, changes
//! at the API are followed to the first packet, the results make a report, and nothing stays behind. No figure decides.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Report, kubectl_words};
use crate::cluster::images;
use crate::cluster::plan::{self, Plan};
use crate::flags::ImageSource;
use crate::{shell, tree};

/// Named like nothing that a person would deploy meanwhile.
const NAMESPACE: &str = "perf-service-smoke";

pub(super) fn run(plan: &Plan, report: &mut Report) {
    let directory = plan::directory().join("perf-service");
    let results = directory.join("results.jsonl");
    report.check("the image is made and loaded", || {
        std::fs::create_dir_all(&directory)?;
        let tar = directory.join("perf.tar");
        shell::quiet(perf(plan).arg("image").arg("--echo").arg(tree::echo()).arg("--out").arg(&tar))?;
        images::load(&ImageSource { name: "perf".to_owned(), path: tar })
    });
    report.check("every way is measured from both nodes", || {
        let mut service = perf(plan);
        service.args(["service", "--quick", "--traffic", "crr,udp", "--namespace", NAMESPACE]);
        service.arg("--kubeconfig").arg(plan::kubeconfig()).arg("--out").arg(&results);
        shell::quiet(&mut service)?;
        all_ways(&std::fs::read_to_string(&results)?)
    });
    report.check("the results make a report", || {
        let markdown = directory.join("report.md");
        shell::quiet(perf(plan).arg("report").arg(&results).arg("--markdown").arg(&markdown))?;
        let text = std::fs::read_to_string(&markdown)?;
        super::contains(&text, &["ClusterIP", "NodePort, other node"])
    });
    report.check("changes at the API are followed to the first packet, in both families", || {
        for family in ["ipv4", "ipv6"] {
            let results = directory.join(format!("control-{family}.jsonl"));
            let mut control = perf(plan);
            control.args(["control", "--quick", "--family", family, "--namespace", NAMESPACE]);
            control.arg("--kubeconfig").arg(plan::kubeconfig()).arg("--out").arg(&results);
            shell::quiet(&mut control)?;
            all_changes(&std::fs::read_to_string(&results)?)?;
        }
        Ok(())
    });
    report.check("nothing of it is left", || {
        let left = kubectl_words(&format!("get namespace {NAMESPACE} --ignore-not-found -o name"))?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
}

fn perf(plan: &Plan) -> Command {
    Command::new(tree::program(plan.profile, "perf"))
}

/// Endpoints changed, Services added, pods started, with two numbers of Services; nothing was seen before it happened.
fn all_changes(lines: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
        let Some(test) = line["test"].as_str() else { continue };
        let value = line["estimate"]["value"].as_f64();
        ensure!(value.is_some_and(|value| value >= 0.0), "no time: {line}");
        ensure!(line["detail"]["clock"]["same"] == true, "one machine has one clock: {line}");
        seen.insert((test.to_owned(), line["services"].to_string()));
    }
    ensure!(seen.len() == 14, "{} of 14 results: {seen:?}", seen.len());
    Ok(())
}

/// Two places of clients, four ways, two kinds of traffic, and no operation that failed.
fn all_ways(lines: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
        let Some(lane) = line["lane"].as_str() else { continue };
        let value = line["estimate"]["value"].as_f64().unwrap_or_default();
        ensure!(value > 0.0, "nothing was answered: {line}");
        seen.insert((line["group"].to_string(), lane.to_owned(), line["test"].to_string()));
    }
    ensure!(seen.len() == 16, "{} of 16 results: {seen:?}", seen.len());
    Ok(())
}
