//! From resource requests and limits to kernel numbers: QoS class, cpu shares and weights, quotas, memory limits,
//! OOM score. Pure. See Kubernetes' "Pod Quality of Service Classes" and Linux' cgroup-v1 and cgroup-v2 documents.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::pods::state::{all_containers, init_containers, is_sidecar, spec};
use crate::quantity;

/// Scheduler period for cpu quotas.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses quotas below 1 ms.
const MIN_QUOTA_US: u64 = 1_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// A pod's quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has cpu and memory limits equal to its requests.
    Guaranteed,
    /// Something is set, but not all of that.
    Burstable,
    /// Nothing is set.
    BestEffort,
}

impl QosClass {
    /// As in status.qosClass.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// Directory below `kubepods`; Guaranteed pods sit directly in it.
    pub fn directory(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// What one cgroup may use; `None`: no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// cgroup v1 cpu.shares; v2 weights are derived from it.
    pub cpu_shares: Option<u64>,
    /// Microseconds of cpu time in each period of [`CPU_PERIOD_US`].
    pub cpu_quota_us: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
}

/// cpu (thousandths of a core) and memory (bytes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuMemory {
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
}

fn limits_of(resources: Option<&ResourceRequirements>) -> CpuMemory {
    read(resources.and_then(|resources| resources.limits.as_ref()))
}

/// Requests, which default to the limits (the API server does the same at admission).
fn requests_of(resources: Option<&ResourceRequirements>) -> CpuMemory {
    let limits = limits_of(resources);
    let requests = read(resources.and_then(|resources| resources.requests.as_ref()));
    CpuMemory {
        cpu_milli: requests.cpu_milli.or(limits.cpu_milli),
        memory_bytes: requests.memory_bytes.or(limits.memory_bytes),
    }
}

type ResourceList =
    std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn read(list: Option<&ResourceList>) -> CpuMemory {
    let milli = list.and_then(|list| list.get("cpu")).and_then(quantity::milli);
    let bytes = list.and_then(|list| list.get("memory")).and_then(quantity::units);
    CpuMemory {
        cpu_milli: milli.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0),
        memory_bytes: bytes.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0),
    }
}

/// The class of a pod, from its containers or its pod-level resources.
pub fn class(pod: &Pod) -> QosClass {
    let whole = spec(pod).resources.as_ref();
    let each: Vec<Option<&ResourceRequirements>> = match whole {
        Some(_) => vec![whole],
        None => all_containers(pod).map(|container| container.resources.as_ref()).collect(),
    };
    let nothing = CpuMemory::default();
    if each.iter().all(|r| requests_of(*r) == nothing && limits_of(*r) == nothing) {
        return QosClass::BestEffort;
    }
    let exact = |r: &Option<&ResourceRequirements>| {
        let limits = limits_of(*r);
        limits.cpu_milli.is_some() && limits.memory_bytes.is_some() && requests_of(*r) == limits
    };
    if each.iter().all(exact) { QosClass::Guaranteed } else { QosClass::Burstable }
}

/// cpu.shares for a number of thousandths of a core.
pub fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// cgroup v2 cpu.weight for v1 shares: the linear map of the OCI runtime specification's first converters, which
/// runc 1.1 uses; 1024 shares are weight 39.
pub fn weight(shares: u64) -> u64 {
    1 + ((shares.clamp(MIN_SHARES, MAX_SHARES) - 2) * 9999) / 262_142
}

fn quota(milli: u64) -> u64 {
    (milli * CPU_PERIOD_US / 1000).max(MIN_QUOTA_US)
}

/// What one container's cgroup gets.
pub fn container_limits(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    let limits = limits_of(resources);
    Limits {
        cpu_shares: Some(shares(requests_of(resources).cpu_milli.unwrap_or(0))),
        cpu_quota_us: limits.cpu_milli.map(quota),
        memory_bytes: limits.memory_bytes,
    }
}

/// What the pod's cgroup gets: sums; a limit only where every container has one. Init containers run one after the
/// other, so the largest of them counts; sidecars count with the rest.
pub fn pod_limits(pod: &Pod) -> Limits {
    if let Some(whole) = &spec(pod).resources {
        let limits = limits_of(Some(whole));
        return Limits {
            cpu_shares: Some(shares(requests_of(Some(whole)).cpu_milli.unwrap_or(0))),
            cpu_quota_us: limits.cpu_milli.map(quota),
            memory_bytes: limits.memory_bytes,
        };
    }
    let cpu_limit = total(pod, |r| limits_of(r).cpu_milli);
    let memory_limit = total(pod, |r| limits_of(r).memory_bytes);
    Limits {
        cpu_shares: Some(shares(requested(pod, |r| requests_of(r).cpu_milli))),
        cpu_quota_us: cpu_limit.map(quota),
        memory_bytes: memory_limit,
    }
}

