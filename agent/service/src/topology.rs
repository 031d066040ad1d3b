//! Which endpoints a node uses: the rules of upstream's `pkg/proxy/topology.go`.
//!
//! Cluster set: the ready endpoints that topology hints allow; if none is ready anywhere, those that serve while they terminate.
//! Local set: the same decision among this node's endpoints alone, without hints.

use std::net::IpAddr;

/// An endpoint of a service port, with its target port resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Target port.
    pub port: u16,
    /// conditions.ready.
    pub ready: bool,
    /// conditions.serving.
    pub serving: bool,
    /// conditions.terminating.
    pub terminating: bool,
    /// nodeName, empty if unknown.
    pub node: String,
    /// hints.forZones.
    pub zone_hints: Vec<String>,
    /// hints.forNodes.
    pub node_hints: Vec<String>,
}

impl Endpoint {
    fn serves_while_terminating(&self) -> bool {
        self.serving && self.terminating
    }
}

/// Where the decision is made.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// This node's name.
    pub node: &'a str,
    /// This node's zone (label topology.kubernetes.io/zone), empty if it has none.
    pub zone: &'a str,
}

/// Which hints are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Everywhere,
    SameNode,
    SameZone,
}

/// The endpoints of the Cluster policy.
pub fn cluster<'a>(endpoints: &[&'a Endpoint], here: Here<'_>) -> Vec<&'a Endpoint> {
    let mode = mode(endpoints, here);
    let ready: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| endpoint.ready && allowed(endpoint, mode, here))
        .collect();
    if ready.is_empty() {
        return endpoints.iter().copied().filter(|endpoint| endpoint.serves_while_terminating()).collect();
    }
    ready
}

/// The endpoints of the Local policies.
pub fn local<'a>(endpoints: &[&'a Endpoint], here: Here<'_>) -> Vec<&'a Endpoint> {
    let own: Vec<_> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| endpoint.node == here.node && !here.node.is_empty())
        .collect();
    let ready: Vec<_> = own.iter().copied().filter(|endpoint| endpoint.ready).collect();
    if ready.is_empty() {
        return own.into_iter().filter(|endpoint| endpoint.serves_while_terminating()).collect();
    }
    ready
}

/// Hints count only when every ready endpoint carries them and one is meant for here; node hints win over zone hints.
fn mode(endpoints: &[&Endpoint], here: Here<'_>) -> Mode {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    if ready().next().is_none() {
        return Mode::Everywhere;
    }
    let usable = |hints: fn(&Endpoint) -> &[String], value: &str| {
        ready().all(|endpoint| !hints(endpoint).is_empty())
            && ready().any(|endpoint| hints(endpoint).iter().any(|hint| hint == value))
    };
    if usable(|endpoint| &endpoint.node_hints, here.node) {
        Mode::SameNode
    } else if usable(|endpoint| &endpoint.zone_hints, here.zone) {
        Mode::SameZone
    } else {
        Mode::Everywhere
    }
}

