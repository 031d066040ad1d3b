//! The status a pod deserves: a pure function of its state, the time and the status written last. It keeps
//! conditions that others own, and moves lastTransitionTime only when a condition's status changes.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{finished, init_restart_allowed, main_containers_begun, over, restart_allowed};
use super::state::{
    Cause, Exit, Instance, InstanceState, Operation, PodState, Slot, StartFailure, Verdict, init_containers,
    is_sidecar, name, namespace, spec, uid,
};
use crate::cgroup::qos;

/// Conditions that this node writes; all others of a pod are left as they are.
pub const OWNED_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The status to write for `state` at `now`; `previous` is the one written last.
pub fn generate(state: &PodState, now: Timestamp, node_ips: &[IpAddr], previous: &PodStatus) -> PodStatus {
    if state.ended {
        return previous.clone();
    }
    let pod = &*state.pod;
    let verdict = verdict(state);
    let phase = sticky(previous.phase.as_deref(), phase(state));
    let regular: Vec<_> = spec(pod).containers.iter().map(|c| container_status(state, c, now)).collect();
    let init: Vec<_> = init_containers(pod).iter().map(|c| container_status(state, c, now)).collect();
    let ips = if state.cleanup.done().is_some() { None } else { state.sandbox.done().map(|s| s.ips.clone()) };
    let pod_ips = pod_ips(ips, previous, state);
    let conditions = conditions(state, now, phase, &init, &regular, previous);
    let host_ips: Vec<_> = node_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    PodStatus {
        phase: Some(phase.into()),
        reason: verdict.map(|v| v.reason.clone()),
        message: verdict.map(|v| v.message.clone()),
        conditions: Some(conditions),
        host_ip: host_ips.first().map(|ip| ip.ip.clone()),
        host_ips: Some(host_ips),
        pod_ip: pod_ips.first().map(|ip| ip.ip.clone()),
        pod_ips: Some(pod_ips).filter(|ips| !ips.is_empty()),
        start_time: Some(previous.start_time.clone().unwrap_or(Time(state.start_time))),
        observed_generation: pod.metadata.generation,
        qos_class: Some(qos::class(pod).as_str().into()),
        container_statuses: Some(regular).filter(|list| !list.is_empty() && state.rejection.is_none()),
        init_container_statuses: Some(init).filter(|list| !list.is_empty() && state.rejection.is_none()),
        ..PodStatus::default()
    }
}

fn verdict(state: &PodState) -> Option<&Verdict> {
    state.rejection.as_ref().or(match state.termination.as_ref().map(|termination| &termination.cause) {
        Some(Cause::Failed(verdict)) => Some(verdict),
        _ => None,
    })
}

/// Succeeded and Failed never go back.
fn sticky(previous: Option<&str>, phase: &'static str) -> &'static str {
    match previous {
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ => phase,
    }
}

/// Addresses are kept through a clean-up and after the end: the last known ones stay visible, as upstream leaves them.
fn pod_ips(ips: Option<Vec<IpAddr>>, previous: &PodStatus, state: &PodState) -> Vec<PodIP> {
    match ips {
        Some(ips) => ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect(),
        None if state.cleanup.done().is_some() || over(state) => previous.pod_ips.clone().unwrap_or_default(),
        None => Vec::new(),
    }
}

/// Upstream's phase rules (docs: pod lifecycle, "Pod phase").
pub fn phase(state: &PodState) -> &'static str {
    if verdict(state).is_some() {
        return "Failed";
    }
    let pod = &*state.pod;
    if !main_containers_begun(state) {
        let failed = finished(state) || ended_before_start(state);
        return if failed { "Failed" } else { "Pending" };
    }
    let slots: Vec<_> = spec(pod).containers.iter().map(|c| (c, state.containers.get(&c.name))).collect();
    let mut running = 0;
    let mut waiting = 0;
    let mut to_restart = 0;
    let mut failed = 0;
    for (container, slot) in slots {
        match slot.map(|slot| (slot, slot.running(), slot.last_exit())) {
            Some((_, Some(_), _)) => running += 1,
            Some((_, None, Some(exit))) => {
                to_restart += usize::from(restart_allowed(pod, container)(exit.code));
                failed += usize::from(exit.code != 0);
            }
            _ => waiting += 1,
        }
    }
    let ending = state.termination.is_some() && !state.containers.values().any(Slot::live);
    match (waiting, running, to_restart, failed) {
        (0, 0, 0, 0) => "Succeeded",
        (0, 0, 0, _) => "Failed",
        (_, 0, _, 0) if ending && waiting == 0 => "Succeeded",
        (_, 0, _, _) if ending => "Failed",
        (0, _, _, _) => "Running",
        _ => "Pending",
    }
}

