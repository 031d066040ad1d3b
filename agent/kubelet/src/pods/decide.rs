//! What to do next for one pod: a pure function of what is known and the time. It starts no effect, changes no
//! state and is called after every hint; its answer includes when to ask again.
//!
//! Invariants (tested): termination is absorbing; an init container starts only after the ones before it; nothing
//! starts once the pod ends; the API object is deleted only after clean-up; one operation a container.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff::later;
use super::state::{
    Cause, Doom, FailureKind, InstanceState, Operation, PULL_ERROR_SHOWN, PodState, Slot, Step, Termination,
    Verdict, init_containers, is_sidecar, spec, spec_hash,
};

/// Least time between the stop signal and SIGKILL: what upstream leaves after a long preStop.
pub const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// One effect to begin. Each has exactly one hint that reports its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create cgroup, namespaces and network.
    PrepareSandbox,
    /// Mount and fill volumes.
    PrepareVolumes,
    /// Start the next instance of a container.
    Start {
        /// Container name.
        container: String,
    },
    /// Stop a running instance.
    Stop {
        /// Container name.
        container: String,
        /// When to kill.
        deadline: Timestamp,
        /// For the Killing event.
        message: String,
    },
    /// A stop in progress must end earlier.
    Hasten {
        /// Container name.
        container: String,
        /// The new deadline.
        deadline: Timestamp,
    },
    /// The pod's active deadline has passed, or another verdict is due.
    Fail(Verdict),
    /// Remove what is left of containers, network, mounts and cgroups.
    CleanUp,
    /// Delete the API object for good (grace period 0).
    DeleteObject,
    /// Nothing is left: forget the pod.
    Forget,
}

/// Actions to begin now, and when to decide again if nothing happens before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// To begin, in order.
    pub actions: Vec<Action>,
    /// Next look, if time alone changes something.
    pub wake: Option<Timestamp>,
}

impl Decision {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// True when the step is due; otherwise arranges to look again.
    fn due<T>(&mut self, step: &Step<T>, now: Timestamp) -> bool {
        match step {
            Step::Absent => true,
            Step::Failed { retry_at, .. } if *retry_at <= now => true,
            Step::Failed { retry_at, .. } => {
                self.wake_at(*retry_at);
                false
            }
            Step::Running { .. } | Step::Done(_) => false,
        }
    }
}

/// Decides. See the module.
pub fn decide(state: &PodState, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    if state.termination.is_none() && !over(state) {
        if let Some(verdict) = deadline_exceeded(state, now, &mut decision) {
            decision.act(Action::Fail(verdict));
        } else {
            progress(state, now, &mut decision);
        }
    } else {
        wind_down(state, now, &mut decision);
    }
    decision
}

/// Whether nothing of the pod will ever be started again, even if nobody deletes it.
pub fn over(state: &PodState) -> bool {
    state.ended || state.rejection.is_some() || finished(state)
}

/// The order in which a pod comes up.
fn progress(state: &PodState, now: Timestamp, decision: &mut Decision) {
    replace_doomed(state, now, decision);
    if decision.due(&state.volumes, now) {
        decision.act(Action::PrepareVolumes);
    }
    if decision.due(&state.sandbox, now) {
        decision.act(Action::PrepareSandbox);
    }
    if state.sandbox.done().is_none() || state.volumes.done().is_none() {
        return;
    }
    if initialise(state, now, decision) {
        for container in &spec(&state.pod).containers {
            start_if_due(state, container, restart_allowed(&state.pod, container), now, decision);
        }
    }
}

/// Walks the init containers; true when the regular ones may start.
fn initialise(state: &PodState, now: Timestamp, decision: &mut Decision) -> bool {
    let begun = main_containers_begun(state);
    for container in init_containers(&state.pod) {
        let slot = state.containers.get(&container.name);
        if is_sidecar(container) {
            start_if_due(state, container, |_| true, now, decision);
            if !begun && !slot.is_some_and(|slot| slot.started && slot.running().is_some()) {
                return false;
            }
        } else if !begun && !succeeded(slot) {
            start_if_due(state, container, init_restart_allowed(&state.pod), now, decision);
            return false;
        }
    }
    true
}

fn succeeded(slot: Option<&Slot>) -> bool {
    slot.filter(|slot| slot.operation == Operation::Idle)
        .and_then(|slot| slot.current.as_ref())
        .and_then(|instance| instance.exit())
        .is_some_and(|exit| exit.code == 0)
}

