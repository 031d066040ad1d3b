//! Upstream's cases of endpoint categories (`pkg/proxy/topology_test.go`), in our words, and what they leave open.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Zones of the tests; a list of zones is numbered by the bits of its members.
const ZONES: [&str; 4] = ["a", "b", "c", "d"];
const HERE: u32 = 1;

/// "10.0.0.1 ready local zones=a,b nodes=here,x": an endpoint on port 80.
fn candidate(text: &str) -> Candidate {
    let mut words = text.split_whitespace();
    let address = words.next().unwrap().parse().unwrap();
    let mut endpoint = Endpoint { address, marks: Marks::default(), node: NONE, zones: NONE };
    for word in words {
        let (word, list) = word.split_once('=').unwrap_or((word, ""));
        let mark = match word {
            "ready" => Marks::READY,
            "serving" => Marks::SERVING,
            "terminating" => Marks::TERMINATING,
            "nodes" if list.split(',').any(|node| node == "here") => {
                Marks::NODE_HINTS.with(Marks::HINTED_HERE, true)
            }
            "nodes" => Marks::NODE_HINTS,
            "local" | "remote" => {
                endpoint.node = if word == "local" { HERE } else { HERE + 1 };
                continue;
            }
            "zones" => {
                let bit = |zone| 1 << ZONES.iter().position(|known| *known == zone).unwrap();
                endpoint.zones = list.split(',').map(bit).sum();
                continue;
            }
            _ => panic!("{word}"),
        };
        endpoint.marks = endpoint.marks.with(mark, true);
    }
    Candidate { endpoint, port: 80, weight: 1, cluster: false, local: false }
}

/// `zone` is this node's, empty for none. Addresses are told by their last number.
#[track_caller]
fn check(zone: &str, endpoints: &[&str], cluster: &[u8], local: &[u8]) {
    let zone_fits: Vec<bool> = (0..1 << ZONES.len())
        .map(|list| ZONES.iter().position(|known| *known == zone).is_some_and(|bit| list & 1 << bit != 0))
        .collect();
    let mut candidates: Vec<Candidate> = endpoints.iter().map(|text| candidate(text)).collect();
    categorise(&mut candidates, Here { node: HERE, zone_fits: &zone_fits });
    let last = |candidate: &Candidate| match candidate.endpoint.address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    let found = |set: fn(&Candidate) -> bool| {
        candidates.iter().filter(|candidate| set(candidate)).map(last).collect::<Vec<_>>()
    };
    assert_eq!(found(|candidate| candidate.cluster), cluster, "cluster");
    assert_eq!(found(|candidate| candidate.local), local, "local");
}

#[test]
fn zone_hints_filter_when_all_ready_endpoints_have_them_and_one_fits() {
    let four = [
        "10.1.2.3 ready zones=a",
        "10.1.2.4 ready zones=b",
        "10.1.2.5 ready zones=c",
        "10.1.2.6 ready zones=a",
    ];
    check("a", &four, &[3, 6], &[]);
    check("d", &four, &[3, 4, 5, 6], &[]);
}

#[test]
fn a_node_without_a_zone_or_in_another_one_uses_all() {
    check("", &["10.1.2.3 ready zones=a"], &[3], &[]);
    check("b", &["10.1.2.3 ready zones=a"], &[3], &[]);
    check("b", &["10.1.2.3 ready zones=a", "10.1.2.5 ready zones=c"], &[3, 5], &[]);
}

#[test]
fn one_ready_endpoint_without_a_hint_switches_hints_off() {
    let endpoints =
        ["10.1.2.3 ready zones=a", "10.1.2.4 ready zones=b", "10.1.2.5 ready", "10.1.2.6 ready zones=a"];
    check("a", &endpoints, &[3, 4, 5, 6], &[]);
}

#[test]
fn an_endpoint_may_be_meant_for_several_zones() {
    let endpoints = [
        "10.1.2.3 ready zones=a,b,c",
        "10.1.2.4 ready zones=b,c",
        "10.1.2.5 ready zones=b,d",
        "10.1.2.6 ready zones=c",
    ];
    check("c", &endpoints, &[3, 4, 6], &[]);
}

#[test]
fn unready_endpoints_neither_serve_nor_count_for_hints() {
    let unready_without_hint = ["10.1.2.3 ready zones=a", "10.1.2.4 ready zones=b", "10.1.2.6"];
    check("a", &unready_without_hint, &[3], &[]);
    let some =
        ["10.1.2.3 ready zones=a", "10.1.2.4 ready zones=b", "10.1.2.5 ready zones=c", "10.1.2.6 zones=a"];
    check("a", &some, &[3], &[]);
    let only_unready_here =
        ["10.1.2.3 zones=a", "10.1.2.4 ready zones=b", "10.1.2.5 ready zones=c", "10.1.2.6 zones=a"];
    check("a", &only_unready_here, &[4, 5], &[]);
    check("", &["10.0.0.0", "10.0.0.1"], &[], &[]);
    check("", &["10.0.0.0", "10.0.0.1 ready"], &[1], &[]);
}