/// A pod that was ended before its containers ever ran has failed.
fn ended_before_start(state: &PodState) -> bool {
    state.termination.is_some() && state.cleanup.done().is_some()
}

fn container_status(state: &PodState, container: &Container, now: Timestamp) -> ContainerStatus {
    let empty = Slot::default();
    let slot = state.containers.get(&container.name).unwrap_or(&empty);
    let (current, last) = states(state, container, slot, now);
    let running = current.running.is_some();
    let instance = slot.current.as_ref();
    let limits = container.resources.clone();
    ContainerStatus {
        name: container.name.clone(),
        ready: slot_ready(container, slot, running),
        started: Some(slot.started && running),
        restart_count: slot.next_attempt.saturating_sub(1).try_into().unwrap_or(i32::MAX),
        image: instance.map_or_else(|| container.image.clone().unwrap_or_default(), |i| i.image.clone()),
        image_id: instance.map(|i| i.image_id.clone()).unwrap_or_default(),
        container_id: instance.map(|i| runtime_id(&i.id)),
        allocated_resources: limits.as_ref().and_then(|resources| resources.requests.clone()),
        resources: limits.filter(|_| running),
        user: instance.filter(|_| running).and_then(|i| i.user.as_ref()).map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid.into(),
                gid: user.gid.into(),
                supplemental_groups: Some(user.groups.iter().map(|gid| i64::from(*gid)).collect()),
            }),
        }),
        state: Some(current),
        last_state: last.or_else(|| Some(ContainerState::default())),
        ..ContainerStatus::default()
    }
}

/// Regular containers and sidecars are ready by probe; other init containers when they have succeeded.
fn slot_ready(container: &Container, slot: &Slot, running: bool) -> bool {
    if slot.init && !is_sidecar(container) {
        return slot.current.as_ref().and_then(Instance::exit).is_some_and(|exit| exit.code == 0);
    }
    running && slot.ready && slot.started
}

/// The id as it appears in a status.
pub fn runtime_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn states(
    state: &PodState,
    container: &Container,
    slot: &Slot,
    now: Timestamp,
) -> (ContainerState, Option<ContainerState>) {
    let previous = slot.previous.as_ref().and_then(|i| i.exit().map(|exit| terminated(i, exit)));
    let Some(instance) = &slot.current else {
        return (waiting_to_start(state, container, slot, now), previous);
    };
    match &instance.state {
        InstanceState::Running { .. } if slot.operation == Operation::PostStart => {
            (waiting("ContainerCreating", None), previous)
        }
        InstanceState::Running { started_at } => {
            let running = ContainerStateRunning { started_at: Some(Time(*started_at)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, previous)
        }
        InstanceState::Exited(exit) => {
            let ended = terminated(instance, exit);
            match retry_reason(state, container, slot, exit, now) {
                Some(reason) => (reason, Some(ended)),
                None => (ended, previous),
            }
        }
    }
}

/// What an ended container waits for, if it will be started again later.
fn retry_reason(
    state: &PodState,
    container: &Container,
    slot: &Slot,
    exit: &Exit,
    now: Timestamp,
) -> Option<ContainerState> {
    if state.termination.is_some() || state.rejection.is_some() || slot.operation == Operation::Starting {
        return None;
    }
    if let Some(failure) = &slot.failure {
        return Some(failed_start(failure, container, now));
    }
    let pod = &*state.pod;
    let restarts = if slot.init && !is_sidecar(container) {
        init_restart_allowed(pod)(exit.code)
    } else {
        is_sidecar(container) || restart_allowed(pod, container)(exit.code)
    };
    if !restarts || slot.restarts.ready_at(exit.finished_at, state.crash_loop_max) <= now {
        return None;
    }
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(slot.restarts.delay().as_secs()),
        container.name,
        name(pod),
        namespace(pod),
        uid(pod)
    );
    Some(waiting("CrashLoopBackOff", Some(message)))
}

