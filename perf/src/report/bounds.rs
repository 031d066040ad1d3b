//! What Beeline wants to reach, and whether a run shows it. A bound is met if the whole 95 % interval is on its good
//! side. A quotient of two ratios that were measured one after the other has the interval of a difference of independent
//! logarithms.

use super::{Report, section, table};
use crate::results::{Outcome, Unit};
use crate::statistics::Estimate;

/// Numbers of services that bounds are about.
const MANY: usize = 10_000;
/// The small one, for what must not depend on it.
const FEW: usize = 10;

/// What is compared with the limit.
#[derive(Clone, Copy)]
enum What {
    /// Our own value at `MANY` services, or without any: a ratio to plain routing, or a time.
    Own(&'static str),
    /// Our value divided by another lane's, both at `MANY`.
    Against(&'static str, &'static str),
    /// Our value at `MANY` divided by our value at `FEW`.
    Flat(&'static str),
}

/// Which side of the limit is good.
#[derive(Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// group, test, what, limit.
type Row = (&'static str, &'static str, What, Limit);

const LOCAL: &str = "node-local";
const POD: &str = "pod to ClusterIP";
const OUTSIDE: &str = "outside to NodePort";
const SAME: &str = "live frames, same flow";
const NEW: &str = "live frames, new flow each";
const US: &str = "beeline";
const XDP: &str = "beeline-xdp";

use Limit::{AtLeast, AtMost};
use What::{Against, Flat, Own};

const ROWS: &[Row] = &[
    (LOCAL, "crr", Own(US), AtLeast(0.97)),
    (LOCAL, "crr", Against(US, "nftables"), AtLeast(1.2)),
    (LOCAL, "crr", Against(US, "iptables"), AtLeast(2.0)),
    (LOCAL, "udp", Own(US), AtLeast(0.97)),
    (LOCAL, "crr", Flat(US), AtLeast(0.97)),
    (POD, "crr", Own(US), AtLeast(1.0)),
    (POD, "crr", Against(US, "nftables"), AtLeast(1.2)),
    (POD, "crr", Flat(US), AtLeast(0.97)),
    (OUTSIDE, "crr", Own(US), AtLeast(0.97)),
    (OUTSIDE, "crr", Against(US, "nftables"), AtLeast(1.2)),
    (OUTSIDE, "crr", Against(US, "iptables"), AtLeast(2.3)),
    (POD, SAME, Against(US, "nftables"), AtLeast(2.0)),
    (POD, SAME, Flat(US), AtLeast(0.97)),
    (OUTSIDE, SAME, Against(XDP, "nftables"), AtLeast(4.0)),
    (OUTSIDE, SAME, Flat(XDP), AtLeast(0.97)),
    (OUTSIDE, NEW, Against(XDP, "nftables"), AtLeast(2.0)),
    (OUTSIDE, NEW, Against(XDP, "iptables"), AtLeast(25.0)),
    ("program", "XDP, established, TCP, IPv4", Own(US), AtMost(90.0)),
    ("program", "XDP, established, TCP, IPv6", Own(US), AtMost(120.0)),
    ("program", "XDP, not ours, IPv4", Own(US), AtMost(15.0)),
    ("program", "XDP, not ours, IPv6", Own(US), AtMost(15.0)),
    ("program", "tc, established, pod to ClusterIP, TCP, IPv4", Own(US), AtMost(140.0)),
    ("program", "tc, pod to pod, same node, IPv4", Own(US), AtMost(50.0)),
    ("program", "XDP, new flow, Maglev, direct return, TCP, IPv4", Own(US), AtMost(150.0)),
    ("program", "XDP, new flow, entry, TCP, IPv4", Own(US), AtMost(900.0)),
    ("program", "connect4 to a ClusterIP", Own(US), AtMost(220.0)),
    ("program", "connect4 to a ClusterIP, with the address for getpeername", Own(US), AtMost(520.0)),
    ("rules", "load all services", Own(US), AtMost(1.0)),
    ("rules", "one service added", Own(US), AtMost(0.001)),
    // Microseconds. `perf control` does not know whose cluster it is.
    ("control", "EndpointSlice changed to first packet, p99", Own("cluster"), AtMost(20_000.0)),
];

/// A row of the table of bounds, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) what: String,
    pub(super) limit: String,
    pub(super) seen: String,
    pub(super) verdict: Verdict,
}

/// What the interval says about a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it is on the good side.
    Met,
    /// None of it is.
    Missed,
    /// The limit lies in it.
    Open,
}

impl Verdict {
    /// In words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "not met",
            Self::Open => "not decided",
        }
    }

    /// As a class of the page's style.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Open => "open",
        }
    }
}

/// How many bounds there are.
pub(super) fn count() -> usize {
    ROWS.len()
}

