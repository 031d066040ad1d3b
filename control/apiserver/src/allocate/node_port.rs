//! Node ports: which are taken, and which a Service gets.
//!
//! Kept in memory, filled from the Services at start (`repair`). A number belongs to one service whatever the
//! protocol, as upstream; within a service, ports of different protocols may share one.
//!
//! # Limits
//! One API server per cluster: two would not see each other's numbers until a restart.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::status::{ApiError, FieldError};
use serde_json::Value;

/// Why a port cannot be had, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Somebody has it.
    #[error("provided port is already allocated")]
    Allocated,
    /// It is no node port.
    #[error("provided port is not in the valid range. The range of valid ports is {0}-{1}")]
    NotInRange(u16, u16),
    /// Nothing is left.
    #[error("range is full")]
    Full,
}

/// The ports of the cluster that are taken.
#[derive(Debug)]
pub struct NodePorts {
    first: u16,
    last: u16,
    taken: Mutex<BTreeSet<u16>>,
}

impl NodePorts {
    /// All ports from `first` to `last` are free.
    pub fn new(first: u16, last: u16) -> Arc<Self> {
        Arc::new(Self { first, last, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        // A set of numbers is whole after any panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks ports that stored services have.
    pub fn mark(&self, ports: impl IntoIterator<Item = u16>) {
        self.taken().extend(ports);
    }

    /// Frees ports.
    pub fn release(&self, ports: impl IntoIterator<Item = u16>) {
        let mut taken = self.taken();
        for port in ports {
            taken.remove(&port);
        }
    }

    fn take(&self, port: u16) -> Result<(), PortError> {
        if !(self.first..=self.last).contains(&port) {
            return Err(PortError::NotInRange(self.first, self.last));
        }
        if self.taken().insert(port) { Ok(()) } else { Err(PortError::Allocated) }
    }

    /// Takes a free port: from a random point of the upper band on, then of the lower band, which is thereby kept
    /// for ports asked for by number (KEP-3668).
    fn take_any(&self, random: u32) -> Result<u16, PortError> {
        let size = u32::from(self.last - self.first) + 1;
        let band = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size - 1) };
        let upper_size = size - band;
        let upper = (0..upper_size).map(|step| band + (random % upper_size + step) % upper_size);
        let mut taken = self.taken();
        for offset in upper.chain(0..band) {
            let port = self.first + offset as u16;
            if taken.insert(port) {
                return Ok(port);
            }
        }
        Err(PortError::Full)
    }
}

/// Ports taken for one request, given back when it fails; and ports it gives up, freed when it succeeds.
#[derive(Debug)]
pub struct PortChange {
    ports: Arc<NodePorts>,
    /// Taken by this request.
    pub taken: Vec<u16>,
    /// Free once the request has succeeded.
    pub given_up: Vec<u16>,
    dry_run: bool,
}

impl PortChange {
    /// A change of nothing; with `dry_run`, ports are looked for but not kept.
    pub fn new(ports: Arc<NodePorts>, dry_run: bool) -> Self {
        Self { ports, taken: Vec::new(), given_up: Vec::new(), dry_run }
    }

    fn take(&mut self, port: u16) -> Result<(), PortError> {
        if self.taken.contains(&port) {
            return Err(PortError::Allocated);
        }
        self.ports.take(port)?;
        self.taken.push(port);
        Ok(())
    }

    fn take_any(&mut self) -> Result<u16, PortError> {
        let port = self.ports.take_any(rand::random())?;
        self.taken.push(port);
        Ok(port)
    }

    /// The request has succeeded: what it gave up is free.
    pub fn commit(mut self) {
        let given_up = std::mem::take(&mut self.given_up);
        if self.dry_run {
            return;
        }
        self.taken.clear();
        self.ports.release(given_up);
    }

