//! A report of a few made-up results: what it says, and that a browser shows it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::summary::{self, Counts};
use super::table::{self, Table};
use super::*;
use crate::results::Unit;
use crate::results::tests::outcome;
use crate::statistics::Estimate;

fn sample() -> Report {
    let mut outcomes = Vec::new();
    for (services, iptables, beeline) in [(10, 0.80, 1.01), (1000, 0.73, 1.00), (10_000, 0.46, 1.01)] {
        outcomes.push(outcome(["node-local", "crr", "iptables"], services, Unit::Ratio, iptables, 0.01));
        outcomes.push(outcome(["node-local", "crr", "beeline"], services, Unit::Ratio, beeline, 0.01));
    }
    let curve = json!([[0.5, 80.0], [0.9, 95.0], [0.99, 300.0], [0.999, 2500.0]]);
    outcomes[5].detail = json!({
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
    let table = Table::of_all(&sample(), "node-local");
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

/// Of the sample: rate by services, latencies, CPU time; cost of programs.
const PLOTS: usize = 4;

#[test]
fn the_page_holds_its_plots_and_needs_no_other_file() {
    let page = html::page(&sample()).unwrap();
    assert_eq!(page.matches("<svg").count(), PLOTS, "{page}");
    assert!(page.contains("somebody &lt;else&gt;") && !page.contains("<script"));
    for outside in ["href=", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "the page names something else by {outside}");
    }
}

#[test]
fn what_is_said_first_counts_bounds_and_sets_beeline_against_peers() {
    let report = sample();
    let counts = Counts::of(&report).unwrap();
    // 1.01 of direct, 2.2 times iptables, as fast as with few; nothing else of the table was measured.
    assert_eq!((counts.met, counts.missed, counts.open), (3, 0, 0), "{counts:?}");
    let peers = summary::against_peers(&report).unwrap();
    assert_eq!(peers.head[1..], ["none (reference)", "iptables 10000"]);
    let row: Vec<_> = peers.rows[0].iter().map(|cell| cell.text.as_str()).collect();
    assert_eq!(row[..2], ["node-local: crr, beeline 10000", "1.010 (1.000 to 1.020)"]);
    assert!(row[2].starts_with("2.196 ("), "{row:?}");
    let none = Report { environments: Vec::new(), outcomes: Vec::new() };
    assert_eq!((Counts::of(&none), summary::against_peers(&none).is_none()), (None, true));
}

#[test]
fn numbers_are_in_units_that_are_read_well() {
    let of = |unit, value: f64| table::value(unit, &Estimate { value, interval: [value; 2] });
    for (unit, value, text) in [
        (Unit::Seconds, 96.4, "96.40 s"),
        (Unit::Seconds, 0.0344, "34.4 ms"),
        (Unit::Seconds, 8.4e-6, "8.4 µs"),
        (Unit::Microseconds, 12_500.0, "12.50 ms"),
        (Unit::Nanoseconds, 60.0, "60.0 ns"),
        (Unit::Rate, 10e6, "10\u{202f}000\u{202f}000/s"),
    ] {
        assert_eq!(of(unit, value), text);
    }
    assert_eq!(table::limit(Unit::Seconds, 0.001), "1 ms");
    assert_eq!(table::limit(Unit::Microseconds, 20_000.0), "20 ms");
}

/// A headless browser, if there is one.
fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"];
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// Runs the browser on a page; what it wrote, and what it complained about.
fn browse(browser: &str, page: &Path, profile: &Path, arguments: &[&str]) -> (String, String) {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"])
        // Whatever the page would ask of others fails at once.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_shows_the_page() {
    let Some(browser) = browser() else {
        println!("skipped: needs chromium");
        return;
    };
    let directory = std::env::temp_dir().join(format!("perf-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (page, picture, profile) =
        (directory.join("report.html"), directory.join("report.png"), directory.join("profile"));
    std::fs::write(&page, html::page(&sample()).unwrap()).unwrap();
    let (dom, said) = browse(browser, &page, &profile, &["--dump-dom"]);
    for part in ["id=\"summary\"", "<h2>Bounds</h2>", "<h3>node-local: TCP connect, request", "katran", "†"]
    {
        assert!(dom.contains(part), "{part} is not in\n{dom}");
    }
    assert_eq!(dom.matches("<svg").count(), PLOTS);
    assert_eq!(dom.matches("</svg>").count(), PLOTS);
    assert!(dom.matches("<table").count() >= 5, "{dom}");
    // What a page writes to its console, and what it could not load, is logged with this word.
    assert!(!said.contains("CONSOLE"), "{said}");
    for (width, height) in [(1200, 1600), (390, 844)] {
        let size = format!("--window-size={width},{height}");
        let shot = format!("--screenshot={}", picture.display());
        browse(browser, &page, &profile, &[&size, &shot]);
        assert!(picture.metadata().is_ok_and(|meta| meta.len() > 10_000), "no picture of {width} pixels");
        std::fs::remove_file(&picture).unwrap();
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
