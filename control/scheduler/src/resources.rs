//! How much of a node a pod asks for, and how much a node has (upstream: component-helpers/resource, framework.Resource).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What a pod without a CPU request counts as in scores: 0.1 CPU.
const SCORED_CPU_MILLI: i64 = 100;
/// What a pod without a memory request counts as in scores: 200 MB.
const SCORED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// An amount of each resource: CPU in thousandths, memory and storage in bytes, others in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in thousandths.
    pub cpu_milli: i64,
    /// `memory`, in bytes.
    pub memory_bytes: i64,
    /// Every other resource by name: `ephemeral-storage`, `hugepages-*`, extended ones.
    pub others: BTreeMap<String, i64>,
}

type List = BTreeMap<String, Quantity>;

impl Resources {
    /// The amounts of an API list; `pods` is no resource that is asked for and is left out.
    pub fn of(list: Option<&List>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.cpu_milli = quantity::milli(quantity),
                "memory" => resources.memory_bytes = quantity::units(quantity),
                "pods" => {}
                _ => {
                    resources.others.insert(name.clone(), quantity::units(quantity));
                }
            }
        }
        resources
    }

    /// Adds `other`, or takes it away for `sign` -1.
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.cpu_milli += sign * other.cpu_milli;
        self.memory_bytes += sign * other.memory_bytes;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() += sign * amount;
        }
    }

    /// Raises each amount to at least that of `other`.
    fn raise(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

fn requests(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|it| it.requests.as_ref()))
}

/// What `pod` asks for: its containers together, or an init container (with the sidecars started before it) that asks for
/// more, or the pod-level request where there is one; plus the overhead.
pub fn of_pod(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| total(spec, requests)).unwrap_or_default()
}

/// The same for scoring, where a container that asks for nothing still counts as something.
pub fn scored_of_pod(pod: &Pod) -> Resources {
    let with_floor = |container: &Container| {
        let mut resources = requests(container);
        if resources.cpu_milli == 0 {
            resources.cpu_milli = SCORED_CPU_MILLI;
        }
        if resources.memory_bytes == 0 {
            resources.memory_bytes = SCORED_MEMORY_BYTES;
        }
        resources
    };
    pod.spec.as_ref().map(|spec| total(spec, with_floor)).unwrap_or_default()
}

fn total(spec: &PodSpec, ask: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    spec.containers.iter().for_each(|it| running.add(&ask(it), 1));
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let wanted = ask(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&wanted, 1);
            running.add(&wanted, 1);
            peak.raise(&sidecars);
        } else {
            let mut together = sidecars.clone();
            together.add(&wanted, 1);
            peak.raise(&together);
        }
    }
    running.raise(&peak);
    if let Some(list) = spec.resources.as_ref().and_then(|it| it.requests.as_ref()) {
        let pod_level = Resources::of(Some(list));
        if list.contains_key("cpu") {
            running.cpu_milli = pod_level.cpu_milli;
        }
        if list.contains_key("memory") {
            running.memory_bytes = pod_level.memory_bytes;
        }
        running.others.extend(pod_level.others);
    }
    running.add(&Resources::of(spec.overhead.as_ref()), 1);
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, sidecar: bool) -> Container {
        let requests = BTreeMap::from([("cpu".to_owned(), Quantity(cpu.into()))]);
        Container {
            resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
                requests: Some(requests),
                ..Default::default()
            }),
            restart_policy: sidecar.then(|| "Always".into()),
            ..Container::default()
        }
    }

    #[test]
    fn an_init_container_counts_only_as_far_as_it_exceeds_the_rest() {
        for (init, sidecars_first, main, want) in
            [("3", false, "1", 3000), ("500m", false, "1", 1000), ("1", true, "1", 1250)]
        {
            let mut inits = vec![container(init, false)];
            if sidecars_first {
                inits.insert(0, container("250m", true));
            }
            let spec = PodSpec {
                init_containers: Some(inits),
                containers: vec![container(main, false)],
                ..PodSpec::default()
            };
            let pod = Pod { spec: Some(spec), ..Pod::default() };
            assert_eq!(of_pod(&pod).cpu_milli, want, "init {init}, main {main}");
        }
    }

    #[test]
    fn a_pod_without_requests_weighs_something_in_scores_only() {
        let spec = PodSpec { containers: vec![Container::default()], ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(of_pod(&pod), Resources::default());
        assert_eq!((scored_of_pod(&pod).cpu_milli, scored_of_pod(&pod).memory_bytes), (100, 209_715_200));
    }
}
