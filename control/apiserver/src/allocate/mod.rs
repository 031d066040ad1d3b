//! What a Service is given when it is written: addresses of the service ranges, node ports, a health-check port.
//!
//! The write of a Service is framed by [`Allocator::before_create`] (or `before_update`) and [`Allocation::commit`]: an
//! allocation that is dropped without commit gives back what it took, one that is committed frees what the
//! service gave up. Pure decisions are in `families`, `node_port`, `cidr` and `repair::plan`.

pub mod cidr;
pub mod cluster_ip;
pub mod families;
pub mod node_port;
pub mod repair;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::status::{ApiError, FieldError};
use serde_json::{Value, json};

pub use cidr::{Cidr, Family};
use cluster_ip::{AddressError, Owner, Taker};
use families::Addressing;
use node_port::{NodePorts, PortChange};

use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// First and last node port: upstream's default of `--service-node-port-range`.
const NODE_PORTS: (u16, u16) = (30000, 32767);

/// A write that was sent has happened, or never will, after this time.
const LATE_WRITE: Duration = Duration::from_secs(1);

/// Gives Services their addresses and ports.
#[derive(Clone)]
pub struct Allocator {
    registry: Registry,
    configured: Arc<[Cidr]>,
    ports: Arc<NodePorts>,
}

impl Allocator {
    /// An allocator for the given service ranges, the default family first.
    pub fn new(registry: Registry, service_cidrs: Vec<Cidr>) -> Self {
        Self { registry, configured: service_cidrs.into(), ports: NodePorts::new(NODE_PORTS.0, NODE_PORTS.1) }
    }

    /// The service ranges given at start.
    pub fn configured(&self) -> &[Cidr] {
        &self.configured
    }

    /// Mends what an earlier process left half done, and learns which node ports are in use. Call before serving.
    pub async fn repair(&self) -> Result<(), ApiError> {
        self.ports.mark(repair::run(&self.registry).await?);
        Ok(())
    }

    /// Completes a Service that is about to be created (after validation; its name must be known).
    pub async fn before_create(&self, service: &mut Value, dry_run: bool) -> Result<Allocation, ApiError> {
        self.settle(service, None, dry_run).await
    }

    /// Completes a Service that is about to replace `old`.
    pub async fn before_update(
        &self,
        service: &mut Value,
        old: &Value,
        dry_run: bool,
    ) -> Result<Allocation, ApiError> {
        self.settle(service, Some(old), dry_run).await
    }

    /// Gives back everything a deleted Service had.
    pub async fn after_delete(&self, service: &Value) {
        self.ports.release(node_port::all_of(service));
        let owner = Owner::of(service);
        let addressing = Addressing::of(service);
        if addressing.needs_addresses() {
            for address in &addressing.cluster_ips {
                cluster_ip::release(&self.registry, &owner, address).await;
            }
        }
    }

    async fn settle(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Allocation, ApiError> {
        let mut allocation = Allocation {
            registry: self.registry.clone(),
            owner: Owner::of(service),
            taken: Vec::new(),
            given_up: Vec::new(),
            ports: Some(PortChange::new(self.ports.clone(), dry_run)),
            all_ports: self.ports.clone(),
            dry_run,
        };
        let before = old.map(Addressing::of);
        let mut addressing = Addressing::of(service);
        let ranges = cluster_ip::ranges(&self.registry, &self.configured);
        let offered = self.families(&ranges);
        addressing
            .settle(before.as_ref(), &offered)
            .map_err(|errors| ApiError::invalid(("", "Service"), &allocation.owner.name, errors))?;
        self.settle_addresses(&mut addressing, before.as_ref(), &ranges, &mut allocation).await?;
        addressing.write(service);
        if let Some(change) = &mut allocation.ports {
            node_port::settle(service, old, change)?;
        }
        Ok(allocation)
    }

    /// Families of the ranges, the configured default first.
    fn families(&self, ranges: &[Cidr]) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        for range in self.configured.iter().chain(ranges) {
            if !families.contains(&range.family()) && ranges.iter().any(|r| r.family() == range.family()) {
                families.push(range.family());
            }
        }
        families
    }