    /// Leaves the taken ports taken; the caller frees them when he knows that the request failed.
    pub fn keep(&mut self) -> Vec<u16> {
        if self.dry_run { Vec::new() } else { std::mem::take(&mut self.taken) }
    }
}

impl Drop for PortChange {
    fn drop(&mut self) {
        self.ports.release(std::mem::take(&mut self.taken));
    }
}

/// Gives `service` its node ports; `old` is the service before an update.
pub fn settle(service: &mut Value, old: Option<&Value>, change: &mut PortChange) -> Result<(), ApiError> {
    let held = old.map(ports_of).unwrap_or_default();
    if has_node_ports(service) {
        settle_ports(service, &held, change)?;
        let kept = ports_of(service);
        change.given_up.extend(held.iter().filter(|port| !kept.contains(port)));
    } else {
        change.given_up.extend(held.iter().copied());
    }
    settle_health_check(service, old, change)
}

/// All numbers a stored service has.
pub fn all_of(service: &Value) -> Vec<u16> {
    let mut ports = if has_node_ports(service) { ports_of(service) } else { Vec::new() };
    if needs_health_check(service) {
        ports.extend(number(&service["spec"]["healthCheckNodePort"]));
    }
    ports
}

fn has_node_ports(service: &Value) -> bool {
    matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

/// A service without this right still keeps the ports it names.
fn may_allocate(service: &Value) -> bool {
    service["spec"]["type"] == "NodePort" || service["spec"]["allocateLoadBalancerNodePorts"] != false
}

fn needs_health_check(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

/// A port number other than zero.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

fn entries(service: &Value) -> &[Value] {
    service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ports_of(service: &Value) -> Vec<u16> {
    entries(service).iter().filter_map(|entry| number(&entry["nodePort"])).collect()
}

fn settle_ports(service: &mut Value, held: &[u16], change: &mut PortChange) -> Result<(), ApiError> {
    let allocating = may_allocate(service);
    // The same service port under two protocols shares one node port: the one asked for, or the one given first.
    let mut of_port: Vec<(u64, u16)> = entries(service)
        .iter()
        .filter_map(|entry| Some((entry["port"].as_u64()?, number(&entry["nodePort"])?)))
        .collect();
    for i in 0..entries(service).len() {
        let entry = &entries(service)[i];
        let port = entry["port"].as_u64().unwrap_or_default();
        if let Some(asked) = number(&entry["nodePort"]) {
            if !held.contains(&asked) && !change.taken.contains(&asked) {
                change.take(asked).map_err(|error| refused(service, i, asked, error))?;
            }
            continue;
        }
        if !allocating {
            continue;
        }
        let given = match of_port.iter().find(|(other, _)| *other == port) {
            Some((_, shared)) if held.contains(shared) || change.taken.contains(shared) => *shared,
            Some((_, shared)) => {
                change.take(*shared).map_err(|error| refused(service, i, *shared, error))?;
                *shared
            }
            None => change
                .take_any()
                .map_err(|error| ApiError::internal(format!("failed to allocate a nodePort: {error}")))?,
        };
        of_port.push((port, given));
        service["spec"]["ports"][i]["nodePort"] = given.into();
    }
    Ok(())
}

fn refused(service: &Value, index: usize, port: u16, error: PortError) -> ApiError {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let error = FieldError::invalid(format!("spec.ports[{index}].nodePort"), port, error.to_string());
    ApiError::invalid(("", "Service"), name, vec![error])
}

fn settle_health_check(
    service: &mut Value,
    old: Option<&Value>,
    change: &mut PortChange,
) -> Result<(), ApiError> {
    let needed = old.is_some_and(needs_health_check);
    let asked = number(&service["spec"]["healthCheckNodePort"]);
    match (needed, needs_health_check(service)) {
        (false, true) => {
            let port = match asked {
                Some(port) => change.take(port).map(|()| port).map_err(|error| {
                    ApiError::internal(format!(
                        "failed to allocate requested HealthCheck NodePort {port}: {error}"
                    ))
                })?,
                None => change.take_any().map_err(|error| {
                    ApiError::internal(format!("failed to allocate a HealthCheck NodePort: {error}"))
                })?,
            };
            service["spec"]["healthCheckNodePort"] = port.into();
        }
        (true, false) => {
            change.given_up.extend(old.and_then(|old| number(&old["spec"]["healthCheckNodePort"])));
            if let Some(spec) = service["spec"].as_object_mut() {
                spec.shift_remove("healthCheckNodePort");
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn ports() -> Arc<NodePorts> {
        NodePorts::new(30000, 32767)
    }

    fn service(kind: &str, ports: &Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"type": kind, "ports": ports}})
    }

    #[test]
    fn a_clash_and_a_port_out_of_range_are_refused_in_upstreams_words() {
        let ports = ports();
        ports.mark([30080]);
        for (asked, why) in [
            (30080, "provided port is already allocated"),
            (8080, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
        ] {
            let mut service = service("NodePort", &json!([{"port": 80, "nodePort": asked}]));
            let mut change = PortChange::new(ports.clone(), false);
            let error = settle(&mut service, None, &mut change).unwrap_err();
            let expected =
                format!(r#"Service "web" is invalid: spec.ports[0].nodePort: Invalid value: {asked}: {why}"#);
            assert_eq!(error.message, expected);
        }
    }

    #[test]
    fn each_port_gets_a_number_and_two_protocols_of_one_port_share_it() {
        let mut service = service(
            "NodePort",
            &json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}]),
        );
        let mut change = PortChange::new(ports(), false);
        settle(&mut service, None, &mut change).unwrap();
        let given = ports_of(&service);
        assert_eq!(given[0], given[1]);
        assert_ne!(given[0], given[2]);
        assert_eq!(change.taken.len(), 2);
        assert!(given.iter().all(|port| (30086..=32767).contains(port)), "upper band: {given:?}");
    }

    #[test]
    fn failed_requests_give_back_and_succeeded_ones_free_what_they_gave_up() {
        let all = ports();
        let mut created = service("NodePort", &json!([{"port": 80, "nodePort": 30080}]));
        let mut change = PortChange::new(all.clone(), false);
        settle(&mut created, None, &mut change).unwrap();
        drop(change);
        assert!(all.taken().is_empty(), "failed");

        let mut change = PortChange::new(all.clone(), false);
        settle(&mut created, None, &mut change).unwrap();
        change.commit();
        assert_eq!(all.taken().iter().copied().collect::<Vec<_>>(), [30080]);

        let mut cluster_ip = service("ClusterIP", &json!([{"port": 80}]));
        let mut change = PortChange::new(all.clone(), false);
        settle(&mut cluster_ip, Some(&created), &mut change).unwrap();
        assert!(all.taken().contains(&30080), "until it succeeds");
        change.commit();
        assert!(all.taken().is_empty());
    }

    #[test]
    fn a_dry_run_keeps_nothing() {
        let all = ports();
        let mut tried = service("NodePort", &json!([{"port": 80}]));
        let mut change = PortChange::new(all.clone(), true);
        settle(&mut tried, None, &mut change).unwrap();
        assert_eq!(ports_of(&tried).len(), 1, "shown");
        change.commit();
        assert!(all.taken().is_empty());
    }

    #[test]
    fn an_update_keeps_its_numbers_and_takes_only_new_ones() {
        let all = ports();
        all.mark([30080]);
        let old = service("NodePort", &json!([{"port": 80, "nodePort": 30080}]));
        let mut new =
            service("NodePort", &json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30081}]));
        let mut change = PortChange::new(all.clone(), false);
        settle(&mut new, Some(&old), &mut change).unwrap();
        assert_eq!((change.taken.as_slice(), change.given_up.as_slice()), (&[30081][..], &[][..]));
    }

