//! What a node refuses at first sight although it was scheduled here: too many pods, too little cpu or memory, taken
//! host ports. Pure. Preemption for critical pods is not done.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::state::{Verdict, all_containers, spec};
use crate::cgroup::qos::pod_requests;

/// What a node has for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Number of pods.
    pub pods: u32,
}

/// Whether `pod` fits beside `others`, the admitted pods that have not ended.
pub fn admit(pod: &Pod, others: &[Arc<Pod>], node: Allocatable) -> Result<(), Verdict> {
    let (cpu, memory) = pod_requests(pod);
    let (used_cpu, used_memory) = others
        .iter()
        .map(|other| pod_requests(other))
        .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    let counts = [
        ("pods", 1, others.len() as u64, u64::from(node.pods)),
        ("cpu", cpu, used_cpu, node.cpu_milli),
        ("memory", memory, used_memory, node.memory_bytes),
    ];
    for (resource, requested, used, capacity) in counts {
        if requested > 0 && used + requested > capacity {
            return Err(Verdict {
                reason: format!("OutOf{resource}"),
                message: format!(
                    "Pod was rejected: Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
                ),
            });
        }
    }
    let wanted = host_ports(pod);
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    if wanted.iter().any(|port| taken.iter().any(|other| port.conflicts(other))) {
        return Err(Verdict {
            reason: "NodePorts".into(),
            message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
        });
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// Host ports of the pod; a hostNetwork pod's container ports are host ports (the API server defaults them so).
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let host_network = spec(pod).host_network == Some(true);
    let ports = all_containers(pod).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number =
                port.host_port.or(host_network.then_some(port.container_port)).filter(|port| *port > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or("TCP".into()),
                port: number,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    const NODE: Allocatable = Allocatable { cpu_milli: 1000, memory_bytes: 1 << 30, pods: 2 };

    fn pod(cpu: &str, port: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": [port]}]}}))
        .unwrap()
    }

    #[track_caller]
    fn check(new: &Pod, others: &[&Pod], expected: Option<&str>) {
        let others: Vec<_> = others.iter().map(|other| Arc::new((*other).clone())).collect();
        assert_eq!(admit(new, &others, NODE).err().map(|verdict| verdict.reason).as_deref(), expected);
    }

    #[test]
    fn pods_must_fit_in_number_cpu_and_ports() {
        let plain = json!({"containerPort": 80});
        let host = |ip: &str, protocol: &str| json!({"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol});
        let small = pod("300m", plain.clone());
        check(&small, &[], None);
        check(&small, &[&small], None);
        check(&small, &[&small, &small], Some("OutOfpods"));
        check(&pod("800m", plain.clone()), &[&small], Some("OutOfcpu"));
        check(&pod("0", plain), &[&pod("1", host("", "TCP"))], None);
        check(&pod("0", host("", "TCP")), &[&pod("0", host("10.0.0.1", "TCP"))], Some("NodePorts"));
        check(&pod("0", host("10.0.0.2", "TCP")), &[&pod("0", host("10.0.0.1", "TCP"))], None);
        check(&pod("0", host("", "UDP")), &[&pod("0", host("", "TCP"))], None);
        let message = admit(&pod("2", json!({"containerPort": 1})), &[], NODE).unwrap_err().message;
        assert!(message.ends_with("cpu, requested: 2000, used: 0, capacity: 1000"), "{message}");
    }
}