/// cpu (thousandths) and memory (bytes) that the pod asks of its node.
pub fn pod_requests(pod: &Pod) -> (u64, u64) {
    (requested(pod, |r| requests_of(r).cpu_milli), requested(pod, |r| requests_of(r).memory_bytes))
}

fn requested(pod: &Pod, read: impl Fn(Option<&ResourceRequirements>) -> Option<u64>) -> u64 {
    sum(pod, |resources| Some(read(resources).unwrap_or(0))).unwrap_or(0)
}

fn total(pod: &Pod, read: impl Fn(Option<&ResourceRequirements>) -> Option<u64>) -> Option<u64> {
    sum(pod, read)
}

fn sum(pod: &Pod, read: impl Fn(Option<&ResourceRequirements>) -> Option<u64>) -> Option<u64> {
    let value = |container: &Container| read(container.resources.as_ref());
    let regular: u64 = spec(pod).containers.iter().map(value).sum::<Option<u64>>()?;
    let mut sidecars = 0;
    let mut peak = 0;
    for container in init_containers(pod) {
        if is_sidecar(container) {
            sidecars += value(container)?;
        } else {
            peak = peak.max(sidecars + value(container)?);
        }
    }
    Some(peak.max(regular + sidecars))
}

/// Upstream's oom_score_adj: what dies first when the node is out of memory.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i32 {
    const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;
    if spec(pod).priority.is_some_and(|priority| priority >= NODE_CRITICAL_PRIORITY) {
        return -997;
    }
    match class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = requests_of(container.resources.as_ref()).memory_bytes.unwrap_or(0);
            let share = (u128::from(request) * 1000 / u128::from(node_memory_bytes.max(1))) as i32;
            (1000 - share).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(containers: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    fn resources(requests: &serde_json::Value, limits: &serde_json::Value) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn class_follows_requests_and_limits() {
        let both = json!({"cpu": "100m", "memory": "64Mi"});
        let none = json!({});
        let table = [
            (json!([resources(&none, &none)]), QosClass::BestEffort),
            (json!([resources(&both, &both)]), QosClass::Guaranteed),
            (json!([resources(&none, &both)]), QosClass::Guaranteed),
            (json!([resources(&both, &none)]), QosClass::Burstable),
            (json!([resources(&both, &both), resources(&none, &none)]), QosClass::Burstable),
            (json!([resources(&json!({"cpu": "1"}), &json!({"cpu": "1"}))]), QosClass::Burstable),
        ];
        for (containers, expected) in table {
            assert_eq!(class(&pod(&containers)), expected, "{containers}");
        }
    }

    #[test]
    fn shares_weights_and_quotas_are_the_kernels() {
        assert_eq!(
            [shares(0), shares(1), shares(250), shares(1000), shares(1_000_000)],
            [2, 2, 256, 1024, 262_144]
        );
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
        assert_eq!([quota(1), quota(500), quota(2000)], [1000, 50_000, 200_000]);
    }

    #[test]
    fn a_pod_has_a_limit_only_if_every_container_has() {
        let small = resources(&json!({"cpu": "100m"}), &json!({"memory": "10Mi"}));
        let open = resources(&json!({"cpu": "200m"}), &json!({}));
        let limits = pod_limits(&pod(&json!([small, small])));
        assert_eq!(limits.memory_bytes, Some(20 << 20));
        assert_eq!(limits.cpu_shares, Some(204));
        assert_eq!(limits.cpu_quota_us, None);
        assert_eq!(pod_limits(&pod(&json!([small, open]))).memory_bytes, None);
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [
                {"name": "big", "resources": {"requests": {"cpu": "500m"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "late", "resources": {"requests": {"cpu": "450m"}}}],
            "containers": [{"name": "main", "resources": {"requests": {"cpu": "200m"}}}]}}))
        .unwrap();
        assert_eq!(pod_requests(&pod).0, 550, "side 100 + late 450");
    }

    #[test]
    fn oom_score_falls_with_the_share_of_memory_asked_for() {
        let half = pod(&json!([resources(&json!({"memory": "512Mi"}), &json!({}))]));
        assert_eq!(oom_score_adj(&half, &spec(&half).containers[0], 1 << 30), 500);
        let all = pod(&json!([resources(&json!({"memory": "1Gi"}), &json!({}))]));
        assert_eq!(oom_score_adj(&all, &spec(&all).containers[0], 1 << 30), 3);
        let none = pod(&json!([{"name": "c"}]));
        assert_eq!(oom_score_adj(&none, &spec(&none).containers[0], 1 << 30), 1000);
    }
}