/// Seconds as Go prints them: 10s, 1m20s, 5m0s.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn waiting_to_start(state: &PodState, container: &Container, slot: &Slot, now: Timestamp) -> ContainerState {
    if state.termination.is_some() && state.cleanup.done().is_some() && !is_init(state, container) {
        let terminated = ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..ContainerStateTerminated::default()
        };
        return ContainerState { terminated: Some(terminated), ..ContainerState::default() };
    }
    if let Some(failure) = &slot.failure {
        return failed_start(failure, container, now);
    }
    let initialising = !init_containers(&state.pod).is_empty();
    waiting(if initialising { "PodInitializing" } else { "ContainerCreating" }, None)
}

fn is_init(state: &PodState, container: &Container) -> bool {
    init_containers(&state.pod).iter().any(|init| init.name == container.name)
}

fn failed_start(failure: &StartFailure, container: &Container, now: Timestamp) -> ContainerState {
    let image = container.image.as_deref().unwrap_or_default();
    waiting(failure.reason(now), Some(failure.text(now, image)))
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.into()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(instance: &Instance, exit: &Exit) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(runtime_id(&instance.id)),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: exit.message.clone(),
        started_at: exit.started_at.map(Time),
        finished_at: Some(Time(exit.finished_at)),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// (status, reason, message) of a condition.
type Finding = (bool, Option<&'static str>, Option<String>);

const TRUE: Finding = (true, None, None);

fn conditions(
    state: &PodState,
    now: Timestamp,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    previous: &PodStatus,
) -> Vec<PodCondition> {
    let sandbox_up = state.sandbox.done().is_some() && state.cleanup.done().is_none();
    let containers_ready = containers_ready(&state.pod, phase, init, regular);
    let ready = pod_ready(&state.pod, &containers_ready, previous);
    let findings = [(sandbox_up, None, None), initialized(state, phase, init), ready, containers_ready, TRUE];
    let old = previous.conditions.as_deref().unwrap_or_default();
    let mut list: Vec<PodCondition> = OWNED_CONDITIONS
        .iter()
        .zip(findings)
        .map(|(type_, (status, reason, message))| {
            let status = if status { "True" } else { "False" };
            let before = old.iter().find(|condition| condition.type_ == *type_);
            let unchanged = before.filter(|condition| condition.status == status);
            PodCondition {
                type_: (*type_).into(),
                status: status.into(),
                reason: reason.map(str::to_owned),
                message,
                observed_generation: state.pod.metadata.generation,
                last_transition_time: unchanged
                    .and_then(|condition| condition.last_transition_time.clone())
                    .or(Some(Time(now))),
                last_probe_time: None,
            }
        })
        .collect();
    list.extend(old.iter().filter(|c| !OWNED_CONDITIONS.contains(&c.type_.as_str())).cloned());
    list
}

fn initialized(state: &PodState, phase: &str, init: &[ContainerStatus]) -> Finding {
    if phase == "Succeeded" {
        return (true, Some("PodCompleted"), None);
    }
    if main_containers_begun(state) {
        return TRUE;
    }
    let incomplete: Vec<&str> = init
        .iter()
        .zip(init_containers(&state.pod))
        .filter(
            |(status, container)| {
                if is_sidecar(container) { status.started != Some(true) } else { !status.ready }
            },
        )
        .map(|(status, _)| status.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return TRUE;
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    (false, Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Finding {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let sidecars =
        init.iter().zip(init_containers(pod)).filter(|(_, c)| is_sidecar(c)).map(|(status, _)| status);
    let unready: Vec<&str> =
        sidecars.chain(regular).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return TRUE;
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    (false, Some("ContainersNotReady"), Some(message))
}

fn pod_ready(pod: &Pod, containers_ready: &Finding, previous: &PodStatus) -> Finding {
    if !containers_ready.0 {
        return containers_ready.clone();
    }
    let known =
        pod.status.as_ref().and_then(|status| status.conditions.as_ref()).or(previous.conditions.as_ref());
    let mut problems = Vec::new();
    for gate in spec(pod).readiness_gates.as_deref().unwrap_or_default() {
        let gate = &gate.condition_type;
        match known.and_then(|conditions| conditions.iter().find(|condition| condition.type_ == *gate)) {
            None => problems
                .push(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
            Some(condition) if condition.status != "True" => problems.push(format!(
                "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        TRUE
    } else {
        (false, Some("ReadinessGatesNotReady"), Some(problems.join(", ")))
    }
}

/// Containers that `new` shows in a back-off and `old` did not, with the text for an event.
pub fn begun_backoffs(old: &PodStatus, new: &PodStatus) -> Vec<(String, String)> {
    let waiting = |status: &PodStatus| -> Vec<(String, ContainerStateWaiting)> {
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let all = lists.into_iter().flatten().flatten();
        all.filter_map(|container| Some((container.name.clone(), container.state.as_ref()?.waiting.clone()?)))
            .collect()
    };
    let before = waiting(old);
    let text = |(name, waiting): (String, ContainerStateWaiting)| {
        let shown =
            |known: &(String, ContainerStateWaiting)| known.0 == name && known.1.reason == waiting.reason;
        if before.iter().any(shown) {
            return None;
        }
        let message = waiting.message?;
        let text = match waiting.reason.as_deref()? {
            "CrashLoopBackOff" => format!("Back-off restarting{}", message.split_once("restarting")?.1),
            "ImagePullBackOff" => message.split(": ErrImagePull").next()?.to_owned(),
            _ => return None,
        };
        Some((name, text))
    };
    waiting(new).into_iter().filter_map(text).collect()
}

/// Whether Ready flipped between two statuses: such a change is written at once.
pub fn readiness_flipped(old: &PodStatus, new: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    ready(old) != ready(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{ago, now, state};
    use super::*;
    use serde_json::{Value, json};

    fn status(spec: &Value, words: &str) -> PodStatus {
        generate(&state(spec, words), now(), &["172.30.0.11".parse().unwrap()], &PodStatus::default())
    }

    /// `phase; conditions that are true; container states`.
    fn picture(status: &PodStatus) -> String {
        let letters: String = status
            .conditions
            .iter()
            .flatten()
            .filter(|condition| condition.status == "True" && condition.type_ != "PodScheduled")
            .map(|condition| condition.type_.chars().next().unwrap())
            .collect();
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let containers: Vec<String> = lists
            .into_iter()
            .flatten()
            .flatten()
            .map(|container| {
                let state = container.state.as_ref().unwrap();
                let text = if let Some(waiting) = &state.waiting {
                    waiting.reason.clone().unwrap()
                } else if let Some(terminated) = &state.terminated {
                    format!("{}({})", terminated.reason.as_deref().unwrap(), terminated.exit_code)
                } else {
                    "Running".into()
                };
                format!("{}={text}{}", container.name, if container.ready { "+" } else { "" })
            })
            .collect();
        format!("{} {letters} {}", status.phase.as_deref().unwrap(), containers.join(" "))
    }

    #[track_caller]
    fn check(spec: &Value, words: &str, expected: &str) {
        assert_eq!(picture(&status(spec, words)), expected, "{words}");
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    #[test]
    fn a_pod_comes_up() {
        check(&two(), "", "Pending I a=ContainerCreating b=ContainerCreating");
        check(&two(), "sandbox volumes a=starting", "Pending PI a=ContainerCreating b=ContainerCreating");
        check(&two(), "sandbox volumes a=ready b=starting", "Pending PI a=Running+ b=ContainerCreating");
        check(&two(), "sandbox volumes a=ready b=running", "Running PI a=Running+ b=Running");
        check(&two(), "sandbox volumes a=ready b=ready", "Running PIRC a=Running+ b=Running+");
        check(&two(), "sandbox volumes a=ready b=poststart", "Running PI a=Running+ b=ContainerCreating");
    }

    #[test]
    fn failures_show_as_waiting_reasons() {
        check(
            &two(),
            "sandbox volumes a=pull:1:9 b=pull:5:5",
            "Pending PI a=ErrImagePull b=ImagePullBackOff",
        );
        check(
            &two(),
            "sandbox volumes a=config:1:9 b=ready",
            "Pending PI a=CreateContainerConfigError b=Running+",
        );
        check(
            &two(),
            "sandbox volumes a=exit:1:1 a+backoff:1 b=ready",
            "Running PI a=CrashLoopBackOff b=Running+",
        );
        let spec = json!({"containers": [{"name": "a"}]});
        let status = status(&spec, "sandbox volumes a=exit:1:1 a+backoff:4");
        let container = &status.container_statuses.unwrap()[0];
        let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
        assert_eq!(
            waiting.message.as_deref(),
            Some("back-off 1m20s restarting failed container=a pod=web_default(u-1)")
        );
        assert_eq!(container.restart_count, 4);
        assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    }

    #[test]
    fn a_back_off_is_an_event_once() {
        let spec = json!({"containers": [{"name": "a", "image": "echo"}, {"name": "b"}]});
        let before = status(&spec, "sandbox volumes a=pull:1:9 b=exit:1:1");
        let after = status(&spec, "sandbox volumes a=pull:5:5 b=exit:1:1 b+backoff:1");
        let events: Vec<_> = begun_backoffs(&before, &after).into_iter().map(|(_, text)| text).collect();
        let expected = [
            "Back-off pulling image \"echo\"",
            "Back-off restarting failed container=b pod=web_default(u-1)",
        ];
        assert_eq!(events, expected);
        assert_eq!(begun_backoffs(&after, &after), []);
    }

    #[test]
    fn phases_follow_policy_and_codes() {
        let spec =
            |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
        check(
            &spec("Never"),
            "sandbox volumes a=exit:0:9 b=exit:0:9",
            "Succeeded PI a=Completed(0) b=Completed(0)",
        );
        check(&spec("Never"), "sandbox volumes a=exit:0:9 b=exit:2:9", "Failed PI a=Completed(0) b=Error(2)");
        check(&spec("Never"), "sandbox volumes a=ready b=exit:2:9", "Running PI a=Running+ b=Error(2)");
        check(
            &spec("OnFailure"),
            "sandbox volumes a=exit:0:9 b=exit:2:9",
            "Running PI a=Completed(0) b=Error(2)",
        );
        check(
            &spec("Always"),
            "sandbox volumes a=exit:0:9 b=exit:0:9",
            "Running PI a=Completed(0) b=Completed(0)",
        );
    }

    #[test]
    fn init_containers_hold_the_pod_back() {
        let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        check(&spec, "sandbox volumes", "Pending P i=PodInitializing a=PodInitializing");
        check(&spec, "sandbox volumes i=running", "Pending P i=Running a=PodInitializing");
        check(&spec, "sandbox volumes i=exit:0:1", "Pending PI i=Completed(0)+ a=PodInitializing");
        check(&spec, "sandbox volumes i=exit:0:1 a=ready", "Running PIRC i=Completed(0)+ a=Running+");
        let never = json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
        check(&never, "sandbox volumes i=exit:1:1", "Failed P i=Error(1) a=PodInitializing");
    }

    #[test]
    fn ends_are_final() {
        check(
            &two(),
            "sandbox volumes clean ending:30 a=exit:0:1 b=exit:0:1",
            "Succeeded I a=Completed(0) b=Completed(0)",
        );
        check(
            &two(),
            "sandbox volumes clean ending:30 a=exit:143:1 b=exit:0:1",
            "Failed I a=Error(143) b=Completed(0)",
        );
        check(
            &two(),
            "clean ending:30",
            "Failed I a=ContainerStatusUnknown(137) b=ContainerStatusUnknown(137)",
        );
        check(&two(), "rejected:OutOfcpu", "Failed I ");
        let before =
            status(&json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}), "sandbox a=exit:0:1");
        let again = state(&json!({"containers": [{"name": "a"}]}), "sandbox volumes a=ready");
        assert_eq!(generate(&again, now(), &[], &before).phase.as_deref(), Some("Succeeded"));
    }

    #[test]
    fn addresses_stay_visible_after_the_end() {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a"}]});
        let before = status(&spec, "sandbox volumes a=ready");
        for words in ["sandbox volumes clean a=exit:0:1", "a=exit:0:1"] {
            let after = generate(&state(&spec, words), now(), &[], &before);
            assert_eq!(after.pod_ip.as_deref(), Some("10.244.0.5"), "{words}");
        }
    }

    #[test]
    fn conditions_of_others_stay_and_times_move_with_the_status() {
        let spec =
            json!({"readinessGates": [{"conditionType": "example.com/gate"}], "containers": [{"name": "a"}]});
        let mut before = status(&spec, "sandbox volumes a=ready");
        for condition in before.conditions.iter_mut().flatten() {
            condition.last_transition_time = Some(Time(ago(500)));
        }
        let gate = PodCondition {
            type_: "example.com/gate".into(),
            status: "True".into(),
            ..PodCondition::default()
        };
        before.conditions.as_mut().unwrap().push(gate);
        let after = generate(&state(&spec, "sandbox volumes a=ready"), now(), &[], &before);
        let find = |name: &str| after.conditions.iter().flatten().find(|c| c.type_ == name).unwrap();
        assert_eq!(find("example.com/gate").status, "True");
        assert_eq!(find("Ready").status, "True", "the gate is open now");
        assert_eq!(find("Ready").last_transition_time, Some(Time(now())));
        assert_eq!(find("Initialized").last_transition_time, Some(Time(ago(500))));
        let ready = before.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.reason.as_deref(), Some("ReadinessGatesNotReady"));
    }
}
