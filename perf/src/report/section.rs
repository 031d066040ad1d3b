//! One question of a report: one kind of traffic on one way, lane by lane, as a table with what was seen of each.

use serde_json::Value;

use super::Report;
use super::table::{self, Cell, Table};
use crate::results::{Outcome, Unit};
use crate::statistics;

/// All results of a group that are ratios of one test.
pub(super) struct Section<'a> {
    pub(super) group: &'a str,
    pub(super) test: &'a str,
    pub(super) outcomes: Vec<&'a Outcome>,
}

/// A column of what was seen of one side: head, where it stands in the details, digits behind the point.
type Column = (&'static str, &'static str, usize);

const COLUMNS: &[Column] = &[
    ("rate, 1/s", "/rate", 0),
    ("p50, µs", "/latency/p50_us", 1),
    ("p99, µs", "/latency/p99_us", 1),
    ("client's CPU, µs an operation", "/cpu_us", 1),
    ("CPU, ns a packet", "/packet_ns", 0),
];

/// What a test does, in words; others are their own words.
const WORDS: &[(&str, &str)] = &[
    ("crr", "TCP connect, request, answer, close (crr)"),
    ("connect", "TCP connect, close (connect)"),
    ("rr", "request and answer on an open TCP connection (rr)"),
    ("udp", "datagram and answer, same socket (udp)"),
    ("udp-flow", "datagram and answer, a new socket each (udp-flow)"),
    ("bulk", "1 MiB received over TCP (bulk)"),
];

/// A test in words.
pub(super) fn words(test: &str) -> &str {
    WORDS.iter().find(|(name, _)| *name == test).map_or(test, |(_, words)| words)
}

/// A lane with its number of services.
pub(super) fn lane(outcome: &Outcome) -> String {
    let services = outcome.services.map(|services| format!(" {services}")).unwrap_or_default();
    format!("{}{services}", outcome.lane)
}

impl<'a> Section<'a> {
    /// The questions of a group, in order of appearance.
    pub(super) fn of(report: &'a Report, group: &'a str) -> Vec<Self> {
        let mut sections: Vec<Self> = Vec::new();
        let ratios =
            report.outcomes.iter().filter(|outcome| outcome.group == group && outcome.unit == Unit::Ratio);
        for outcome in ratios {
            let known = sections.iter_mut().find(|section| section.test == outcome.test);
            match known {
                Some(section) => {
                    // The same twice (two files in one): the last counts.
                    section.outcomes.retain(|other| lane(other) != lane(outcome));
                    section.outcomes.push(outcome);
                }
                None => sections.push(Self { group, test: &outcome.test, outcomes: vec![outcome] }),
            }
        }
        sections
    }

    /// What the ratios refer to.
    pub(super) fn reference(&self) -> &'a str {
        self.outcomes.iter().find_map(|outcome| outcome.reference.as_deref()).unwrap_or("reference")
    }

    /// A value of the reference: the median over its comparisons.
    pub(super) fn of_reference(&self, at: &str) -> Option<f64> {
        let at = format!("/reference{at}");
        let mut seen: Vec<_> =
            self.outcomes.iter().filter_map(|outcome| outcome.detail.pointer(&at)?.as_f64()).collect();
        (!seen.is_empty()).then(|| statistics::median(&mut seen))
    }

    /// The columns that some lane has a value in.
    fn columns(&self) -> impl Iterator<Item = &'static Column> {
        let has = |(_, at, _): &&Column| self.outcomes.iter().any(|outcome| of_target(outcome, at).is_some());
        COLUMNS.iter().filter(has)
    }

    /// Lanes down; the reference is the first.
    pub(super) fn table(&self) -> Table {
        let columns: Vec<_> = self.columns().collect();
        let softirq = |outcome: &Outcome| outcome.detail.pointer("/machine/softirq").and_then(Value::as_f64);
        let with_softirq = self.outcomes.iter().any(|outcome| softirq(outcome).is_some());
        let plain = |text: String| Cell { text, ..Cell::default() };
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(String::new, |value| table::grouped(value, digits))
        };
        let mut notes = Vec::new();
        let of_reference = columns.iter().map(|(_, at, digits)| number(self.of_reference(at), *digits));
        let first = [self.reference().to_owned(), "1 (reference)".to_owned()].into_iter().chain(of_reference);
        let mut rows: Vec<Vec<Cell>> = vec![first.map(plain).collect()];
        for outcome in &self.outcomes {
            let mut row = vec![plain(lane(outcome)), table::cell(outcome, &mut notes)];
            let values = columns.iter().map(|(_, at, digits)| plain(number(of_target(outcome, at), *digits)));
            row.extend(values);
            rows.push(row);
        }
        if with_softirq {
            rows[0].push(Cell::default());
            for (row, outcome) in rows[1..].iter_mut().zip(&self.outcomes) {
                row.push(plain(number(softirq(outcome).map(|share| share * 100.0), 0)));
            }
        }
        for (row, outcome) in rows[1..].iter_mut().zip(&self.outcomes) {
            row.iter_mut().for_each(|cell| cell.own = outcome.lane.starts_with("beeline"));
        }
        let heads = [self.test, "rate / reference's (95 %)"].into_iter();
        let heads = heads.chain(columns.iter().map(|(head, ..)| *head));
        let head = heads.chain(with_softirq.then_some("softirq, % of all CPUs")).map(str::to_owned).collect();
        Table { head, rows, notes }
    }
}

/// A value of the lane itself.
pub(super) fn of_target(outcome: &Outcome, at: &str) -> Option<f64> {
    outcome.detail.pointer(&format!("/target{at}"))?.as_f64()
}