fn allowed(endpoint: &Endpoint, mode: Mode, here: Here<'_>) -> bool {
    match mode {
        Mode::Everywhere => true,
        Mode::SameNode => endpoint.node_hints.iter().any(|hint| hint == here.node),
        Mode::SameZone => endpoint.zone_hints.iter().any(|hint| hint == here.zone),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// "10.0.0.1 ready local zones=a,b nodes=n1": an endpoint on port 80.
    fn endpoint(text: &str) -> Endpoint {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap().parse().unwrap();
        let mut endpoint = Endpoint {
            address,
            port: 80,
            ready: false,
            serving: false,
            terminating: false,
            node: "elsewhere".to_owned(),
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        };
        let list = |values: &str| values.split(',').map(str::to_owned).collect();
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("ready", _) => endpoint.ready = true,
                ("serving", _) => endpoint.serving = true,
                ("terminating", _) => endpoint.terminating = true,
                ("local", _) => endpoint.node = "here".to_owned(),
                ("zones", zones) => endpoint.zone_hints = list(zones),
                ("nodes", nodes) => endpoint.node_hints = list(nodes),
                _ => panic!("{word}"),
            }
        }
        endpoint
    }

    #[track_caller]
    fn check(zone: &str, endpoints: &[&str], expected_cluster: &[&str], expected_local: &[&str]) {
        let endpoints: Vec<Endpoint> = endpoints.iter().map(|text| endpoint(text)).collect();
        let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
        let here = Here { node: "here", zone };
        let texts = |found: Vec<&Endpoint>| {
            found.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(texts(cluster(&endpoints, here)), expected_cluster, "cluster");
        assert_eq!(texts(local(&endpoints, here)), expected_local, "local");
    }

    #[test]
    fn zone_hints_filter_when_all_ready_endpoints_have_them_and_one_fits() {
        let four = [
            "10.1.2.3 ready zones=a",
            "10.1.2.4 ready zones=b",
            "10.1.2.5 ready zones=c",
            "10.1.2.6 ready zones=a",
        ];
        check("a", &four, &["10.1.2.3", "10.1.2.6"], &[]);
        check("d", &four, &["10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"], &[]);
        check("", &["10.1.2.3 ready zones=a"], &["10.1.2.3"], &[]);
        check("b", &["10.1.2.3 ready zones=a"], &["10.1.2.3"], &[]);
    }

    #[test]
    fn one_endpoint_without_a_hint_switches_hints_off() {
        let endpoints =
            ["10.1.2.3 ready zones=a", "10.1.2.4 ready zones=b", "10.1.2.5 ready", "10.1.2.6 ready zones=a"];
        check("a", &endpoints, &["10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"], &[]);
    }

    #[test]
    fn an_endpoint_may_be_meant_for_several_zones() {
        let endpoints = [
            "10.1.2.3 ready zones=a,b,c",
            "10.1.2.4 ready zones=b,c",
            "10.1.2.5 ready zones=b,d",
            "10.1.2.6 ready zones=c",
        ];
        check("c", &endpoints, &["10.1.2.3", "10.1.2.4", "10.1.2.6"], &[]);
    }

    #[test]
    fn unready_endpoints_neither_serve_nor_count_for_hints() {
        let some = ["10.1.2.3 ready zones=a", "10.1.2.4 ready zones=b", "10.1.2.6 zones=a"];
        check("a", &some, &["10.1.2.3"], &[]);
        let only_other_zones =
            ["10.1.2.3 zones=a", "10.1.2.4 ready zones=b", "10.1.2.5 ready zones=c", "10.1.2.6 zones=a"];
        check("a", &only_other_zones, &["10.1.2.4", "10.1.2.5"], &[]);
        check("", &["10.0.0.0", "10.0.0.1"], &[], &[]);
        check("", &["10.0.0.0", "10.0.0.1 ready"], &["10.0.0.1"], &[]);
    }

    #[test]
    fn node_hints_win_over_zone_hints() {
        let endpoints = [
            "10.1.2.3 ready zones=a nodes=here",
            "10.1.2.4 ready zones=a nodes=other",
            "10.1.2.5 ready zones=b nodes=third",
        ];
        check("a", &endpoints, &["10.1.2.3"], &[]);
        let not_here = [
            "10.1.2.3 ready zones=a nodes=x",
            "10.1.2.4 ready zones=a nodes=other",
            "10.1.2.5 ready zones=b nodes=third",
        ];
        check("a", &not_here, &["10.1.2.3", "10.1.2.4"], &[]);
        let not_all = [
            "10.1.2.3 ready zones=a nodes=here",
            "10.1.2.4 ready zones=a",
            "10.1.2.5 ready zones=b nodes=third",
        ];
        check("a", &not_all, &["10.1.2.3", "10.1.2.4"], &[]);
    }

    #[test]
    fn the_local_set_ignores_hints() {
        let endpoints = [
            "10.0.0.0 ready local zones=a",
            "10.0.0.1 ready local zones=b",
            "10.0.0.2 ready zones=a",
            "10.0.0.3 ready zones=b",
        ];
        check("a", &endpoints, &["10.0.0.0", "10.0.0.2"], &["10.0.0.0", "10.0.0.1"]);
    }

    #[test]
    fn terminating_endpoints_serve_only_when_none_is_ready() {
        let all = ["10.0.0.0 serving terminating local", "10.0.0.1 serving terminating"];
        check("", &all, &["10.0.0.0", "10.0.0.1"], &["10.0.0.0"]);
        let mixed = [
            "10.0.0.0 ready",
            "10.0.0.1 local",
            "10.0.0.2 serving terminating local",
            "10.0.0.3 serving terminating",
        ];
        check("", &mixed, &["10.0.0.0"], &["10.0.0.2"]);
        check("", &["10.0.0.0 terminating local"], &[], &[]);
    }

    #[test]
    fn without_local_endpoints_the_local_set_is_empty() {
        check("", &["10.0.0.0 ready", "10.0.0.1 ready"], &["10.0.0.0", "10.0.0.1"], &[]);
        check("", &[], &[], &[]);
    }
}
