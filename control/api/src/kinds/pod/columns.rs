//! The row that `kubectl get pods` shows (kubernetes `printPod`).

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::{cell, field};
use crate::strategy::Column;

/// Columns of pods.
pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Containers that are ready, of all that should run."),
    Column::text("Status", "What the pod is doing, or what keeps it from running."),
    Column::text("Restarts", "How often containers were started again, and when last."),
    Column::AGE,
    Column::wide("IP", "First address of the pod."),
    Column::wide("Node", "Node that the pod is bound to."),
    Column::wide("Nominated Node", "Node on which preemption makes room for the pod."),
    Column::wide("Readiness Gates", "Conditions that must be true, of all that the pod demands."),
];

/// One row of `COLUMNS`.
#[must_use]
pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match &summary.last_restart {
        Some(last) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, cell::since(last, now))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        cell::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        cell::age(pod, now),
        cell::or_none(first_address(pod)).into(),
        cell::or_none(field::text(pod, "/spec/nodeName").to_owned()).into(),
        cell::or_none(field::text(pod, "/status/nominatedNodeName").to_owned()).into(),
        readiness_gates(pod).into(),
    ]
}

/// The pod's first address, empty when it has none yet.
#[must_use]
pub fn first_address(pod: &Value) -> String {
    field::list(pod, "/status/podIPs")
        .first()
        .map_or_else(|| field::text(pod, "/status/podIP"), |ip| field::text(ip, "/ip"))
        .to_owned()
}

fn readiness_gates(pod: &Value) -> String {
    let gates = field::list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return cell::NONE.to_owned();
    }
    let met =
        gates.iter().filter(|gate| condition(pod, field::text(gate, "/conditionType")) == "True").count();
    format!("{met}/{}", gates.len())
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a str {
    field::list(pod, "/status/conditions")
        .iter()
        .find(|c| field::text(c, "/type") == name)
        .map_or("", |c| field::text(c, "/status"))
}

/// What the status columns say.
#[derive(Debug, Default)]
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    /// RFC 3339; texts of one format compare as times do.
    last_restart: Option<String>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += field::integer(status, "/restartCount").unwrap_or(0);
        let finished = field::text(status, "/lastState/terminated/finishedAt");
        if !finished.is_empty() && self.last_restart.as_deref().is_none_or(|last| last < finished) {
            self.last_restart = Some(finished.to_owned());
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let phase = field::text(pod, "/status/phase");
    let reason = field::text(pod, "/status/reason");
    let mut summary = Summary {
        total: field::list(pod, "/spec/containers").len(),
        status: if reason.is_empty() { phase.to_owned() } else { reason.to_owned() },
        ..Summary::default()
    };
    let gated = |c: &Value| {
        field::text(c, "/type") == "PodScheduled" && field::text(c, "/reason") == "SchedulingGated"
    };
    if field::list(pod, "/status/conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut summary.status);
    }
    let sidecars = Sidecars::of(pod);
    summary.total += sidecars.count;
    // Restarts of sidecars count for ever, those of plain init containers only until the pod is initialised.
    let mut running = Summary::default();
    let initializing = summarize_init(pod, &sidecars, &mut summary, &mut running);
    if !initializing || condition(pod, "Initialized") == "True" {
        summary.restarts = running.restarts;
        summary.last_restart = running.last_restart;
        summarize_containers(pod, &mut summary);
    }
    if field::at(pod, "/metadata/deletionTimestamp").is_some() {
        if reason == "NodeLost" {
            "Unknown".clone_into(&mut summary.status);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.status);
        }
    }
    summary
}

/// Init containers that keep running.
struct Sidecars<'a> {
    by_name: HashMap<&'a str, bool>,
    count: usize,
}

impl<'a> Sidecars<'a> {
    fn of(pod: &'a Value) -> Self {
        let by_name: HashMap<&str, bool> = field::list(pod, "/spec/initContainers")
            .iter()
            .map(|container| {
                (field::text(container, "/name"), field::text(container, "/restartPolicy") == "Always")
            })
            .collect();
        let count = by_name.values().filter(|&&restarts| restarts).count();
        Self { by_name, count }
    }

    fn contains(&self, name: &str) -> bool {
        self.by_name.get(name).copied().unwrap_or(false)
    }
}

