//! What a starting agent takes over: pods from its disk, containers from containerd's labels. Nothing is stopped or
//! started here; containers of pods that the disk does not know are only listed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::actor::Hint;
use super::backoff::Backoff;
use super::decide::over;
use super::record::{InstanceRecord, PodFiles, PodRecord};
use super::state::{
    Exit, Instance, InstanceState, PodState, Slot, Step, all_containers, init_containers, uid,
};
use super::status::runtime_id;
use crate::containerd::RuntimeError;
use crate::containerd::containers::{Found, Task};
use crate::host::Host;
use crate::host::sandbox_is_up;

/// A pod taken over.
pub struct Adopted {
    /// Its state.
    pub state: PodState,
    /// The status written last.
    pub status: PodStatus,
    /// Ends that happened while no agent ran.
    pub exits: Vec<Hint>,
}

/// Everything found at start.
pub struct Adoption {
    /// Pods with a record.
    pub pods: Vec<Adopted>,
    /// Ids of containers whose pod has none.
    pub strays: Vec<String>,
}

/// Reads disk and runtime.
pub async fn adopt(host: &Arc<Host>) -> Result<Adoption, RuntimeError> {
    let mut by_pod: HashMap<String, Vec<Found>> = HashMap::new();
    for found in host.containerd.list().await? {
        by_pod.entry(found.identity.pod_uid.clone()).or_default().push(found);
    }
    let mut pods = Vec::new();
    for entry in fs::read_dir(host.config.root_dir.join("pods")).into_iter().flatten().flatten() {
        let files = PodFiles::new(entry.path());
        let Some(record) = files.load() else { continue };
        let found = by_pod.remove(uid(&record.pod)).unwrap_or_default();
        pods.push(adopt_pod(host, &files, record, found).await);
    }
    let strays: Vec<String> = by_pod.into_values().flatten().map(|found| found.id).collect();
    remove_old_fifos(host, &pods, &strays);
    Ok(Adoption { pods, strays })
}

