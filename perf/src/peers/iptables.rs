//! The rules of kube-proxy's iptables mode, as input for `iptables-restore`. Only what cluster IPs and node ports of
//! services with endpoints need.
//!
//! # See
//! Kubernetes, pkg/proxy/iptables/proxier.go and the expectations of its proxier_test.go (v1.33): chains, their order,
//! matches, names. The names are hashes, which a test compares.

use std::collections::HashSet;
use std::fmt::Write;

use super::services::ServicePort;
use sha2::{Digest, Sha256};

/// The cluster's pods, from which traffic is not masqueraded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterCidr<'a>(pub(crate) &'a str);

/// The first 16 letters of the base-32 form of a hash.
fn hash(text: &str) -> String {
    base32(&Sha256::digest(text), 16)
}

/// RFC 4648 base 32, the first `length` letters.
pub(super) fn base32(bytes: &[u8], length: usize) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let letter = |at: usize| (0..5).fold(0, |value, i| value << 1 | usize::from(bit(at * 5 + i)));
    (0..length).map(|at| char::from(LETTERS[letter(at)])).collect()
}

struct Chains {
    service: String,
    external: String,
    endpoints: Vec<String>,
}

impl Chains {
    fn of(port: &ServicePort) -> Self {
        let name = format!("{}{}", port.name(), port.protocol.as_str());
        let service = hash(&name);
        Self {
            external: format!("KUBE-EXT-{service}"),
            endpoints: port
                .endpoints
                .iter()
                .map(|(address, port)| format!("KUBE-SEP-{}", hash(&format!("{name}{address}:{port}"))))
                .collect(),
            service: format!("KUBE-SVC-{service}"),
        }
    }
}

const FILTER: &str = "\
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const NAT: &str = "\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
";

const LAST: &str = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";

/// All rules.
pub(crate) fn rules(ports: &[ServicePort], cluster: ClusterCidr<'_>) -> String {
    let mut chains = String::from(
        "*nat\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SERVICES - [0:0]\n",
    );
    let mut rules = String::from(NAT);
    for port in ports {
        let names = Chains::of(port);
        for chain in names.endpoints.iter().chain([&names.service]) {
            // Writing to a string cannot fail.
            let _ = writeln!(chains, ":{chain} - [0:0]");
        }
        if port.node_port.is_some() {
            let _ = writeln!(chains, ":{} - [0:0]", names.external);
        }
        service(port, &names, cluster, &mut rules);
    }
    // kube-proxy writes this one behind all services.
    format!("{FILTER}{chains}{rules}{LAST}COMMIT\n")
}

/// Input for `iptables-restore --noflush` that turns the rules `old` into the rules `new` (both of [`rules`], or empty for
/// none): our chains are filled anew and those that are not wanted any more removed; the jumps from the kernel's chains come
/// with the first rules and go with the last.
pub(crate) fn change(old: &str, new: &str) -> String {
    let mut text = String::new();
    for table in ["filter", "nat"] {
        let (old, new) = (lines_of(old, table), lines_of(new, table));
        let (in_old, in_new): (HashSet<_>, HashSet<_>) =
            (old.iter().copied().collect(), new.iter().copied().collect());
        let _ = writeln!(text, "*{table}");
        let mut put = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        let is_chain = |line: &&&str| line.starts_with(':');
        let gone: Vec<_> = old.iter().filter(is_chain).filter(|line| !in_new.contains(*line)).collect();
        // A chain that is declared is emptied.
        new.iter().filter(is_chain).chain(gone.iter().copied()).for_each(|line| put(line));
        for line in old.iter().filter(|line| is_jump(line) && !in_new.contains(*line)) {
            put(&line.replacen("-A", "-D", 1));
        }
        let rules = new.iter().filter(|line| line.starts_with("-A"));
        rules.filter(|line| !is_jump(line) || !in_old.contains(*line)).for_each(|line| put(line));
        for line in gone {
            put(&format!("-X {}", line.trim_start_matches(':').trim_end_matches(" - [0:0]")));
        }
        put("COMMIT");
    }
    text
}

/// The lines of one table, in order.
fn lines_of<'a>(text: &'a str, table: &str) -> Vec<&'a str> {
    let begin = format!("*{table}");
    let lines = text.lines().skip_while(|line| *line != begin).skip(1);
    lines.take_while(|line| *line != "COMMIT").collect()
}

/// From a chain of the kernel's own.
fn is_jump(line: &str) -> bool {
    line.starts_with("-A ") && !line.starts_with("-A KUBE-")
}

