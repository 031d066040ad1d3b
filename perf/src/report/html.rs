//! The report as one HTML file: no script, no other file, plots as SVG inside; for light and dark screens, and narrow ones.

use std::fmt::Write;

use anyhow::Result;

use super::bounds::{self, Bound};
use super::plots::{self, Plot};
use super::section::{self, Section};
use super::summary::{self, Counts};
use super::table::Table;
use super::{NOTES, Report, facts};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(report: &Report) -> Result<String> {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Benchmark report</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Benchmark report</h1>\n"
    );
    head(report, &mut text);
    bound_table(report, &mut text);
    if let Some(peers) = summary::against_peers(report) {
        text.push_str("<h2>Beeline and its peers, each with the most services measured</h2>\n");
        table(&peers, &mut text);
    }
    let (own, published): (Vec<_>, Vec<_>) =
        report.groups().into_iter().partition(|group| !report.is_published(group));
    for group in own {
        let _ = writeln!(text, "<h2>{}</h2>", escape(group));
        group_body(report, group, &mut text)?;
    }
    if !published.is_empty() {
        text.push_str("<h2>Published by others, on other machines †</h2>\n");
    }
    for group in published {
        let _ = writeln!(text, "<h3>{}</h3>", escape(group));
        group_body(report, group, &mut text)?;
    }
    for environment in &report.environments {
        text.push_str("<h2>Environment</h2>\n<div class=\"wide\"><table class=\"facts\">\n");
        for (name, value) in facts(environment) {
            let _ = writeln!(text, "<tr><td>{}</td><td>{}</td></tr>", escape(&name), escape(&value));
        }
        text.push_str("</table></div>\n");
    }
    text.push_str("</body>\n</html>\n");
    Ok(text)
}

/// Where it comes from, how bounds stand, and what to know before the first figure.
fn head(report: &Report, text: &mut String) {
    if let Some(environment) = report.environments.first() {
        let facts = facts(environment);
        let wanted = ["time", "kernel", "CPU", "revision"];
        let said = facts.iter().filter(|(name, _)| wanted.contains(&name.as_str()));
        let said: Vec<_> = said.map(|(name, value)| format!("{} {}", escape(name), escape(value))).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "<p class=\"soft\">{}</p>", said.join(" · "));
    }
    if let Some(counts) = Counts::of(report) {
        text.push_str("<div class=\"tiles\" id=\"summary\">\n");
        for (number, class, words) in counts.words() {
            let _ = writeln!(text, "<div class=\"tile\"><b class=\"{class}\">{number}</b>{words}</div>");
        }
        text.push_str("</div>\n");
    }
    text.push_str("<ul class=\"soft\">\n");
    for note in NOTES {
        let _ = writeln!(text, "<li>{}</li>", escape(note));
    }
    text.push_str("</ul>\n");
}

fn bound_table(report: &Report, text: &mut String) {
    let bounds = bounds::of(report);
    if bounds.is_empty() {
        return;
    }
    text.push_str(
        "<h2>Bounds</h2>\n<div class=\"wide\"><table>\n\
         <tr><th>what</th><th>verdict</th><th>bound</th><th>seen (95 %)</th></tr>\n",
    );
    for bound in bounds {
        let Bound { what, limit, seen, verdict } = bound;
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td>{limit}</td><td>{seen}</td></tr>",
            escape(&what),
            verdict.class(),
            verdict.as_str()
        );
    }
    text.push_str("</table></div>\n");
}

/// Each question of a group with its table and plots; then what is no ratio.
fn group_body(report: &Report, group: &str, text: &mut String) -> Result<()> {
    for section in Section::of(report, group) {
        let _ =
            writeln!(text, "<h3>{}: {}</h3>", escape(section.group), escape(section::words(section.test)));
        table(&section.table(), text);
        figures(&plots::of_section(&section)?, text);
    }
    let rest = Table::of(report, group);
    if !rest.rows.is_empty() {
        table(&rest, text);
        figures(&plots::of_group(report, group)?, text);
    }
    Ok(())
}

fn figures(plots: &[Plot], text: &mut String) {
    if plots.is_empty() {
        return;
    }
    text.push_str("<div class=\"plots\">\n");
    for Plot { title, svg, legend } in plots {
        let _ = write!(text, "<figure><figcaption>{}", escape(title));
        if !legend.is_empty() {
            text.push_str("<span class=\"legend\">");
            for (name, colour) in legend {
                let _ = write!(text, "<span><i style=\"background:{colour}\"></i>{}</span> ", escape(name));
            }
            text.push_str("</span>");
        }
        let _ = writeln!(text, "</figcaption>{svg}</figure>");
    }
    text.push_str("</div>\n");
}

fn table(table: &Table, text: &mut String) {
    let head: String = table.head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let _ = writeln!(text, "<div class=\"wide\"><table>\n<tr>{head}</tr>");
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
    text.push_str("</table></div>\n");
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