/// FIFOs of commands that the last agent ran in containers: nobody reads them any more.
fn remove_old_fifos(host: &Host, pods: &[Adopted], strays: &[String]) {
    let slots = pods.iter().flat_map(|adopted| adopted.state.containers.values());
    let mut known: HashSet<&str> =
        slots.filter_map(|slot| Some(slot.current.as_ref()?.id.as_str())).collect();
    known.extend(strays.iter().map(String::as_str));
    for entry in fs::read_dir(host.config.run_dir.join("io")).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
            // Left behind once more, they are tried again at the next start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

async fn adopt_pod(host: &Arc<Host>, files: &PodFiles, record: PodRecord, found: Vec<Found>) -> Adopted {
    let up = sandbox_is_up(host, &record.pod, record.sandbox.as_ref());
    let status = files.load_status().or_else(|| record.pod.status.clone()).unwrap_or_default();
    let mut state = PodState {
        start_time: record.start_time,
        rejection: record.rejection,
        termination: record.termination,
        sandbox: record.sandbox.filter(|_| up).map_or(Step::Absent, Step::Done),
        // What is mounted stays; API-backed volumes are refreshed in their own time.
        volumes: if up { Step::Done(()) } else { Step::Absent },
        ended: false,
        ..super::actor::fresh(Arc::new(record.pod), record.start_time, host.config.crash_loop_max)
    };
    let mut exits = Vec::new();
    let mut found: HashMap<String, Found> =
        found.into_iter().map(|found| (found.id.clone(), found)).collect();
    let pod = state.pod.clone();
    for container in all_containers(&pod) {
        let slot = adopt_container(host, files, &pod, container, &status, &mut found, &mut exits).await;
        state.containers.insert(container.name.clone(), slot);
    }
    if !up && state.termination.is_none() && !over(&state) {
        begin_again(&mut state);
    }
    Adopted { state, status, exits }
}

async fn adopt_container(
    host: &Arc<Host>,
    files: &PodFiles,
    pod: &Pod,
    container: &Container,
    status: &PodStatus,
    found: &mut HashMap<String, Found>,
    exits: &mut Vec<Hint>,
) -> Slot {
    let mut records = files.load_instances(&container.name);
    add_unrecorded(host, files, container, &mut records, found).await;
    let mut instances: Vec<Instance> = records.into_iter().map(Instance::from).collect();
    for instance in instances.iter_mut().filter(|instance| instance.exit().is_none()) {
        let known = found.get(&instance.id);
        take_over(host, pod, instance, known, exits);
        if instance.exit().is_some() {
            host.record_instance(pod, &container.name, instance);
        }
        host.owners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(instance.id.clone(), uid(pod).into());
    }
    let current = instances.pop();
    let previous = instances.pop();
    let init = init_containers(pod).iter().any(|init| init.name == container.name);
    let recorded = current.as_ref().map_or(0, |instance| instance.attempt + 1);
    let next_attempt = recorded.max(next_by_status(&container.name, status));
    let (ready, started) = readiness(container, current.as_ref(), status);
    Slot {
        restarts: restored_backoff(current.as_ref()),
        current,
        previous,
        init,
        next_attempt,
        ready,
        started,
        ..Slot::default()
    }
}

/// The namespaces are gone, as after a boot, and the containers with them: all of them run again, init containers
/// first.
fn begin_again(state: &mut PodState) {
    for slot in state.containers.values_mut() {
        if let Some(lost) = slot.current.take() {
            slot.previous = Some(lost);
        }
        slot.restarts = Backoff::default();
    }
}

/// A container that was started just before the agent died, too late to be recorded; or created and never started.
async fn add_unrecorded(
    host: &Arc<Host>,
    files: &PodFiles,
    container: &Container,
    records: &mut Vec<InstanceRecord>,
    found: &HashMap<String, Found>,
) {
    for found in found.values().filter(|found| found.identity.container == container.name) {
        if records.iter().any(|record| record.id == found.id) {
            continue;
        }
        if matches!(found.task, Task::Missing | Task::Created) {
            if let Err(error) = host.containerd.remove(&found.id).await {
                tracing::warn!(container = found.id, %error, "unstarted container not removed");
            }
            continue;
        }
        let record = InstanceRecord {
            id: found.id.clone(),
            attempt: found.identity.attempt,
            image: found.identity.image.clone(),
            image_id: found.identity.image_id.clone(),
            spec_hash: found.identity.spec_hash.clone(),
            run_as: found.identity.run_as.clone(),
            started_at: Timestamp::now(),
            exit: None,
        };
        if let Err(error) = files.save_instance(&container.name, &record) {
            tracing::warn!(container = found.id, %error, "start of a container not recorded");
        }
        records.push(record);
    }
    records.sort_by_key(|record| record.attempt);
}

/// Joins the output of a container that was running when the last agent ended; learns of its end.
fn take_over(
    host: &Arc<Host>,
    pod: &Pod,
    instance: &mut Instance,
    found: Option<&Found>,
    exits: &mut Vec<Hint>,
) {
    let lost = |instance: &Instance| Exit {
        code: 137,
        reason: "ContainerStatusUnknown".into(),
        message: Some("The container could not be located when the agent was restarted".into()),
        started_at: match &instance.state {
            InstanceState::Running { started_at } => Some(*started_at),
            InstanceState::Exited(exit) => exit.started_at,
        },
        finished_at: Timestamp::now(),
    };
    let Some(found) = found else {
        instance.state = InstanceState::Exited(lost(instance));
        return;
    };
    match &found.task {
        Task::Missing | Task::Created => instance.state = InstanceState::Exited(lost(instance)),
        Task::Running | Task::Stopped { .. } => {
            if let Err(error) = host.containerd.open_io(&found.id, &found.identity) {
                tracing::warn!(pod = uid(pod), container = found.id, %error, "output of a container not followed");
            }
        }
    }
    if let Task::Stopped { code, at } = found.task {
        exits.push(Hint::TaskExited { id: found.id.clone(), code, at: at.unwrap_or_else(Timestamp::now) });
    }
}

/// Readiness as last reported, until a probe says otherwise.
fn readiness(container: &Container, current: Option<&Instance>, status: &PodStatus) -> (bool, bool) {
    let Some(instance) = current.filter(|instance| instance.exit().is_none()) else { return (false, false) };
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let known: Option<&ContainerStatus> = lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|known| known.container_id.as_deref() == Some(runtime_id(&instance.id).as_str()));
    match known {
        Some(known) => (known.ready || container.readiness_probe.is_none(), known.started == Some(true)),
        None => (container.readiness_probe.is_none(), container.startup_probe.is_none()),
    }
}

/// The number that follows the runs that the API knows of: records of them may be gone.
fn next_by_status(name: &str, status: &PodStatus) -> u32 {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let known = lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|known| known.name == name && known.container_id.is_some());
    known.and_then(|known| u32::try_from(known.restart_count).ok()).map_or(0, |count| count + 1)
}

/// Back-off goes on about where it was: by the number of runs so far.
fn restored_backoff(current: Option<&Instance>) -> Backoff {
    let Some(instance) = current.filter(|instance| instance.attempt > 0) else { return Backoff::default() };
    let last = match &instance.state {
        InstanceState::Running { started_at } => *started_at,
        InstanceState::Exited(exit) => exit.started_at.unwrap_or(exit.finished_at),
    };
    Backoff::restored(instance.attempt, last)
}

#[cfg(test)]
mod tests {
    use super::super::decide::{Action, decide};
    use super::super::testing::{now, state};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_without_its_namespaces_begins_again_with_its_init_containers() {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        let mut state = state(&spec, "sandbox volumes i=exit:0:60 a=exit:137:0 a+backoff:2");
        begin_again(&mut state);
        assert_eq!(decide(&state, now()).actions, [Action::Start { container: "i".into() }]);
        assert_eq!(state.containers["a"].next_attempt, 3, "the count goes on");
    }
}