/// All bounds that the run has something to say about; none if it is not about Beeline.
pub(super) fn of(report: &Report) -> Vec<Bound> {
    let bounds = ROWS.iter().filter_map(|row| judge(report, row));
    bounds.collect()
}

fn judge(report: &Report, (group, test, what, limit): &Row) -> Option<Bound> {
    let find = |lane: &str, services: usize| -> Option<&Outcome> {
        report.outcomes.iter().rev().find(|outcome| {
            let measured = outcome.published.is_none() && outcome.skipped.is_none();
            let of_lane = outcome.lane == lane && outcome.services.is_none_or(|seen| seen == services);
            measured && of_lane && outcome.group == *group && outcome.test == *test
        })
    };
    let (lanes, unit, seen) = match *what {
        Own(lane) => {
            let outcome = find(lane, MANY)?;
            (section::lane(outcome), outcome.unit, outcome.estimate)
        }
        Against(lane, other) => {
            let (own, other) = (find(lane, MANY)?, find(other, MANY)?);
            let lanes = format!("{} / {}", section::lane(own), section::lane(other));
            (lanes, Unit::Ratio, divide(&own.estimate, &other.estimate))
        }
        Flat(lane) => {
            let (many, few) = (find(lane, MANY)?, find(lane, FEW)?);
            (format!("{lane} {MANY} / {FEW}"), Unit::Ratio, divide(&many.estimate, &few.estimate))
        }
    };
    let (good, bad, sign, limit) = match *limit {
        AtLeast(limit) => (seen.interval[0] >= limit, seen.interval[1] < limit, "≥", limit),
        AtMost(limit) => (seen.interval[1] <= limit, seen.interval[0] > limit, "≤", limit),
    };
    Some(Bound {
        what: format!("{group}: {test}, {lanes}"),
        limit: format!("{sign} {}", table::limit(unit, limit)),
        seen: table::value(unit, &seen),
        verdict: match (good, bad) {
            (true, _) => Verdict::Met,
            (_, true) => Verdict::Missed,
            _ => Verdict::Open,
        },
    })
}

/// A ratio divided by another that was measured apart from it.
pub(super) fn divide(one: &Estimate, other: &Estimate) -> Estimate {
    let value = one.value / other.value;
    // Upper and lower halves apart: intervals of ratios are symmetric in their logarithms only.
    let half = |one_to: f64, other_to: f64| {
        let (one, other) = ((one_to / one.value).ln(), (other_to / other.value).ln());
        one.hypot(other).exp()
    };
    let [low, high] =
        [value / half(one.interval[0], other.interval[1]), value * half(one.interval[1], other.interval[0])];
    Estimate { value, interval: [low, high] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::outcome;

    fn check(outcomes: Vec<Outcome>) -> Vec<(String, Verdict)> {
        let bounds = of(&Report { environments: Vec::new(), outcomes });
        bounds.into_iter().map(|bound| (bound.what, bound.verdict)).collect()
    }

    #[test]
    fn a_bound_is_met_by_the_whole_interval() {
        let own = |value, half| outcome(["node-local", "udp", "beeline"], MANY, Unit::Ratio, value, half);
        for (value, half, verdict) in
            [(0.99, 0.01, Verdict::Met), (0.975, 0.01, Verdict::Open), (0.90, 0.01, Verdict::Missed)]
        {
            let what = "node-local: udp, beeline 10000".to_owned();
            assert_eq!(check(vec![own(value, half)]), [(what, verdict)]);
        }
    }

    #[test]
    fn a_quotient_is_judged_by_the_interval_of_independent_ratios() {
        let of = |lane, value| outcome(["pod to ClusterIP", "crr", lane], MANY, Unit::Ratio, value, 0.02);
        let seen = check(vec![of("beeline", 1.06), of("nftables", 0.84)]);
        let wanted =
            ["pod to ClusterIP: crr, beeline 10000", "pod to ClusterIP: crr, beeline 10000 / nftables 10000"];
        assert_eq!(seen, wanted.map(|what| (what.to_owned(), Verdict::Met)));
        let half = |value: f64, half: f64| Estimate { value, interval: [value / half, value * half] };
        let seen = divide(&half(1.2, 1.03), &half(0.8, 1.04));
        // ln 1.03 and ln 1.04 are 0.02956 and 0.03922: together 0.04911.
        assert!((seen.interval[1] / 1.5 - 1.05034).abs() < 1e-4, "{seen:?}");
        assert!((1.5 / seen.interval[0] - 1.05034).abs() < 1e-4, "{seen:?}");
        // A value without an interval adds nothing.
        assert!((divide(&half(1.2, 1.03), &half(0.8, 1.0)).interval[1] - 1.545).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let mut skipped = outcome(["node-local", "udp", "beeline"], MANY, Unit::Ratio, 1.0, 0.0);
        skipped.skipped = Some("no".to_owned());
        assert_eq!(check(vec![skipped]), []);
    }
}