/// Whether a regular container has ever been started: from then on finished init containers stay finished.
pub fn main_containers_begun(state: &PodState) -> bool {
    let mut names = spec(&state.pod).containers.iter().map(|container| &container.name);
    names.any(|name| state.containers.get(name).is_some_and(|slot| slot.current.is_some()))
}

/// What an exit code means under the container's restart policy.
pub fn restart_allowed<'a>(pod: &'a Pod, container: &'a Container) -> impl Fn(i32) -> bool + 'a {
    let policy =
        container.restart_policy.as_deref().or(spec(pod).restart_policy.as_deref()).unwrap_or("Always");
    move |code| match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// Init containers are tried again until they succeed, unless the pod's policy is Never.
pub fn init_restart_allowed(pod: &Pod) -> impl Fn(i32) -> bool + '_ {
    move |code| code != 0 && spec(pod).restart_policy.as_deref() != Some("Never")
}

fn start_if_due(
    state: &PodState,
    container: &Container,
    allowed: impl Fn(i32) -> bool,
    now: Timestamp,
    decision: &mut Decision,
) {
    let start = || Action::Start { container: container.name.clone() };
    let Some(slot) = state.containers.get(&container.name) else {
        return decision.act(start());
    };
    if slot.operation != Operation::Idle {
        return;
    }
    if let Some(failure) = &slot.failure {
        if failure.retry_at <= now {
            decision.act(start());
        } else {
            if failure.kind == FailureKind::ErrImagePull && now < later(failure.at, PULL_ERROR_SHOWN) {
                decision.wake_at(later(failure.at, PULL_ERROR_SHOWN));
            }
            decision.wake_at(failure.retry_at);
        }
        return;
    }
    match slot.current.as_ref().map(|instance| &instance.state) {
        None => decision.act(start()),
        Some(InstanceState::Running { .. }) => {}
        Some(InstanceState::Exited(_)) if slot.doomed == Some(Doom::Changed) => decision.act(start()),
        Some(InstanceState::Exited(exit)) if allowed(exit.code) => {
            let ready_at = slot.restarts.ready_at(exit.finished_at, state.crash_loop_max);
            if ready_at <= now { decision.act(start()) } else { decision.wake_at(ready_at) }
        }
        Some(InstanceState::Exited(_)) => {}
    }
}

/// Stops running containers that are unhealthy or whose spec changed.
fn replace_doomed(state: &PodState, now: Timestamp, decision: &mut Decision) {
    let grace = pod_grace(&state.pod);
    for container in super::state::all_containers(&state.pod) {
        let Some(slot) = state.containers.get(&container.name) else { continue };
        let Some(instance) = slot.running() else { continue };
        if !matches!(slot.operation, Operation::Idle | Operation::PostStart) {
            continue;
        }
        let (grace, message) = match &slot.doomed {
            Some(Doom::Unhealthy { grace: own, message }) => (own.unwrap_or(grace), message.clone()),
            Some(Doom::Changed) => (grace, changed_message(&container.name)),
            None if instance.spec_hash != spec_hash(container) => (grace, changed_message(&container.name)),
            None => continue,
        };
        decision.act(Action::Stop {
            container: container.name.clone(),
            deadline: later(now, grace),
            message,
        });
    }
}

fn changed_message(name: &str) -> String {
    format!("Container {name} definition changed, will be restarted")
}

/// terminationGracePeriodSeconds of the pod.
pub fn pod_grace(pod: &Pod) -> Duration {
    seconds(spec(pod).termination_grace_period_seconds.unwrap_or(30))
}

/// A number of seconds from a spec; negative ones count as none.
pub fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

fn deadline_exceeded(state: &PodState, now: Timestamp, decision: &mut Decision) -> Option<Verdict> {
    let limit = spec(&state.pod).active_deadline_seconds?;
    let deadline = later(state.start_time, seconds(limit));
    if now < deadline {
        decision.wake_at(deadline);
        return None;
    }
    Some(Verdict {
        reason: "DeadlineExceeded".into(),
        message: "Pod was active on the node longer than the specified deadline".into(),
    })
}

