//! What Beeline wants to reach, and whether a run shows it. A bound is met if the whole 95 % interval is on its good
//! side; a quotient of two ratios has the widest interval that theirs allow.

use super::Report;
use crate::results::Outcome;
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
    ("rules", "one endpoint less", Own(US), AtMost(0.001)),
];

/// A row of the table of bounds, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) what: String,
    pub(super) limit: String,
    pub(super) seen: String,
    pub(super) verdict: &'static str,
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
    let (lanes, seen) = match *what {
        Own(lane) => (lane.to_owned(), find(lane, MANY)?.estimate),
        Against(lane, other) => {
            (format!("{lane} / {other}"), divide(&find(lane, MANY)?.estimate, &find(other, MANY)?.estimate))
        }
        Flat(lane) => {
            let (many, few) = (find(lane, MANY)?, find(lane, FEW)?);
            (format!("{lane} at {MANY} / at {FEW}"), divide(&many.estimate, &few.estimate))
        }
    };
    let (good, bad, limit) = match *limit {
        AtLeast(limit) => (seen.interval[0] >= limit, seen.interval[1] < limit, format!("at least {limit}")),
        AtMost(limit) => (seen.interval[1] <= limit, seen.interval[0] > limit, format!("at most {limit}")),
    };
    let digits = if seen.value < 0.1 { 6 } else { 3 };
    Some(Bound {
        what: format!("{group}: {test}, {lanes}"),
        limit,
        seen: format!(
            "{:.digits$} ({:.digits$} to {:.digits$})",
            seen.value, seen.interval[0], seen.interval[1]
        ),
        verdict: if good {
            "met"
        } else if bad {
            "not met"
        } else {
            "not decided: the limit lies in the interval"
        },
    })
}

fn divide(one: &Estimate, other: &Estimate) -> Estimate {
    Estimate {
        value: one.value / other.value,
        interval: [one.interval[0] / other.interval[1], one.interval[1] / other.interval[0]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Unit;
    use crate::results::tests::outcome;

    fn check(outcomes: Vec<Outcome>) -> Vec<(String, &'static str)> {
        let bounds = of(&Report { environments: Vec::new(), outcomes });
        bounds.into_iter().map(|bound| (bound.what, bound.verdict)).collect()
    }

    #[test]
    fn a_bound_is_met_by_the_whole_interval() {
        let own = |value, half| outcome(["node-local", "udp", "beeline"], MANY, Unit::Ratio, value, half);
        for (value, half, verdict) in [
            (0.99, 0.01, "met"),
            (0.975, 0.01, "not decided: the limit lies in the interval"),
            (0.90, 0.01, "not met"),
        ] {
            assert_eq!(check(vec![own(value, half)]), [("node-local: udp, beeline".to_owned(), verdict)]);
        }
    }

    #[test]
    fn a_quotient_has_the_widest_interval_that_its_parts_allow() {
        let of = |lane, value| outcome(["pod to ClusterIP", "crr", lane], MANY, Unit::Ratio, value, 0.02);
        let seen = check(vec![of("beeline", 1.06), of("nftables", 0.84)]);
        // 1.04 / 0.86 is above 1.2; 1.04 alone above 1.0.
        let wanted = ["pod to ClusterIP: crr, beeline", "pod to ClusterIP: crr, beeline / nftables"];
        assert_eq!(seen, wanted.map(|what| (what.to_owned(), "met")));
    }

    #[test]
    fn what_was_not_measured_has_no_row() {
        let mut skipped = outcome(["node-local", "udp", "beeline"], MANY, Unit::Ratio, 1.0, 0.0);
        skipped.skipped = Some("no".to_owned());
        assert_eq!(check(vec![skipped]), []);
    }
}
