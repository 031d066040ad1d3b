//! What a report says first: how many bounds are met, and how Beeline stands to each peer with the most services.

use super::Report;
use super::bounds::{self, Verdict};
use super::section::Section;
use super::table::{self, Cell, Table};
use crate::results::{Outcome, Unit};

/// How many bounds there are of each verdict.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) met: usize,
    pub(super) missed: usize,
    pub(super) open: usize,
    /// The run has nothing to say about them.
    pub(super) absent: usize,
}

impl Counts {
    /// Of the report; none if it is not about Beeline.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let bounds = bounds::of(report);
        let count = |verdict| bounds.iter().filter(|bound| bound.verdict == verdict).count();
        (!bounds.is_empty()).then(|| Self {
            met: count(Verdict::Met),
            missed: count(Verdict::Missed),
            open: count(Verdict::Open),
            absent: bounds::count() - bounds.len(),
        })
    }

    /// Number and words of each.
    pub(super) fn words(&self) -> [(usize, &'static str, &'static str); 4] {
        [
            (self.met, "met", "bounds met"),
            (self.missed, "missed", "not met"),
            (self.open, "open", "not decided"),
            (self.absent, "absent", "not measured in this run"),
        ]
    }
}

/// Beeline's rate divided by each peer's, both with the most services that both have; the interval is that of a quotient of
/// two independent ratios. None where there is no Beeline or no peer.
pub(super) fn against_peers(report: &Report) -> Option<Table> {
    let mut peers: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for group in report.groups() {
        for section in Section::of(report, group) {
            let own = most(&section, |lane| lane.starts_with("beeline"));
            for own in own {
                let others = most(&section, |lane| !lane.starts_with("beeline"));
                let cells: Vec<_> = others.iter().map(|other| (name(other), quotient(own, other))).collect();
                for (peer, _) in &cells {
                    if !peers.contains(peer) {
                        peers.push(peer.clone());
                    }
                }
                rows.push((format!("{group}: {}, {}", section.test, name(own)), own, cells));
            }
        }
    }
    if rows.is_empty() || peers.is_empty() {
        return None;
    }
    let head = ["Beeline's rate divided by that of", "none (reference)"].map(str::to_owned);
    let head = head.into_iter().chain(peers.iter().cloned()).collect();
    let plain = |text: String| Cell { text, ..Cell::default() };
    let rows = rows
        .into_iter()
        .map(|(what, own, cells)| {
            let reference = plain(table::value(Unit::Ratio, &own.estimate));
            let of_peer = |peer: &String| {
                let found = cells.iter().find(|(name, _)| name == peer);
                plain(found.map_or_else(String::new, |(_, text)| text.clone()))
            };
            [plain(what), reference].into_iter().chain(peers.iter().map(of_peer)).collect()
        })
        .collect();
    Some(Table { head, rows, notes: Vec::new() })
}

fn name(outcome: &Outcome) -> String {
    super::section::lane(outcome)
}

fn quotient(own: &Outcome, other: &Outcome) -> String {
    table::value(Unit::Ratio, &bounds::divide(&own.estimate, &other.estimate))
}

/// Of each lane the result with the most services.
pub(super) fn most<'a>(section: &Section<'a>, wanted: impl Fn(&str) -> bool) -> Vec<&'a Outcome> {
    let mut found: Vec<&Outcome> = Vec::new();
    for outcome in
        section.outcomes.iter().filter(|outcome| outcome.skipped.is_none() && wanted(&outcome.lane))
    {
        match found.iter_mut().find(|other| other.lane == outcome.lane) {
            Some(other) if other.services < outcome.services => *other = outcome,
            Some(_) => {}
            None => found.push(outcome),
        }
    }
    found
}
