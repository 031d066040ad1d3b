//! Mends what a crash between two writes leaves behind: addresses without a service, services without their
//! address object, and the set of node ports, which is in memory only.
//!
//! Runs at start, before requests are served. [`plan`] decides, [`run`] does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use api::status::ApiError;
use serde_json::Value;

use super::cluster_ip::{self, Owner};
use super::families::Addressing;
use super::node_port;
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// What is to be mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mending {
    /// Addresses that services have, without an object for them.
    pub create: Vec<(IpAddr, Owner)>,
    /// Names of address objects that no service has.
    pub delete: Vec<String>,
    /// Addresses that two services have, or a service has but an object gives to another.
    pub conflicts: Vec<String>,
    /// Node ports in use.
    pub ports: Vec<u16>,
}

/// Compares the stored services with the stored addresses.
pub fn plan(services: &[Value], addresses: &[Value]) -> Mending {
    let mut mending = Mending::default();
    let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
    for service in services {
        mending.ports.extend(node_port::all_of(service));
        let addressing = Addressing::of(service);
        if !addressing.needs_addresses() {
            continue;
        }
        for ip in addressing.cluster_ips {
            match owners.entry(ip) {
                Entry::Occupied(taken) => mending.conflicts.push(taken.key().clone()),
                Entry::Vacant(free) => {
                    free.insert(Owner::of(service));
                }
            }
        }
    }
    for address in addresses {
        let name = address["metadata"]["name"].as_str().unwrap_or_default();
        match owners.remove(name) {
            Some(owner) if owner.has(address) => {}
            Some(_) => mending.conflicts.push(name.to_owned()),
            None if cluster_ip::is_managed(address) => mending.delete.push(name.to_owned()),
            None => {}
        }
    }
    mending.create.extend(owners.into_iter().filter_map(|(ip, owner)| Some((ip.parse().ok()?, owner))));
    mending
}

/// Mends the store, and gives the node ports in use.
pub async fn run(registry: &Registry) -> Result<Vec<u16>, ApiError> {
    let services: Vec<Value> = registry.list(rows::services(), "").await?.iter().map(|s| s.value()).collect();
    let addresses: Vec<Value> =
        registry.list(rows::ip_addresses(), "").await?.iter().map(|a| a.value()).collect();
    let mending = plan(&services, &addresses);
    for (address, owner) in &mending.create {
        tracing::info!(%address, service = %owner.name, namespace = %owner.namespace, "address object restored");
        registry.create(rows::ip_addresses(), cluster_ip::object(*address, owner)).await?;
    }
    for name in &mending.delete {
        tracing::info!(address = %name, "address of no service deleted");
        registry.delete(rows::ip_addresses(), "", name).await?;
    }
    for address in &mending.conflicts {
        tracing::warn!(%address, "cluster address belongs to two services");
    }
    Ok(mending.ports)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str, node_port: u16) -> Value {
        json!({"metadata": {"namespace": "a", "name": name},
            "spec": {"type": "NodePort", "clusterIPs": [ip], "ports": [{"port": 80, "nodePort": node_port}]}})
    }

    fn address(ip: &str, service: &str) -> Value {
        cluster_ip::object(ip.parse().unwrap(), &Owner { namespace: "a".into(), name: service.into() })
    }

    #[test]
    fn what_a_crash_left_half_done_is_finished() {
        let services = [
            service("one", "10.0.0.1", 30001),
            service("two", "10.0.0.2", 30002),
            service("headless", "None", 30003),
        ];
        let mut by_hand = address("10.0.0.9", "gone");
        by_hand["metadata"]["labels"] = json!({});
        let addresses = [address("10.0.0.1", "one"), address("10.0.0.3", "gone"), by_hand];
        let mending = plan(&services, &addresses);
        let two = Owner { namespace: "a".into(), name: "two".into() };
        assert_eq!(
            mending,
            Mending {
                create: vec![("10.0.0.2".parse().unwrap(), two)],
                delete: vec!["10.0.0.3".into()],
                conflicts: vec![],
                ports: vec![30001, 30002, 30003],
            }
        );
    }

    #[test]
    fn an_address_of_two_services_is_reported_and_left_alone() {
        let services = [service("one", "10.0.0.1", 30001), service("two", "10.0.0.1", 30002)];
        let mending = plan(&services, &[address("10.0.0.1", "one")]);
        assert_eq!(
            (mending.conflicts, mending.create, mending.delete),
            (vec!["10.0.0.1".to_owned()], vec![], vec![])
        );
        let mending = plan(&services[..1], &[address("10.0.0.1", "two")]);
        assert_eq!(mending.conflicts, ["10.0.0.1"]);
    }
}