/// Whether the pod has reached Succeeded or Failed by itself.
pub fn finished(state: &PodState) -> bool {
    let pod = &state.pod;
    let ended = |container: &Container, allowed: &dyn Fn(i32) -> bool| {
        state.containers.get(&container.name).is_some_and(|slot| {
            slot.operation == Operation::Idle
                && slot.doomed != Some(Doom::Changed)
                && slot
                    .current
                    .as_ref()
                    .and_then(|instance| instance.exit())
                    .is_some_and(|e| !allowed(e.code))
        })
    };
    let init_failed = !main_containers_begun(state)
        && init_containers(pod).iter().any(|container| {
            !is_sidecar(container) && {
                let retried = init_restart_allowed(pod);
                ended(container, &|code| code == 0 || retried(code))
            }
        });
    let containers = &spec(pod).containers;
    init_failed || (!containers.is_empty() && containers.iter().all(|c| ended(c, &restart_allowed(pod, c))))
}

/// The order in which a pod goes down: regular containers, sidecars in reverse, remains, the object.
fn wind_down(state: &PodState, now: Timestamp, decision: &mut Decision) {
    let deadline =
        state.termination.as_ref().map_or_else(|| later(now, pod_grace(&state.pod)), Termination::deadline);
    let (sidecars, others): (Vec<_>, Vec<_>) =
        super::state::all_containers(&state.pod).partition(|container| is_sidecar(container));
    let mut live = 0;
    for container in others {
        live += usize::from(stop(state, container, deadline, decision));
    }
    for container in sidecars.into_iter().rev() {
        if live == 0 {
            live += usize::from(stop(state, container, deadline.max(later(now, MINIMUM_GRACE)), decision));
        }
    }
    let preparing = state.sandbox.running() || state.volumes.running();
    if live > 0 || preparing {
        return;
    }
    if decision.due(&state.cleanup, now) {
        return decision.act(Action::CleanUp);
    }
    if state.cleanup.done().is_none() {
        return;
    }
    match state.termination.as_ref().map(|termination| &termination.cause) {
        Some(Cause::Deleted) if state.deletion.done().is_some() => decision.act(Action::Forget),
        Some(Cause::Deleted) if decision.due(&state.deletion, now) => decision.act(Action::DeleteObject),
        Some(Cause::Removed) => decision.act(Action::Forget),
        _ => {}
    }
}

