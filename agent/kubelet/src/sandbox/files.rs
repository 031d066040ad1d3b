//! Texts of the files that a pod's containers share: host name, /etc/hosts, /etc/resolv.conf. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::state::{host_network, name, namespace, spec};

const HOSTNAME_MAX: usize = 63;
/// Limits of resolvers and of the API's validation.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The pod's host name.
pub fn hostname(pod: &Pod, node_hostname: &str, cluster_domain: &str) -> String {
    if host_network(pod) {
        return node_hostname.to_owned();
    }
    if let Some(full) = fqdn(pod, cluster_domain)
        && spec(pod).set_hostname_as_fqdn == Some(true)
    {
        return full;
    }
    short_hostname(pod)
}

/// spec.hostname, or as much of the pod's name as a host name may have.
fn short_hostname(pod: &Pod) -> String {
    let wanted = spec(pod).hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(name(pod));
    let cut: String = wanted.chars().take(HOSTNAME_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `<hostname>.<subdomain>.<namespace>.svc.<domain>`, for pods with a subdomain.
pub fn fqdn(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = spec(pod).subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{cluster_domain}", short_hostname(pod), namespace(pod)))
}

/// /etc/hosts of a pod with its own network.
pub fn hosts(pod: &Pod, ips: &[IpAddr], cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let own = short_hostname(pod);
    for ip in ips {
        match fqdn(pod, cluster_domain) {
            Some(full) => text.push_str(&format!("{ip}\t{full}\t{own}\n")),
            None => text.push_str(&format!("{ip}\t{own}\n")),
        }
    }
    text + &aliases(pod)
}

/// /etc/hosts of a hostNetwork pod: the node's, and the pod's aliases.
pub fn hosts_of_node(pod: &Pod, node_hosts: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let list = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in list {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers, in order.
    pub nameservers: Vec<String>,
    /// Search domains, in order.
    pub searches: Vec<String>,
    /// Options, `name` or `name:value`.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => resolver.searches = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    /// As a resolv.conf, cut to what resolvers accept.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut searches: Vec<&str> = Vec::new();
        for search in self.searches.iter().take(MAX_SEARCHES) {
            if searches.join(" ").len() + search.len() < MAX_SEARCH_CHARS {
                searches.push(search);
            }
        }
        if !searches.is_empty() {
            text.push_str(&format!("search {}\n", searches.join(" ")));
        }
        for server in self.nameservers.iter().take(MAX_NAMESERVERS) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// What a pod resolves names with: its dnsPolicy on top of the node's and the cluster's, then its dnsConfig.
pub fn resolver(pod: &Pod, node: &Resolver, cluster_dns: &[IpAddr], cluster_domain: &str) -> Resolver {
    let policy = spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut result = if policy == "None" {
        Resolver::default()
    } else if cluster && !cluster_dns.is_empty() {
        let own = format!("{}.svc.{cluster_domain}", namespace(pod));
        let mut searches = vec![own, format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
        searches.extend(node.searches.iter().cloned());
        Resolver {
            nameservers: cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        node.clone()
    };
    if let Some(config) = &spec(pod).dns_config {
        result.nameservers.extend(config.nameservers.iter().flatten().cloned());
        result.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(option_name) = &option.name else { continue };
            result.options.retain(|known| known.split(':').next() != Some(option_name));
            result.options.push(match &option.value {
                Some(value) => format!("{option_name}:{value}"),
                None => option_name.clone(),
            });
        }
    }
    dedup(&mut result.nameservers);
    dedup(&mut result.searches);
    result
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut object =
            json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": {"containers": []}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn host_names_follow_the_spec() {
        let table = [
            (json!({}), "web-0"),
            (json!({"hostname": "db"}), "db"),
            (json!({"hostNetwork": true}), "node1"),
            (json!({"subdomain": "sub"}), "web-0"),
            (json!({"subdomain": "sub", "setHostnameAsFQDN": true}), "web-0.sub.ns.svc.cluster.local"),
            (json!({"hostname": "x".repeat(62) + "-y"}), &"x".repeat(62)),
        ];
        for (spec, expected) in table {
            assert_eq!(hostname(&pod(spec.clone()), "node1", "cluster.local"), expected, "{spec}");
        }
    }

    #[test]
    fn hosts_name_every_address_and_alias() {
        let ips = ["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let spec = json!({"subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(&pod(spec), &ips, "cluster.local");
        for line in [
            "10.244.0.5\tweb-0.sub.ns.svc.cluster.local\tweb-0",
            "fd00::5\tweb-0.sub",
            "1.2.3.4\ta\tb",
            "127.0.0.1\tlocalhost",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn dns_policies_choose_the_servers() {
        let node = Resolver::parse("search lan\nnameserver 9.9.9.9\noptions edns0\n");
        let cluster = ["10.96.0.10".parse().unwrap()];
        let check = |spec: Value, expected: &str| {
            assert_eq!(
                resolver(&pod(spec.clone()), &node, &cluster, "cluster.local").render(),
                expected,
                "{spec}"
            );
        };
        let first = "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        check(json!({}), first);
        check(json!({"hostNetwork": true}), "search lan\nnameserver 9.9.9.9\noptions edns0\n");
        check(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), first);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
            "nameserver 1.1.1.1\noptions ndots:2\n",
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &first.replace("ndots:5", "ndots:1"),
        );
    }
}
