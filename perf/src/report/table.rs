//! A group of results as a table: tests down, lanes across.

use super::Report;
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

/// The name of a column.
fn column(outcome: &Outcome) -> String {
    let services = outcome.services.map(|services| format!(" {services}")).unwrap_or_default();
    format!("{}{services}", outcome.lane)
}

/// The unit in which a value is read best, and what it is multiplied with.
fn scaled(unit: Unit, value: f64) -> (Unit, f64) {
    match unit {
        Unit::Seconds if value < 0.01 => (Unit::Microseconds, 1e6),
        unit => (unit, 1.0),
    }
}

/// A value with its interval, with as many digits as it deserves.
pub(super) fn value(unit: Unit, estimate: &Estimate) -> String {
    let (unit, factor) = scaled(unit, estimate.value);
    let [value, low, high] =
        [estimate.value, estimate.interval[0], estimate.interval[1]].map(|value| value * factor);
    let digits = match unit {
        Unit::Ratio => 3,
        Unit::Seconds => 2,
        Unit::Nanoseconds | Unit::Microseconds => 1,
        Unit::Rate => 0,
    };
    let space = if unit == Unit::Ratio || unit == Unit::Rate { "" } else { " " };
    let middle = format!("{value:.digits$}{space}{}", unit.as_str());
    // A single measurement has no interval.
    if (high - low).abs() < f64::EPSILON {
        middle
    } else {
        format!("{middle} ({low:.digits$} to {high:.digits$})")
    }
}

impl Table {
    /// The table of a group.
    pub(super) fn of(report: &Report, group: &str) -> Self {
        let outcomes: Vec<_> = report.outcomes.iter().filter(|outcome| outcome.group == group).collect();
        let (mut tests, mut columns, mut notes): (Vec<&str>, Vec<String>, Vec<String>) = Default::default();
        for outcome in &outcomes {
            if !tests.contains(&outcome.test.as_str()) {
                tests.push(&outcome.test);
            }
            if !columns.contains(&column(outcome)) {
                columns.push(column(outcome));
            }
        }
        let mut cell = |test: &str, lane: &str| {
            // The same twice (two files in one): the last counts.
            let found = outcomes.iter().rev().find(|outcome| outcome.test == test && column(outcome) == lane);
            let Some(outcome) = found else { return Cell::default() };
            let note = outcome.skipped.as_ref().or(outcome.published.as_ref()).map(|note| {
                let at = notes.iter().position(|known| known == note).unwrap_or_else(|| {
                    notes.push(note.clone());
                    notes.len() - 1
                });
                at + 1
            });
            let text = if outcome.skipped.is_some() {
                "-".to_owned()
            } else {
                value(outcome.unit, &outcome.estimate)
            };
            let dagger = if outcome.published.is_some() { " †" } else { "" };
            Cell { text: format!("{text}{dagger}"), note, own: outcome.lane.starts_with("beeline") }
        };
        let rows = tests
            .iter()
            .map(|test| {
                let name = Cell { text: (*test).to_owned(), ..Cell::default() };
                [name].into_iter().chain(columns.iter().map(|lane| cell(test, lane))).collect()
            })
            .collect();
        let head = [String::new()].into_iter().chain(columns).collect();
        Self { head, rows, notes }
    }
}
