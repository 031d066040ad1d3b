//! A report of a few made-up results: what it says, and that a browser shows it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use serde_json::json;

use super::table::Table;
use super::*;
use crate::results::Unit;
use crate::results::tests::outcome;

fn sample() -> Report {
    let mut outcomes = Vec::new();
    for (services, iptables, beeline) in [(10, 0.80, 1.01), (1000, 0.73, 1.00), (10_000, 0.46, 1.01)] {
        outcomes.push(outcome(["node-local", "crr", "iptables"], services, Unit::Ratio, iptables, 0.01));
        outcomes.push(outcome(["node-local", "crr", "beeline"], services, Unit::Ratio, beeline, 0.01));
    }
    let curve = json!([[0.5, 80.0], [0.9, 95.0], [0.99, 300.0], [0.999, 2500.0]]);
    outcomes[1].detail = json!({
        "target": {"cpu_us": 30.5, "latency": {"curve": curve}}, "reference": {"latency": {"curve": curve}},
    });
    let mut katran = outcome(["program", "XDP, established", "katran"], 1, Unit::Nanoseconds, 101.0, 0.0);
    katran.published = Some("somebody <else>".to_owned());
    outcomes.push(katran);
    outcomes.push(outcome(["program", "XDP, established", "beeline"], 1, Unit::Nanoseconds, 60.0, 1.0));
    let mut skipped = outcome(["program", "XDP, new", "beeline"], 1, Unit::Nanoseconds, 0.0, 0.0);
    skipped.skipped = Some("no object | no figure".to_owned());
    outcomes.push(skipped);
    Report {
        environments: vec![Environment { kernel: "6.18".into(), cpus: 2, ..Environment::default() }],
        outcomes,
    }
}

#[test]
fn a_table_has_a_row_a_test_and_a_column_a_lane() {
    let table = Table::of(&sample(), "node-local");
    assert_eq!(table.head[1..3], ["iptables 10", "beeline 10"]);
    assert_eq!((table.rows.len(), table.rows[0].len()), (1, 7));
    assert_eq!(table.rows[0][1].text, "0.800 (0.790 to 0.810)");
    assert!(table.rows[0][2].own && !table.rows[0][1].own);
}

#[test]
fn what_was_not_measured_is_marked_with_its_source_or_reason() {
    let text = markdown::page(&sample());
    assert!(text.contains("| XDP, established | 101.0 ns † [1] | **60.0 ns (59.0 to 61.0)** |"), "{text}");
    assert!(text.contains("[1] somebody <else>") && text.contains("[2] no object \\| no figure"), "{text}");
    assert!(text.contains("| kernel | 6.18 |"));
}

#[test]
fn the_page_holds_its_plots_and_needs_no_other_file() {
    let page = html::page(&sample()).unwrap();
    // Ratio by services, latencies, CPU time; cost of programs.
    assert_eq!(page.matches("<svg").count(), 4, "{page}");
    assert!(page.contains("somebody &lt;else&gt;") && !page.contains("<script") && !page.contains("href="));
}

/// A headless browser, if there is one.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"];
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

#[test]
fn a_browser_shows_the_page() {
    let Some(browser) = browser() else {
        println!("skipped: needs chromium");
        return;
    };
    let directory = std::env::temp_dir().join(format!("perf-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (page, picture) = (directory.join("report.html"), directory.join("report.png"));
    std::fs::write(&page, html::page(&sample()).unwrap()).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600"])
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(
        picture.metadata().is_ok_and(|meta| meta.len() > 10_000),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::remove_dir_all(&directory).unwrap();
}