fn service(port: &ServicePort, names: &Chains, ClusterCidr(cluster): ClusterCidr<'_>, rules: &mut String) {
    let name = port.name();
    let (protocol, ip, number) = (port.protocol.as_str(), port.cluster_ip, port.port);
    let to = format!(
        "-m comment --comment \"{name} cluster IP\" -m {protocol} -p {protocol} -d {ip} --dport {number}"
    );
    let Chains { service, external, endpoints } = names;
    let _ = writeln!(rules, "-A KUBE-SERVICES {to} -j {service}");
    let _ = writeln!(rules, "-A {service} {to} ! -s {cluster} -j KUBE-MARK-MASQ");
    if let Some(node_port) = port.node_port {
        let _ = writeln!(
            rules,
            "-A KUBE-NODEPORTS -m comment --comment {name} -m {protocol} -p {protocol} --dport {node_port} -j {external}\n\
             -A {external} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ\n\
             -A {external} -j {service}"
        );
    }
    for (index, (endpoint, (address, backend))) in endpoints.iter().zip(&port.endpoints).enumerate() {
        let left = endpoints.len() - index;
        // The last one takes what is left.
        let share = if left > 1 {
            format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
        } else {
            String::new()
        };
        let _ = writeln!(
            rules,
            "-A {service} -m comment --comment \"{name} -> {address}:{backend}\"{share} -j {endpoint}\n\
             -A {endpoint} -m comment --comment {name} -s {address} -j KUBE-MARK-MASQ\n\
             -A {endpoint} -m comment --comment {name} -m {protocol} -p {protocol} -j DNAT --to-destination {address}:{backend}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::services::{self, tests::upstream};
    use super::*;

    #[test]
    fn a_change_keeps_jumps_fills_chains_anew_and_removes_the_rest() {
        let (two, one) = (upstream(), &upstream()[..1]);
        let cluster = ClusterCidr("10.0.0.0/8");
        let (two, one) = (rules(&two, cluster), rules(one, cluster));
        assert_eq!(change("", &two).lines().count(), two.lines().count());
        let less = change(&two, &one);
        assert!(!less.contains("-A PREROUTING") && !less.contains("-D PREROUTING"), "{less}");
        let chain = Chains::of(&upstream()[1]).service;
        for line in [format!(":{chain} - [0:0]"), format!("-X {chain}")] {
            assert!(less.lines().any(|seen| seen == line), "{line} is not in\n{less}");
        }
        let none = change(&one, "");
        assert!(
            none.contains("-D POSTROUTING") && none.contains("-X KUBE-SERVICES") && !none.contains("-A "),
            "{none}"
        );
    }

    /// What upstream's tests expect for these services.
    const EXPECTED: &[&str] = &[
        r#"-A KUBE-SERVICES -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O"#,
        r#"-A KUBE-SVC-XPGD46QRK7WJZT7O -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ"#,
        r#"-A KUBE-SVC-XPGD46QRK7WJZT7O -m comment --comment "ns1/svc1:p80 -> 10.180.0.1:80" -j KUBE-SEP-SXIVWICOYRO3J4NJ"#,
        r#"-A KUBE-SEP-SXIVWICOYRO3J4NJ -m comment --comment ns1/svc1:p80 -s 10.180.0.1 -j KUBE-MARK-MASQ"#,
        r#"-A KUBE-SEP-SXIVWICOYRO3J4NJ -m comment --comment ns1/svc1:p80 -m tcp -p tcp -j DNAT --to-destination 10.180.0.1:80"#,
        r#"-A KUBE-NODEPORTS -m comment --comment ns3/svc3:p80 -m tcp -p tcp --dport 3003 -j KUBE-EXT-X27LE4BHSL4DOUIK"#,
        r#"-A KUBE-EXT-X27LE4BHSL4DOUIK -m comment --comment "masquerade traffic for ns3/svc3:p80 external destinations" -j KUBE-MARK-MASQ"#,
        r#"-A KUBE-EXT-X27LE4BHSL4DOUIK -j KUBE-SVC-X27LE4BHSL4DOUIK"#,
        r#"-A KUBE-SVC-X27LE4BHSL4DOUIK -m comment --comment "ns3/svc3:p80 -> 10.180.0.3:80" -j KUBE-SEP-OYPFS5VJICHGATKP"#,
        r#"-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"#,
        r#"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"#,
        r#"-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"#,
        r#"-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"#,
        r#"-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"#,
        r#":KUBE-EXT-X27LE4BHSL4DOUIK - [0:0]"#,
    ];

    #[test]
    fn upstreams_services_get_upstreams_rules() {
        let rules = rules(&upstream(), ClusterCidr("10.0.0.0/8"));
        for line in EXPECTED {
            assert!(rules.lines().any(|rule| rule == *line), "{line} is not in\n{rules}");
        }
    }

    #[test]
    fn each_endpoint_has_an_equal_share_of_what_is_left() {
        let rules = rules(&services::services(2, &[]), ClusterCidr("10.0.0.0/8"));
        let shares: Vec<_> = rules
            .lines()
            .filter(|line| line.contains("ns0/svc0:p80 -> "))
            .map(|line| {
                line.split("--probability ").nth(1).map_or("", |text| text.split(' ').next().unwrap_or(""))
            })
            .collect();
        assert_eq!(shares, ["0.3333333333", "0.5000000000", ""]);
    }
}
