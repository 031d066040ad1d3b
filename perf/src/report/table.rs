//! A group of results as a table: tests down, lanes across.

use super::Report;
use super::section::lane;
use crate::results::{Outcome, Unit};
use crate::statistics::Estimate;

/// A table, as text.
pub(super) struct Table {
    /// `test`, then a lane each.
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// Sources and reasons, in the order of their marks.
    pub(super) notes: Vec<String>,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    /// Number of a note, from 1.
    pub(super) note: Option<usize>,
    /// It is of our own lane.
    pub(super) own: bool,
}

/// A number with its thousands set apart by narrow spaces.
pub(super) fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left % 3 == 0 && whole.len() > 4 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if rest.is_empty() { out } else { format!("{out}.{rest}") }
}

/// The value of a result, with a mark if it was not measured here; its source or reason goes to `notes`.
pub(super) fn cell(outcome: &Outcome, notes: &mut Vec<String>) -> Cell {
    let note = outcome.skipped.as_ref().or(outcome.published.as_ref()).map(|note| {
        let at = notes.iter().position(|known| known == note).unwrap_or_else(|| {
            notes.push(note.clone());
            notes.len() - 1
        });
        at + 1
    });
    let text =
        if outcome.skipped.is_some() { "-".to_owned() } else { value(outcome.unit, &outcome.estimate) };
    let dagger = if outcome.published.is_some() { " †" } else { "" };
    Cell { text: format!("{text}{dagger}"), note, own: outcome.lane.starts_with("beeline") }
}

/// A unit in which a value is read well: its name, what the value is multiplied with, digits behind the point.
fn scaled(unit: Unit, value: f64) -> (&'static str, f64, usize) {
    match unit {
        Unit::Seconds if value >= 1.0 => (" s", 1.0, 2),
        Unit::Seconds if value >= 1e-3 => (" ms", 1e3, 1),
        Unit::Seconds => (" µs", 1e6, 1),
        Unit::Microseconds if value >= 1e3 => (" ms", 1e-3, 2),
        Unit::Microseconds => (" µs", 1.0, 1),
        Unit::Nanoseconds => (" ns", 1.0, 1),
        Unit::Rate => ("/s", 1.0, 0),
        Unit::Ratio => ("", 1.0, 3),
    }
}

/// A value with its interval, with as many digits as it deserves.
pub(super) fn value(unit: Unit, estimate: &Estimate) -> String {
    let (name, factor, digits) = scaled(unit, estimate.value);
    let [value, low, high] = [estimate.value, estimate.interval[0], estimate.interval[1]]
        .map(|value| grouped(value * factor, digits));
    // A single measurement has no interval.
    if low == high { format!("{value}{name}") } else { format!("{value}{name} ({low} to {high})") }
}

/// A limit, in the unit in which its size is read best.
pub(super) fn limit(unit: Unit, limit: f64) -> String {
    let (name, factor, _) = scaled(unit, limit);
    format!("{}{name}", limit * factor)
}

impl Table {
    /// The table of a group's results that are no ratios: those have tables of their own.
    pub(super) fn of(report: &Report, group: &str) -> Self {
        Self::of_those(report, |outcome| outcome.group == group && outcome.unit != Unit::Ratio)
    }

    /// One table of all of a group.
    pub(super) fn of_all(report: &Report, group: &str) -> Self {
        Self::of_those(report, |outcome| outcome.group == group)
    }

    fn of_those(report: &Report, wanted: impl Fn(&Outcome) -> bool) -> Self {
        let outcomes: Vec<_> = report.outcomes.iter().filter(|outcome| wanted(outcome)).collect();
        let (mut tests, mut columns, mut notes): (Vec<&str>, Vec<String>, Vec<String>) = Default::default();
        for outcome in &outcomes {
            if !tests.contains(&outcome.test.as_str()) {
                tests.push(&outcome.test);
            }
            if !columns.contains(&lane(outcome)) {
                columns.push(lane(outcome));
            }
        }
        let mut at = |test: &str, name: &str| {
            // The same twice (two files in one): the last counts.
            let found = outcomes.iter().rev().find(|outcome| outcome.test == test && lane(outcome) == name);
            found.map_or_else(Cell::default, |outcome| cell(outcome, &mut notes))
        };
        let rows = tests
            .iter()
            .map(|test| {
                let name = Cell { text: (*test).to_owned(), ..Cell::default() };
                [name].into_iter().chain(columns.iter().map(|lane| at(test, lane))).collect()
            })
            .collect();
        let head = [String::new()].into_iter().chain(columns).collect();
        Self { head, rows, notes }
    }
}