/// Sets the status to the first init container that is not done, if there is one, and says whether there is.
fn summarize_init(
    pod: &Value,
    sidecars: &Sidecars<'_>,
    summary: &mut Summary,
    running: &mut Summary,
) -> bool {
    for (index, status) in field::list(pod, "/status/initContainerStatuses").iter().enumerate() {
        summary.count_restarts(status);
        let sidecar = sidecars.contains(field::text(status, "/name"));
        if sidecar {
            running.count_restarts(status);
        }
        let terminated = field::at(status, "/state/terminated");
        let waiting = field::text(status, "/state/waiting/reason");
        summary.status = match terminated {
            Some(terminated) if field::integer(terminated, "/exitCode").unwrap_or(0) == 0 => continue,
            _ if sidecar && field::flag(status, "/started") => {
                summary.ready += usize::from(field::flag(status, "/ready"));
                continue;
            }
            Some(terminated) => format!("Init:{}", exit_reason(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", field::list(pod, "/spec/initContainers").len()),
        };
        return true;
    }
    false
}

fn summarize_containers(pod: &Value, summary: &mut Summary) {
    let mut any_running = false;
    let mut error = None;
    for status in field::list(pod, "/status/containerStatuses").iter().rev() {
        summary.count_restarts(status);
        let waiting = field::text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.status);
        } else if let Some(terminated) = field::at(status, "/state/terminated") {
            summary.status = exit_reason(terminated);
            if field::integer(terminated, "/exitCode").unwrap_or(0) != 0 {
                error = Some(summary.status.clone());
            }
        } else if field::flag(status, "/ready") && field::at(status, "/state/running").is_some() {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" {
        if any_running && condition(pod, "Ready") == "True" {
            "Running".clone_into(&mut summary.status);
        } else if let Some(error) = error {
            summary.status = error;
        } else if any_running {
            "NotReady".clone_into(&mut summary.status);
        }
    }
}

fn exit_reason(terminated: &Value) -> String {
    let reason = field::text(terminated, "/reason");
    let number = |pointer: &str| field::integer(terminated, pointer).unwrap_or(0);
    match (reason, number("/signal"), number("/exitCode")) {
        ("", 0, code) => format!("ExitCode:{code}"),
        ("", signal, _) => format!("Signal:{signal}"),
        (reason, ..) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:10:00Z";

    #[track_caller]
    fn check(spec: Value, status: Value, expected: &[&str]) {
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
        let row: Vec<String> =
            cells(&pod, NOW.parse().unwrap()).iter().map(|cell| cell.as_str().unwrap().to_owned()).collect();
        assert_eq!(&row[1..4], expected);
        assert_eq!(row.len(), COLUMNS.len());
    }

    fn one() -> Value {
        json!({"containers": [{"name": "a"}]})
    }

    #[test]
    fn status_says_what_keeps_the_pod() {
        check(one(), json!({"phase": "Pending"}), &["0/1", "Pending", "0"]);
        check(
            one(),
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            &["0/1", "ContainerCreating", "0"],
        );
        check(
            one(),
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
            &["1/1", "Running", "0"],
        );
        check(
            one(),
            json!({"phase": "Running", "containerStatuses": [{
                "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}},
            }]}),
            &["0/1", "CrashLoopBackOff", "2 (5m ago)"],
        );
        check(
            one(),
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            &["0/1", "Completed", "0"],
        );
        check(
            one(),
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
            &["0/1", "Signal:9", "0"],
        );
        check(one(), json!({"phase": "Failed", "reason": "Evicted"}), &["0/1", "Evicted", "0"]);
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    {"ready": true, "state": {"running": {}}},
                ],
            }),
            &["1/2", "NotReady", "0"],
        );
    }

    #[test]
    fn init_containers_speak_until_they_are_done() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        check(
            spec.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            &["0/2", "Init:0/2", "0"],
        );
        check(
            spec.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            &["0/2", "Init:CrashLoopBackOff", "1"],
        );
        check(
            spec.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
            &["0/2", "Init:ExitCode:3", "0"],
        );
        check(
            spec,
            json!({
                "phase": "Running",
                "initContainerStatuses": [
                    {"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}},
                ],
                "containerStatuses": [{"ready": true, "state": {"running": {}}}],
            }),
            &["2/2", "Running", "1"],
        );
    }

    #[test]
    fn a_deleted_pod_is_terminating_until_it_is_done() {
        let pod = |phase: &str| json!({"metadata": {"name": "p", "deletionTimestamp": NOW}, "spec": one(), "status": {"phase": phase}});
        let status = |phase: &str| cells(&pod(phase), NOW.parse().unwrap())[2].clone();
        assert_eq!(status("Running"), "Terminating");
        assert_eq!(status("Succeeded"), "Succeeded");
    }

    #[test]
    fn wide_columns_say_where_it_runs() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": [{"type": "x", "status": "True"}]},
        });
        assert_eq!(
            cells(&pod, NOW.parse().unwrap())[5..],
            [json!("10.0.0.1"), json!("n"), json!("<none>"), json!("1/2")]
        );
    }
}
