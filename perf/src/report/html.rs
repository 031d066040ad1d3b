//! The report as one HTML file: no script, no other file, plots as SVG inside.

use std::fmt::Write;

use anyhow::Result;

use super::bounds::{self, Bound};
use super::table::Table;
use super::{NOTES, Report, facts, plots};

const STYLE: &str = "\
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.own { background: #fff6d6; } .notes { color: #555; font-size: .85rem; }
td.met { background: #dff3e4; } td.missed { background: #f8dcd6; }
.facts td { text-align: left; white-space: normal; vertical-align: top; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { max-width: 100%; height: auto; border: 1px solid #eee; }
";

/// The page.
pub(super) fn page(report: &Report) -> Result<String> {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Benchmark report</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Benchmark report</h1>\n<ul>\n"
    );
    for note in NOTES {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "<li>{}</li>", escape(note));
    }
    text.push_str("</ul>\n");
    bound_table(report, &mut text);
    for group in report.groups() {
        let _ = writeln!(text, "<h2>{}</h2>", escape(group));
        table(&Table::of(report, group), &mut text);
        let drawn = plots::of_group(report, group)?;
        if !drawn.is_empty() {
            let _ = writeln!(text, "<div class=\"plots\">\n{}\n</div>", drawn.join("\n"));
        }
    }
    for environment in &report.environments {
        text.push_str("<h2>Environment</h2>\n<table class=\"facts\">\n");
        for (name, value) in facts(environment) {
            let _ = writeln!(text, "<tr><td>{}</td><td>{}</td></tr>", escape(&name), escape(&value));
        }
        text.push_str("</table>\n");
    }
    text.push_str("</body>\n</html>\n");
    Ok(text)
}

fn bound_table(report: &Report, text: &mut String) {
    let bounds = bounds::of(report);
    if bounds.is_empty() {
        return;
    }
    text.push_str("<h2>Bounds</h2>\n<table>\n<tr><th></th><th>limit</th><th>seen</th><th></th></tr>\n");
    for bound in bounds {
        let Bound { what, limit, seen, verdict } = bound;
        let class = match verdict {
            "met" => "met",
            "not met" => "missed",
            _ => "open",
        };
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{limit}</td><td>{seen}</td><td class=\"{class}\">{verdict}</td></tr>",
            escape(&what)
        );
    }
    text.push_str("</table>\n");
}

fn table(table: &Table, text: &mut String) {
    let head: String = table.head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let _ = writeln!(text, "<table>\n<tr>{head}</tr>");
    for row in &table.rows {
        let cells: String = row
            .iter()
            .map(|cell| {
                let class = if cell.own { " class=\"own\"" } else { "" };
                let note = cell.note.map(|note| format!("<sup>{note}</sup>")).unwrap_or_default();
                format!("<td{class}>{}{note}</td>", escape(&cell.text))
            })
            .collect();
        let _ = writeln!(text, "<tr>{cells}</tr>");
    }
    text.push_str("</table>\n");
    if !table.notes.is_empty() {
        text.push_str("<ol class=\"notes\">\n");
        for note in &table.notes {
            let _ = writeln!(text, "<li>{}</li>", escape(note));
        }
        text.push_str("</ol>\n");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
