//! Small texts for pod states, so that the tables of decision and status tests read as pictures.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::actor::fresh;
use super::state::{
    Cause, Doom, Exit, FailureKind, Instance, InstanceState, Operation, PodState, Sandbox, Slot,
    StartFailure, Step, Termination, Verdict, container, init_containers, spec_hash,
};

/// The time of every picture.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// `seconds` before [`now`] (after it, if negative).
pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// A pod with that spec.
pub fn pod(spec: &Value) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "generation": 3},
            "spec": spec}))
        .unwrap(),
    )
}

/// A state from words, each about one thing:
/// `sandbox` `volumes` (done), `sandbox!` (failed, to be tried in 5 s), `clean` (cleaned up), `deleted`,
/// `ending:GRACE` `removed:GRACE` `failed:REASON` (termination, ordered a second ago), `rejected:REASON`;
/// `NAME=running` `NAME=ready` (and started), `NAME=exit:CODE:SECONDS_AGO`, `NAME=starting`, `NAME=stopping:SECONDS`,
/// `NAME=poststart`, `NAME=pull:SECONDS_AGO:RETRY_IN`, `NAME=config:SECONDS_AGO:RETRY_IN`; then `NAME+doomed` `NAME+changed`
/// `NAME+backoff:N` (N restarts so far).
pub fn state(spec: &Value, words: &str) -> PodState {
    let mut state = fresh(pod(spec), ago(60), Duration::from_secs(300));
    for word in words.split_whitespace() {
        if let Some((name, what)) = word.split_once('=') {
            let slot = describe(&state.pod, name, what);
            state.containers.insert(name.to_owned(), slot);
        } else if let Some((name, what)) = word.split_once('+') {
            modify(state.containers.get_mut(name).unwrap(), what);
        } else {
            whole(&mut state, word);
        }
    }
    state
}

fn whole(state: &mut PodState, word: &str) {
    let (word, argument) = word.split_once(':').unwrap_or((word, ""));
    let terminate = |cause| {
        let grace = Duration::from_secs(argument.parse().unwrap_or(30));
        Some(Termination { since: ago(1), grace, cause })
    };
    let verdict = || Verdict { reason: argument.into(), message: String::new() };
    match word {
        "sandbox" => {
            state.sandbox = Step::Done(Sandbox { ips: vec!["10.244.0.5".parse().unwrap()] });
        }
        "sandbox!" => {
            state.sandbox = Step::Failed { message: "no".into(), retry_at: ago(-5), failures: 1 };
        }
        "volumes" => state.volumes = Step::Done(()),
        "clean" => state.cleanup = Step::Done(()),
        "deleted" => state.deletion = Step::Done(()),
        "ending" => state.termination = terminate(Cause::Deleted),
        "removed" => state.termination = terminate(Cause::Removed),
        "failed" => state.termination = terminate(Cause::Failed(verdict())),
        "rejected" => state.rejection = Some(verdict()),
        other => panic!("{other}"),
    }
}

fn describe(pod: &Pod, name: &str, what: &str) -> Slot {
    let spec = container(pod, name).unwrap_or_else(|| panic!("no container {name}"));
    let init = init_containers(pod).iter().any(|init| init.name == name);
    let parts: Vec<&str> = what.split(':').collect();
    let number = |index: usize| parts[index].parse::<i64>().unwrap();
    let instance = |state| Instance {
        id: format!("{name}-0"),
        attempt: 0,
        image: "docker.io/library/echo:latest".into(),
        image_id: "docker.io/library/echo@sha256:1".into(),
        spec_hash: spec_hash(spec),
        user: None,
        state,
    };
    let running = Some(instance(InstanceState::Running { started_at: ago(30) }));
    let slot = Slot { init, next_attempt: 1, ..Slot::default() };
    let failure = |kind| {
        Some(StartFailure { kind, message: "why".into(), at: ago(number(1)), retry_at: ago(-number(2)) })
    };
    match parts[0] {
        "running" => Slot { current: running, ..slot },
        "ready" => Slot { current: running, ready: true, started: true, ..slot },
        "exit" => {
            let exit = Exit {
                code: number(1) as i32,
                reason: if parts[1] == "0" { "Completed" } else { "Error" }.into(),
                message: None,
                started_at: Some(ago(number(2) + 5)),
                finished_at: ago(number(2)),
            };
            Slot { current: Some(instance(InstanceState::Exited(exit))), ..slot }
        }
        "starting" => Slot { operation: Operation::Starting, init, ..Slot::default() },
        "poststart" => Slot { current: running, operation: Operation::PostStart, ..slot },
        "stopping" => {
            Slot { current: running, operation: Operation::Stopping { deadline: ago(-number(1)) }, ..slot }
        }
        "pull" => Slot { failure: failure(FailureKind::ErrImagePull), init, ..Slot::default() },
        "config" => {
            Slot { failure: failure(FailureKind::CreateContainerConfigError), init, ..Slot::default() }
        }
        other => panic!("{other}"),
    }
}

fn modify(slot: &mut Slot, what: &str) {
    match what.split_once(':').unwrap_or((what, "")) {
        ("doomed", _) => slot.doomed = Some(Doom::Unhealthy { grace: None, message: "liveness".into() }),
        ("changed", _) => slot.current.as_mut().unwrap().spec_hash = "old".into(),
        ("backoff", count) => {
            let count: u32 = count.parse().unwrap();
            for _ in 0..count {
                slot.restarts.advance(ago(20), ago(20), Duration::from_secs(300));
            }
            slot.next_attempt = count + 1;
        }
        (other, _) => panic!("{other}"),
    }
}