    #[test]
    fn a_local_load_balancer_gets_a_health_check_port_until_it_is_no_longer_local() {
        let all = ports();
        let mut local = service("LoadBalancer", &json!([{"port": 80}]));
        local["spec"]["externalTrafficPolicy"] = "Local".into();
        let mut change = PortChange::new(all.clone(), false);
        settle(&mut local, None, &mut change).unwrap();
        change.commit();
        let health = number(&local["spec"]["healthCheckNodePort"]).unwrap();
        assert_eq!(all_of(&local).len(), 2);

        let mut global = local.clone();
        global["spec"]["externalTrafficPolicy"] = "Cluster".into();
        let mut change = PortChange::new(all.clone(), false);
        settle(&mut global, Some(&local), &mut change).unwrap();
        change.commit();
        assert!(!all.taken().contains(&health));
        assert!(global["spec"]["healthCheckNodePort"].is_null());
    }

    #[test]
    fn a_full_range_says_so_and_every_port_can_be_had() {
        let all = NodePorts::new(30000, 30099);
        let mut given = BTreeSet::new();
        for random in 0..100 {
            given.insert(all.take_any(random * 7919).unwrap());
        }
        assert_eq!(given.len(), 100);
        assert_eq!(all.take_any(5), Err(PortError::Full));
    }
}