    async fn settle_addresses(
        &self,
        addressing: &mut Addressing,
        before: Option<&Addressing>,
        ranges: &[Cidr],
        allocation: &mut Allocation,
    ) -> Result<(), ApiError> {
        let held: &[String] = match before {
            Some(before) if before.needs_addresses() => &before.cluster_ips,
            _ => &[],
        };
        if addressing.needs_addresses() {
            let mut taker = Taker {
                registry: &self.registry,
                ranges,
                owner: &allocation.owner,
                dry_run: allocation.dry_run,
                taken: &mut allocation.taken,
            };
            for (i, name) in addressing.families.clone().iter().enumerate() {
                let asked = addressing.cluster_ips.get(i).filter(|ip| !ip.is_empty()).cloned();
                if asked.as_ref().is_some_and(|ip| held.contains(ip)) {
                    continue;
                }
                let address =
                    match &asked {
                        Some(ip) => take(addressing, ip, &mut taker).await?,
                        None => taker.take_any(Family::named(name).unwrap_or(Family::V4)).await.map_err(
                            |error| ApiError::internal(format!("failed to allocate a serviceIP: {error}")),
                        )?,
                    };
                match addressing.cluster_ips.get_mut(i) {
                    Some(slot) => *slot = address.to_string(),
                    None => addressing.cluster_ips.push(address.to_string()),
                }
            }
        }
        let keeps = |ip: &String| addressing.needs_addresses() && addressing.cluster_ips.contains(ip);
        allocation.given_up = held.iter().filter(|ip| !keeps(ip)).cloned().collect();
        Ok(())
    }
}

/// Takes the address that was asked for by number.
async fn take(addressing: &Addressing, ip: &str, taker: &mut Taker<'_>) -> Result<IpAddr, ApiError> {
    let taken = match ip.parse::<IpAddr>() {
        Ok(address) => taker.take(address).await.map(|()| address),
        Err(_) => Err(AddressError::NotInRange),
    };
    taken.map_err(|error| match error {
        AddressError::Store(error) => error,
        error => {
            let detail = format!("failed to allocate IP {ip}: {error}");
            let error = FieldError::invalid("spec.clusterIPs", json!(addressing.cluster_ips), detail);
            ApiError::invalid(("", "Service"), &taker.owner.name, vec![error])
        }
    })
}

/// What one write of a Service took and gave up. Dropped without [`commit`](Self::commit), it takes nothing.
pub struct Allocation {
    registry: Registry,
    owner: Owner,
    taken: Vec<String>,
    given_up: Vec<String>,
    ports: Option<PortChange>,
    all_ports: Arc<NodePorts>,
    dry_run: bool,
}

impl Allocation {
    /// The write has succeeded: what the service gave up is free, what it took is its own.
    pub fn commit(mut self) {
        self.taken.clear();
        if let Some(ports) = self.ports.take() {
            ports.commit();
        }
        if self.dry_run || self.given_up.is_empty() {
            return;
        }
        let (registry, owner) = (self.registry.clone(), self.owner.clone());
        let given_up = std::mem::take(&mut self.given_up);
        tokio::spawn(async move {
            for address in given_up {
                cluster_ip::release(&registry, &owner, &address).await;
            }
        });
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let ports = self.ports.take().map(|mut change| change.keep()).unwrap_or_default();
        let addresses = std::mem::take(&mut self.taken);
        if self.dry_run || (addresses.is_empty() && ports.is_empty()) {
            return;
        }
        let (registry, owner, all_ports) =
            (self.registry.clone(), self.owner.clone(), self.all_ports.clone());
        // A write can be reported failed (a timeout) and still have happened: ask the store before giving back.
        tokio::spawn(async move {
            let stored = match registry.get(rows::services(), &owner.namespace, &owner.name).await {
                Ok(object) => object.value(),
                Err(_) => Value::Null,
            };
            let has = Addressing::of(&stored).cluster_ips;
            let has_ports = node_port::all_of(&stored);
            all_ports.release(ports.into_iter().filter(|port| !has_ports.contains(port)));
            for address in addresses.iter().filter(|address| !has.contains(address)) {
                if !cluster_ip::release(&registry, &owner, address).await {
                    // Asked for by a request that was cut off, and perhaps still on its way.
                    tokio::time::sleep(LATE_WRITE).await;
                    cluster_ip::release(&registry, &owner, address).await;
                }
            }
        });
    }
}
