//! Figures of proxies that do not run in the suite: other people's, with where they stand, and our own of another day.
//! They keep their row in a report, marked, and are never set against an interval.

use serde_json::Value;

use crate::results::{Outcome, Unit};
use crate::statistics::Estimate;

/// group, test, lane, unit, value, source.
type Row = (&'static str, &'static str, &'static str, Unit, f64, &'static str);

/// Measured with the method of `perf cost`, in a run of its own.
const OWN: &str = "own run of 22 November 2026, 2 vCPU EPYC under KVM, Linux 6.18, same method";
const CILIUM_18: &str = "cilium.io blog, 2020-06-22 (Cilium 1.8, kernel 5.7, other hardware)";
const ANL: &str =
    "github.com/onedr0p/home-ops pull 11359 (2026-07, Cilium 1.19.6, kernel 6.18, netkit, other hardware)";

const ROWS: &[Row] = &[
    ("program", "XDP, established, TCP, IPv4", "katran", Unit::Nanoseconds, 101.0, OWN),
    ("program", "XDP, established, UDP, IPv4", "katran", Unit::Nanoseconds, 177.0, OWN),
    ("program", "XDP, established, TCP, IPv6", "katran", Unit::Nanoseconds, 150.0, OWN),
    ("program", "XDP, established, UDP, IPv6", "katran", Unit::Nanoseconds, 181.0, OWN),
    ("program", "XDP, new flow, entry, TCP, IPv4", "katran", Unit::Nanoseconds, 750.0, OWN),
    ("program", "XDP, new flow, entry, TCP, IPv6", "katran", Unit::Nanoseconds, 785.0, OWN),
    ("program", "XDP, not ours, IPv4", "katran", Unit::Nanoseconds, 64.0, OWN),
    ("program", "tc, established, pod to ClusterIP, TCP, IPv4", "calico", Unit::Nanoseconds, 518.0, OWN),
    ("program", "tc, established, pod to ClusterIP, UDP, IPv4", "calico", Unit::Nanoseconds, 547.0, OWN),
    ("program", "tc, new flow, pod to ClusterIP, TCP, IPv4", "calico", Unit::Nanoseconds, 2045.0, OWN),
    ("program", "connect4 to a ClusterIP", "calico", Unit::Nanoseconds, 1500.0, OWN),
    ("outside, one service, 10 Mpps offered", "forwarded packets", "cilium xdp", Unit::Rate, 10e6, CILIUM_18),
    ("outside, one service, 10 Mpps offered", "forwarded packets", "cilium tc", Unit::Rate, 3.6e6, CILIUM_18),
    (
        "outside, one service, 10 Mpps offered",
        "forwarded packets",
        "kube-proxy iptables",
        Unit::Rate,
        2.1e6,
        CILIUM_18,
    ),
    (
        "outside, one service, 10 Mpps offered",
        "forwarded packets",
        "kube-proxy ipvs",
        Unit::Rate,
        2.0e6,
        CILIUM_18,
    ),
    ("same node, one connection", "tcp request/response", "cilium", Unit::Rate, 58.3e3, ANL),
];

/// The rows as results.
pub(crate) fn outcomes() -> impl Iterator<Item = Outcome> {
    ROWS.iter().map(|(group, test, lane, unit, value, source)| Outcome {
        group: (*group).to_owned(),
        test: (*test).to_owned(),
        lane: (*lane).to_owned(),
        services: None,
        reference: None,
        unit: *unit,
        estimate: Estimate { value: *value, interval: [*value; 2] },
        published: Some((*source).to_owned()),
        skipped: None,
        detail: Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_rows_stand_beside_a_case_of_ours() {
        let known: Vec<_> = crate::cost::CASES.iter().map(|case| case.name).collect();
        for (_, test, lane, ..) in ROWS.iter().filter(|(group, ..)| *group == "program") {
            assert!(known.contains(test) || test.starts_with("connect4"), "{lane}: {test}");
        }
        assert!(outcomes().all(|outcome| outcome.published.is_some()));
    }
}