/// Stops one container; true while something of it is alive.
fn stop(state: &PodState, container: &Container, deadline: Timestamp, decision: &mut Decision) -> bool {
    let Some(slot) = state.containers.get(&container.name) else { return false };
    let name = container.name.clone();
    match &slot.operation {
        Operation::Stopping { deadline: current } if deadline < *current => {
            decision.act(Action::Hasten { container: name, deadline });
        }
        Operation::Idle | Operation::PostStart if slot.running().is_some() => {
            let message = format!("Stopping container {name}");
            decision.act(Action::Stop { container: name, deadline, message });
        }
        _ => {}
    }
    slot.live()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{now, state};
    use super::*;
    use serde_json::{Value, json};

    fn show(action: &Action) -> String {
        let left = |deadline: &Timestamp| deadline.duration_since(now()).as_secs();
        match action {
            Action::PrepareSandbox => "sandbox".into(),
            Action::PrepareVolumes => "volumes".into(),
            Action::Start { container } => format!("start {container}"),
            Action::Stop { container, deadline, .. } => format!("stop {container} in {}", left(deadline)),
            Action::Hasten { container, deadline } => format!("hasten {container} to {}", left(deadline)),
            Action::Fail(verdict) => format!("fail {}", verdict.reason),
            Action::CleanUp => "clean up".into(),
            Action::DeleteObject => "delete object".into(),
            Action::Forget => "forget".into(),
        }
    }

    /// `expected`: the actions, and `wake in N` if time matters.
    #[track_caller]
    fn check(spec: &Value, words: &str, expected: &[&str]) {
        let decision = decide(&state(spec, words), now());
        let mut found: Vec<String> = decision.actions.iter().map(show).collect();
        found.extend(decision.wake.map(|wake| format!("wake in {}", wake.duration_since(now()).as_secs())));
        assert_eq!(found, expected, "{words}");
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    fn with_init() -> Value {
        json!({
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
            "containers": [{"name": "a"}]})
    }

    #[test]
    fn containers_start_when_sandbox_and_volumes_are_there() {
        check(&two(), "", &["volumes", "sandbox"]);
        check(&two(), "volumes", &["sandbox"]);
        check(&two(), "volumes sandbox!", &["wake in 5"]);
        check(&two(), "volumes sandbox", &["start a", "start b"]);
        check(&two(), "volumes sandbox a=starting b=ready", &[]);
    }

    #[test]
    fn init_containers_run_in_order_and_sidecars_stay() {
        let spec = with_init();
        check(&spec, "volumes sandbox", &["start i"]);
        check(&spec, "volumes sandbox i=running", &[]);
        check(&spec, "volumes sandbox i=exit:1:0", &["start i"]);
        check(&spec, "volumes sandbox i=exit:0:9", &["start s"]);
        check(&spec, "volumes sandbox i=exit:0:9 s=running", &[]);
        check(&spec, "volumes sandbox i=exit:0:9 s=ready", &["start j"]);
        check(&spec, "volumes sandbox i=exit:0:9 s=ready j=exit:0:1", &["start a"]);
        check(&spec, "volumes sandbox i=exit:0:9 s=exit:0:0 j=exit:0:1 a=ready", &["start s"]);
        // Once a main container has begun, finished init containers stay finished, whatever is remembered of them.
        check(&spec, "volumes sandbox s=ready a=ready", &[]);
    }

    #[test]
    fn restarts_follow_policy_and_back_off() {
        let policy = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        check(&policy("Always"), "volumes sandbox a=exit:0:1", &["start a"]);
        check(&policy("Always"), "volumes sandbox a=exit:1:1 a+backoff:1", &["wake in 9"]);
        check(&policy("Always"), "volumes sandbox a=exit:1:1 a+backoff:3", &["wake in 39"]);
        check(&policy("OnFailure"), "volumes sandbox a=exit:1:1", &["start a"]);
        check(&policy("OnFailure"), "volumes sandbox a=exit:0:1", &["clean up"]);
        check(&policy("Never"), "volumes sandbox a=exit:1:1", &["clean up"]);
        check(&policy("Never"), "volumes sandbox a=exit:1:1 clean", &[]);
    }

    #[test]
    fn failed_starts_are_tried_again_in_their_time() {
        check(&two(), "volumes sandbox a=ready b=pull:1:9", &["wake in 2"]);
        check(&two(), "volumes sandbox a=ready b=pull:5:5", &["wake in 5"]);
        check(&two(), "volumes sandbox a=ready b=config:5:0", &["start b"]);
    }

    #[test]
    fn unhealthy_and_changed_containers_are_replaced() {
        check(&two(), "volumes sandbox a=ready a+doomed b=ready", &["stop a in 30"]);
        check(&two(), "volumes sandbox a=ready a+changed b=ready", &["stop a in 30"]);
        check(&two(), "volumes sandbox a=stopping:9 a+doomed b=ready", &[]);
    }

    #[test]
    fn an_ending_pod_starts_nothing_and_goes_step_by_step() {
        check(&two(), "sandbox volumes ending:30", &["clean up"]);
        check(&two(), "sandbox volumes ending:30 a=ready b=exit:1:0", &["stop a in 29"]);
        check(&two(), "sandbox volumes ending:30 a=starting", &[]);
        check(&two(), "sandbox volumes ending:30 a=stopping:29 b=stopping:29", &[]);
        check(&two(), "sandbox volumes ending:5 a=stopping:29", &["hasten a to 4"]);
        check(&two(), "sandbox volumes ending:30 a=exit:0:0 b=exit:0:0", &["clean up"]);
        check(&two(), "sandbox volumes ending:30 a=exit:0:0 clean", &["delete object"]);
        check(&two(), "sandbox volumes ending:30 a=exit:0:0 clean deleted", &["forget"]);
        check(&two(), "sandbox volumes removed:30 a=exit:0:0 clean", &["forget"]);
        check(&two(), "sandbox volumes failed:Evicted a=exit:0:0 clean", &[]);
    }

    #[test]
    fn sidecars_end_after_the_others() {
        let spec = with_init();
        check(&spec, "sandbox volumes ending:30 s=ready a=ready", &["stop a in 29"]);
        check(&spec, "sandbox volumes ending:30 s=ready a=stopping:29", &[]);
        check(&spec, "sandbox volumes ending:30 s=ready a=exit:0:1", &["stop s in 29"]);
    }

    #[test]
    fn refused_pods_only_go_away() {
        check(&two(), "rejected:OutOfcpu", &["clean up"]);
        check(&two(), "rejected:OutOfcpu clean", &[]);
        check(&two(), "rejected:OutOfcpu clean ending:0", &["delete object"]);
    }

    #[test]
    fn active_deadlines_end_the_pod() {
        let spec = |seconds: i64| json!({"activeDeadlineSeconds": seconds, "containers": [{"name": "a"}]});
        check(&spec(100), "sandbox volumes a=ready", &["wake in 40"]);
        check(&spec(60), "sandbox volumes a=ready", &["fail DeadlineExceeded"]);
    }
}
