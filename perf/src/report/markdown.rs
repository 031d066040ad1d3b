//! The report as Markdown: for a repository or an issue.

use std::fmt::Write;

use super::bounds::{self, Bound};
use super::summary::{self, Counts};
use super::table::Table;
use super::{NOTES, Report, facts};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut text = String::from("# Benchmark report\n\n");
    for note in NOTES {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "* {note}");
    }
    let bounds = bounds::of(report);
    if !bounds.is_empty() {
        text.push_str("\n## Bounds\n\n");
        if let Some(counts) = Counts::of(report) {
            let said = counts.words().map(|(number, _, words)| format!("{number} {words}"));
            let _ = writeln!(text, "{}.\n", said.join(", "));
        }
        text.push_str("| what | bound | seen (95 %) | verdict |\n|---|---|---|---|\n");
    }
    for bound in bounds {
        let Bound { what, limit, seen, verdict } = bound;
        let _ = writeln!(text, "| {} | {limit} | {seen} | {} |", escape(&what), verdict.as_str());
    }
    if let Some(peers) = summary::against_peers(report) {
        text.push_str("\n## Beeline and its peers, each with the most services measured\n\n");
        table(&peers, &mut text);
    }
    for group in report.groups() {
        let _ = write!(text, "\n## {group}\n\n");
        table(&Table::of_all(report, group), &mut text);
    }
    for environment in &report.environments {
        let _ = write!(text, "\n## Environment\n\n| | |\n|---|---|\n");
        for (name, value) in facts(environment) {
            let _ = writeln!(text, "| {name} | {} |", escape(&value));
        }
    }
    text
}

fn table(table: &Table, text: &mut String) {
    let _ =
        writeln!(text, "| {} |", table.head.iter().map(|name| escape(name)).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(table.head.len()));
    for row in &table.rows {
        let cells: Vec<_> = row
            .iter()
            .map(|cell| {
                let note = cell.note.map(|note| format!(" [{note}]")).unwrap_or_default();
                let strong = if cell.own && !cell.text.is_empty() { "**" } else { "" };
                format!("{strong}{}{strong}{note}", escape(&cell.text))
            })
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    for (index, note) in table.notes.iter().enumerate() {
        let _ = write!(text, "{}[{}] {}", if index == 0 { "\n" } else { "  \n" }, index + 1, escape(note));
    }
    text.push('\n');
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
