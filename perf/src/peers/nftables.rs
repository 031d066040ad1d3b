//! The rules of kube-proxy's nftables mode, as transactions for `nft -f`. Only what cluster IPs and node ports of
//! services with endpoints need.
//!
//! kube-proxy fills a table of 10,000 services in one transaction, which stalls a small machine for minutes. Here it is
//! filled in parts: the result is the same.
//!
//! # See
//! Kubernetes, pkg/proxy/nftables/proxier.go and the expectations of its proxier_test.go (v1.33).

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::iptables::{ClusterCidr, base32};
use super::services::ServicePort;
use sha2::{Digest, Sha256};

/// Service ports in one transaction.
const PART: usize = 250;

/// The table, its maps and the chains at hooks.
fn base(service_cidr: &str, node_ports: &[Ipv4Addr]) -> String {
    let verdicts = "type ipv4_addr . inet_proto . inet_service : verdict";
    let mut text = format!(
        "\
add table ip kube-proxy {{ comment \"rules for kube-proxy\" ; }}
add set ip kube-proxy cluster-ips {{ type ipv4_addr ; comment \"Active ClusterIPs\" ; }}
add set ip kube-proxy nodeport-ips {{ type ipv4_addr ; comment \"IPs that accept NodePort traffic\" ; }}
add map ip kube-proxy firewall-ips {{ {verdicts} ; }}
add map ip kube-proxy no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map ip kube-proxy no-endpoint-services {{ {verdicts} ; }}
add map ip kube-proxy service-ips {{ {verdicts} ; }}
add map ip kube-proxy service-nodeports {{ type inet_proto . inet_service : verdict ; }}
"
    );
    for (chain, hook) in CHAINS {
        let _ = match *hook {
            "" => writeln!(text, "add chain ip kube-proxy {chain}"),
            _ => writeln!(text, "add chain ip kube-proxy {chain} {{ type {hook} ; }}"),
        };
    }
    for rule in RULES {
        let _ = writeln!(text, "add rule ip kube-proxy {}", rule.replace("SERVICE_CIDR", service_cidr));
    }
    for address in node_ports {
        let _ = writeln!(text, "add element ip kube-proxy nodeport-ips {{ {address} }}");
    }
    text
}

/// Chains and the hooks they are at.
const CHAINS: &[(&str, &str)] = &[
    ("cluster-ips-check", ""),
    ("filter-prerouting-pre-dnat", "filter hook prerouting priority -110"),
    ("filter-output-pre-dnat", "filter hook output priority -110"),
    ("filter-forward", "filter hook forward priority 0"),
    ("filter-input", "filter hook input priority 0"),
    ("filter-output", "filter hook output priority 0"),
    ("firewall-check", ""),
    ("mark-for-masquerade", ""),
    ("masquerading", ""),
    ("nat-output", "nat hook output priority -100"),
    ("nat-postrouting", "nat hook postrouting priority 100"),
    ("nat-prerouting", "nat hook prerouting priority -100"),
    ("nodeport-endpoints-check", ""),
    ("reject-chain", ""),
    ("services", ""),
    ("service-endpoints-check", ""),
];

/// Rules that do not depend on services.
const RULES: &[&str] = &[
    "cluster-ips-check ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"",
    "cluster-ips-check ip daddr { SERVICE_CIDR } drop comment \"Drop traffic to unallocated ClusterIPs\"",
    "filter-prerouting-pre-dnat ct state new jump firewall-check",
    "filter-forward ct state new jump service-endpoints-check",
    "filter-forward ct state new jump cluster-ips-check",
    "filter-input ct state new jump nodeport-endpoints-check",
    "filter-input ct state new jump service-endpoints-check",
    "filter-output ct state new jump service-endpoints-check",
    "filter-output-pre-dnat ct state new jump firewall-check",
    "filter-output ct state new jump cluster-ips-check",
    "firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips",
    "mark-for-masquerade mark set mark or 0x4000",
    "masquerading mark and 0x4000 == 0 return",
    "masquerading mark set mark xor 0x4000",
    "masquerading masquerade fully-random",
    "nat-output jump services",
    "nat-postrouting jump masquerading",
    "nat-prerouting jump services",
    "nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports",
    "reject-chain reject",
    "services ip daddr . meta l4proto . th dport vmap @service-ips",
    "services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
    "service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services",
];

/// `HASH-text`, the form of names of chains.
fn hashed(text: &str) -> String {
    format!("{}-{text}", base32(&Sha256::digest(text), 8))
}

/// All transactions, in order.
pub(crate) fn transactions(
    ports: &[ServicePort],
    cluster: ClusterCidr<'_>,
    service_cidr: &str,
    node_ports: &[Ipv4Addr],
) -> Vec<String> {
    let parts = ports.chunks(PART).map(|part| part.iter().map(|port| service(port, cluster)).collect());
    [base(service_cidr, node_ports)].into_iter().chain(parts).collect()
}

fn service(port: &ServicePort, ClusterCidr(cluster): ClusterCidr<'_>) -> String {
    let protocol = port.protocol.as_str();
    let name = format!("{}/{}/{protocol}/{}", port.namespace, port.service, port.port_name);
    let base = hashed(&name);
    let (ip, number) = (port.cluster_ip, port.port);
    let endpoint = |(address, backend): &(Ipv4Addr, u16)| {
        format!("endpoint-{}", hashed(&format!("{name}__{address}/{backend}")))
    };
    let mut text = String::new();
    let mut put = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let mut choices = Vec::new();
    for (index, end) in port.endpoints.iter().enumerate() {
        let ((address, backend), chain) = (end, endpoint(end));
        put(format!("add chain ip kube-proxy {chain}"));
        put(format!("add rule ip kube-proxy {chain} ip saddr {address} jump mark-for-masquerade"));
        put(format!("add rule ip kube-proxy {chain} meta l4proto {protocol} dnat to {address}:{backend}"));
        choices.push(format!("{index} : goto {chain}"));
    }
    let (count, choices) = (port.endpoints.len(), choices.join(" , "));
    put(format!("add chain ip kube-proxy service-{base}"));
    put(format!(
        "add rule ip kube-proxy service-{base} ip daddr {ip} ip saddr != {cluster} jump mark-for-masquerade"
    ));
    put(format!("add rule ip kube-proxy service-{base} numgen random mod {count} vmap {{ {choices} }}"));
    put(format!("add element ip kube-proxy cluster-ips {{ {ip} }}"));
    put(format!(
        "add element ip kube-proxy service-ips {{ {ip} . {protocol} . {number} : goto service-{base} }}"
    ));
    if let Some(node_port) = port.node_port {
        put(format!("add chain ip kube-proxy external-{base}"));
        put(format!("add rule ip kube-proxy external-{base} jump mark-for-masquerade"));
        put(format!("add rule ip kube-proxy external-{base} goto service-{base}"));
        put(format!(
            "add element ip kube-proxy service-nodeports {{ {protocol} . {node_port} : goto external-{base} }}"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::services::{self, tests::upstream};
    use super::*;

    /// What upstream's tests expect for these services (`add ... ip kube-proxy` in front of each).
    const EXPECTED: &[&str] = &[
        "chain| service-ULMVA6XW-ns1/svc1/tcp/p80",
        "rule| service-ULMVA6XW-ns1/svc1/tcp/p80 ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade",
        "rule| service-ULMVA6XW-ns1/svc1/tcp/p80 numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 }",
        "rule| endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 ip saddr 10.180.0.1 jump mark-for-masquerade",
        "rule| endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 meta l4proto tcp dnat to 10.180.0.1:80",
        "element| cluster-ips { 172.30.0.41 }",
        "element| service-ips { 172.30.0.41 . tcp . 80 : goto service-ULMVA6XW-ns1/svc1/tcp/p80 }",
        "rule| external-4AT6LBPK-ns3/svc3/tcp/p80 jump mark-for-masquerade",
        "rule| external-4AT6LBPK-ns3/svc3/tcp/p80 goto service-4AT6LBPK-ns3/svc3/tcp/p80",
        "element| service-nodeports { tcp . 3003 : goto external-4AT6LBPK-ns3/svc3/tcp/p80 }",
        "chain| nat-postrouting { type nat hook postrouting priority 100 ; }",
        "rule| masquerading mark and 0x4000 == 0 return",
        "rule| cluster-ips-check ip daddr { 172.30.0.0/16 } drop comment \"Drop traffic to unallocated ClusterIPs\"",
        "element| nodeport-ips { 192.168.0.2 }",
    ];

    #[test]
    fn upstreams_services_get_upstreams_rules() {
        let node = [Ipv4Addr::new(192, 168, 0, 2)];
        let text = transactions(&upstream(), ClusterCidr("10.0.0.0/8"), "172.30.0.0/16", &node).concat();
        for line in EXPECTED {
            let line = format!("add {}", line.replace("| ", " ip kube-proxy "));
            assert!(text.lines().any(|rule| rule == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn ten_thousand_services_are_many_small_transactions() {
        let ports = services::services(10_000, &[]);
        let parts = transactions(&ports, ClusterCidr("10.0.0.0/8"), "10.96.0.0/16", &[]);
        assert_eq!(parts.len(), 1 + ports.len().div_ceil(PART));
        assert!(parts.iter().all(|part| part.lines().count() < 20 * PART));
    }
}
