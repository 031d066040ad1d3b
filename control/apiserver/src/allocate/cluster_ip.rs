//! Cluster addresses as IPAddress objects: creating one is taking the address, since two cannot have one name.
//!
//! Knows addresses and their owners only; which families a service needs is in `families`.

use std::net::IpAddr;

use api::status::{ApiError, Reason};
use serde_json::{Value, json};

use super::cidr::{Cidr, Family};
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Addresses tried for one service before its range counts as full.
const MAX_TRIES: usize = 65_536;
/// Who manages the IPAddress objects, as upstream labels them.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";

/// Why an address cannot be had, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Somebody has it.
    #[error("provided IP is already allocated")]
    Allocated,
    /// It is in no service range, or not for services.
    #[error("the provided network does not match the current range")]
    NotInRange,
    /// Nothing is left.
    #[error("range is full")]
    Full,
    /// The store refused.
    #[error("{0}")]
    Store(ApiError),
}

/// A Service that has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// The owner that `service` is.
    pub fn of(service: &Value) -> Self {
        let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default().to_owned();
        Self { namespace: text("namespace"), name: text("name") }
    }

    /// Whether `address` (an IPAddress object) is this service's.
    pub fn has(&self, address: &Value) -> bool {
        let parent = &address["spec"]["parentRef"];
        parent["resource"] == "services"
            && parent["namespace"] == self.namespace.as_str()
            && parent["name"] == self.name.as_str()
    }
}

/// The service ranges in force: those of the ServiceCIDR objects that are not being deleted, or `configured` as
/// long as there is none.
pub fn ranges(registry: &Registry, configured: &[Cidr]) -> Vec<Cidr> {
    let mut ranges: Vec<Cidr> = registry
        .list_cached(rows::service_cidrs(), "")
        .iter()
        .filter(|object| !object.meta.deleting)
        .flat_map(|object| cidrs_of(&object.value()))
        .collect();
    if ranges.is_empty() {
        ranges = configured.to_vec();
    }
    ranges
}

/// The ranges of one ServiceCIDR.
fn cidrs_of(object: &Value) -> Vec<Cidr> {
    let cidrs = object["spec"]["cidrs"].as_array().map(Vec::as_slice).unwrap_or_default();
    cidrs.iter().filter_map(|cidr| cidr.as_str()?.parse().ok()).collect()
}

/// Who takes addresses for whom, and which he took.
pub struct Taker<'a> {
    /// The store.
    pub registry: &'a Registry,
    /// The ranges in force.
    pub ranges: &'a [Cidr],
    /// For whom.
    pub owner: &'a Owner,
    /// Look, but take nothing.
    pub dry_run: bool,
    /// Addresses that may have been taken. Each is noted before it is asked for: a request that is cut off in
    /// between, or answered by a timeout, may have taken it all the same.
    pub taken: &'a mut Vec<String>,
}

impl Taker<'_> {
    /// Takes `address`.
    pub async fn take(&mut self, address: IpAddr) -> Result<(), AddressError> {
        if !self.ranges.iter().any(|range| range.serves(address)) {
            return Err(AddressError::NotInRange);
        }
        if self.dry_run {
            return if self.is_taken(address) { Err(AddressError::Allocated) } else { Ok(()) };
        }
        self.taken.push(address.to_string());
        match self.registry.create(rows::ip_addresses(), object(address, self.owner)).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason == Reason::AlreadyExists => {
                self.taken.pop();
                Err(AddressError::Allocated)
            }
            Err(error) => Err(AddressError::Store(error)),
        }
    }

    /// Takes a free address of `family`.
    pub async fn take_any(&mut self, family: Family) -> Result<IpAddr, AddressError> {
        let ranges = self.ranges;
        for range in ranges.iter().filter(|range| range.family() == family) {
            for address in range.candidates(rand::random(), MAX_TRIES) {
                if self.is_taken(address) {
                    continue;
                }
                match self.take(address).await {
                    Ok(()) => return Ok(address),
                    Err(AddressError::Allocated) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(AddressError::Full)
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        self.registry.cached(rows::ip_addresses(), "", &address.to_string()).is_some()
    }
}

/// Gives `address` back, if it is `owner`'s. False when nobody has it.
pub async fn release(registry: &Registry, owner: &Owner, address: &str) -> bool {
    let Ok(object) = registry.get(rows::ip_addresses(), "", address).await else { return false };
    if owner.has(&object.value())
        && let Err(error) = registry.delete(rows::ip_addresses(), "", address).await
    {
        // Found again at the next start: `repair` deletes addresses without a service.
        tracing::warn!(address, %error, "cluster address not released");
    }
    true
}

/// The IPAddress object by which `owner` has `address`.
pub fn object(address: IpAddr, owner: &Owner) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": { FAMILY_LABEL: Family::of(address).name(), MANAGED_BY.0: MANAGED_BY.1 },
        },
        "spec": { "parentRef": {
            "group": "", "resource": "services", "namespace": owner.namespace, "name": owner.name,
        } },
    })
}

/// Whether the allocator made this IPAddress, as opposed to somebody by hand.
pub fn is_managed(address: &Value) -> bool {
    address["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1
}