#[test]
fn node_hints_win_over_zone_hints_and_fall_back_to_them() {
    let spread = |nodes: [&str; 4]| {
        let zones = ["a", "b", "c", "a"];
        (0..4).map(|i| format!("10.1.2.{} ready zones={}{}", i + 3, zones[i], nodes[i])).collect::<Vec<_>>()
    };
    for (nodes, expected) in [
        ([" nodes=here", " nodes=x", " nodes=y", " nodes=z"], &[3][..]),
        ([" nodes=x,here", " nodes=x", " nodes=here", " nodes=z"], &[3, 5]),
        ([" nodes=w", " nodes=x", " nodes=y", " nodes=z"], &[3, 6]),
        ([" nodes=here", "", " nodes=y", " nodes=z"], &[3, 6]),
    ] {
        let endpoints = spread(nodes);
        check("a", &endpoints.iter().map(String::as_str).collect::<Vec<_>>(), expected, &[]);
    }
}

#[test]
fn neither_kind_of_hint_counts_when_some_endpoint_has_none() {
    let endpoints = [
        "10.1.2.3 ready zones=a nodes=here",
        "10.1.2.4 ready",
        "10.1.2.5 ready zones=c nodes=y",
        "10.1.2.6 ready zones=a nodes=z",
    ];
    check("a", &endpoints, &[3, 4, 5, 6], &[]);
}

#[test]
fn node_hints_need_no_zones() {
    let endpoints = ["10.1.2.3 ready nodes=here", "10.1.2.4 ready nodes=x"];
    check("", &endpoints, &[3], &[]);
    let unready_here = ["10.1.2.3 nodes=here", "10.1.2.4 ready nodes=x"];
    check("", &unready_here, &[4], &[]);
}

#[test]
fn the_local_set_ignores_hints() {
    let endpoints = [
        "10.0.0.0 ready local zones=a",
        "10.0.0.1 ready local zones=b",
        "10.0.0.2 ready remote zones=a",
        "10.0.0.3 ready remote zones=b",
    ];
    check("a", &endpoints, &[0, 2], &[0, 1]);
    let three_zones = [
        "10.1.2.3 ready local zones=a",
        "10.1.2.4 ready local zones=b",
        "10.1.2.5 ready remote zones=c",
        "10.1.2.6 ready remote zones=a",
    ];
    check("a", &three_zones, &[3, 6], &[3, 4]);
}

#[test]
fn the_local_set_holds_what_runs_here() {
    check("", &[], &[], &[]);
    check("", &["10.0.0.0 ready remote", "10.0.0.1 ready remote"], &[0, 1], &[]);
    check("", &["10.0.0.0 ready local", "10.0.0.1 ready local"], &[0, 1], &[0, 1]);
    check("", &["10.0.0.0 ready local", "10.0.0.1 ready remote"], &[0, 1], &[0]);
    check("", &["10.0.0.0 ready"], &[0], &[]);
}

#[test]
fn terminating_endpoints_serve_only_when_none_is_ready_each_set_on_its_own() {
    let all = ["10.0.0.0 serving terminating local", "10.0.0.1 serving terminating remote"];
    check("", &all, &[0, 1], &[0]);
    let all_remote = ["10.0.0.0 serving terminating remote", "10.0.0.1 serving terminating remote"];
    check("", &all_remote, &[0, 1], &[]);
    let mixed = [
        "10.0.0.0 ready remote",
        "10.0.0.1 local",
        "10.0.0.2 serving terminating local",
        "10.0.0.3 serving terminating remote",
    ];
    check("", &mixed, &[0], &[2]);
    check("", &["10.0.0.0 terminating local"], &[], &[]);
    check("", &["10.0.0.0 serving local"], &[], &[]);
}

#[test]
fn hints_do_not_count_for_terminating_endpoints() {
    let endpoints = ["10.0.0.0 serving terminating zones=a", "10.0.0.1 serving terminating zones=b"];
    check("a", &endpoints, &[0, 1], &[]);
}

#[test]
fn a_terminating_endpoint_that_is_published_as_ready_is_a_ready_one() {
    let endpoints = ["10.0.0.0 ready serving terminating local", "10.0.0.1 ready remote"];
    check("", &endpoints, &[0, 1], &[0]);
}
