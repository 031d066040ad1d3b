//! Ends one container in an orderly way, and reads how it ended.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::Host;
use crate::containerd::containers::Task;
use crate::logs::format::parse;
use crate::pods::decide::MINIMUM_GRACE;
use crate::pods::effects::{PodEffects, Severity, StopOrder};
use crate::pods::state::{Exit, Instance, InstanceState, container, name, namespace, uid};

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// A container's termination message, at most.
const MAX_MESSAGE: u64 = 4096;
/// What of the log stands in for a missing message.
const LOG_TAIL_BYTES: usize = 2048;
const LOG_TAIL_LINES: usize = 80;
/// Between two tries to signal while containerd does not answer.
const RETRY: Duration = Duration::from_secs(1);

impl Host {
    pub(super) async fn stop_container(self: &Arc<Self>, order: StopOrder) {
        let mut deadline = order.deadline.clone();
        let grace = remaining(&deadline);
        if !grace.is_zero() {
            tokio::select! {
                outcome = self.run_pre_stop(&order, grace) => if let Err(error) = outcome {
                    self.event(&order.pod, Some(&order.container), Severity::Warning, "FailedPreStopHook", &error);
                },
                () = reached(&mut deadline) => {}
            }
            self.signal_until_heard(&order.id, self.stop_signal(&order).await).await;
            // Even after a long hook the process gets a moment of its own.
            let least = tokio::time::sleep(MINIMUM_GRACE.min(grace));
            tokio::select! {
                () = self.wait_for_end(&order.id) => return,
                () = async { tokio::join!(least, reached(&mut deadline)); } => {}
            }
        }
        self.signal_until_heard(&order.id, SIGKILL).await;
        self.wait_for_end(&order.id).await;
    }

    /// Resolves when the container has ended, whatever becomes of containerd meanwhile.
    async fn wait_for_end(&self, id: &str) {
        while let Err(error) = self.containerd.wait(id, "").await {
            if error.is_not_found() {
                return;
            }
            tracing::warn!(container = id, %error, "waiting for the end of a container");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn stop_signal(&self, order: &StopOrder) -> u32 {
        let own = container(&order.pod, &order.container)
            .and_then(|container| container.lifecycle.as_ref()?.stop_signal.clone());
        if let Some(number) = own.as_deref().and_then(signal_number) {
            return number;
        }
        let full = container(&order.pod, &order.container)
            .and_then(|container| crate::containerd::image_name::normalize(container.image.as_deref()?));
        let Some(full) = full else { return SIGTERM };
        let image = self.containerd.image(&full).await.ok().flatten();
        image.and_then(|image| signal_number(&image.process.stop_signal)).unwrap_or(SIGTERM)
    }

    /// SIGKILL goes to all processes of the container.
    async fn signal_until_heard(&self, id: &str, signal: u32) {
        while let Err(error) = self.containerd.signal(id, signal, signal == SIGKILL).await {
            // A process that has ended cannot be signalled, and says so in several ways.
            if !matches!(self.containerd.task(id).await, Ok(Task::Running | Task::Created) | Err(_)) {
                return;
            }
            tracing::warn!(container = id, signal, %error, "signal not delivered");
            tokio::time::sleep(RETRY).await;
        }
    }

    pub(super) async fn reap_container(
        self: &Arc<Self>,
        pod: &Pod,
        name: &str,
        instance: &Instance,
        code: i32,
        at: Timestamp,
    ) -> Exit {
        // The counter goes with the cgroup, which goes with the task.
        let out_of_memory = self.cgroups.oom_killed(&format!("{}/{}", self.cgroup_of(pod), instance.id));
        if let Err(error) = self.containerd.reap(&instance.id).await {
            tracing::warn!(container = instance.id, %error, "ended task not taken away");
        }
        let reason = match code {
            0 => "Completed",
            _ if out_of_memory => "OOMKilled",
            _ => "Error",
        };
        let started_at = match &instance.state {
            InstanceState::Running { started_at } => Some(*started_at),
            InstanceState::Exited(exit) => exit.started_at,
        };
        let exit = Exit {
            code,
            reason: reason.into(),
            message: self.termination_message(pod, name, instance.attempt, code),
            started_at,
            finished_at: at,
        };
        self.record_instance(
            pod,
            name,
            &Instance { state: InstanceState::Exited(exit.clone()), ..instance.clone() },
        );
        exit
    }

    /// Remembers a run and how it is, for the next agent.
    pub(crate) fn record_instance(&self, pod: &Pod, name: &str, instance: &Instance) {
        if let Err(error) = self.files(uid(pod)).save_instance(name, &instance.into()) {
            tracing::warn!(container = instance.id, %error, "state of a container not recorded");
        }
    }

    /// What the container left in its message file, or for FallbackToLogsOnError the end of its log.
    fn termination_message(
        &self,
        pod: &Pod,
        container_name: &str,
        attempt: u32,
        code: i32,
    ) -> Option<String> {
        let path = self.files(uid(pod)).message(container_name, attempt);
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(&path) {
            // Unreadable counts as empty.
            let _ = file.take(MAX_MESSAGE).read_to_end(&mut bytes);
        }
        let fallback = container(pod, container_name)
            .is_some_and(|c| c.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
        if bytes.is_empty() && fallback && code != 0 {
            let directory = self.config.pod_log_dir(namespace(pod), name(pod), uid(pod)).join(container_name);
            bytes = log_tail(&fs::read(directory.join(format!("{attempt}.log"))).unwrap_or_default());
        }
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The last lines of a CRI log, as upstream cuts them.
fn log_tail(log: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for record in log.split_inclusive(|byte| *byte == b'\n').filter_map(parse) {
        text.extend_from_slice(record.payload);
        if record.full {
            text.push(b'\n');
        }
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].concat();
    tail[tail.len().saturating_sub(LOG_TAIL_BYTES)..].to_vec()
}

type Deadline = tokio::sync::watch::Receiver<Timestamp>;

fn remaining(deadline: &Deadline) -> Duration {
    Duration::try_from(deadline.borrow().duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Resolves at the deadline, which may come nearer meanwhile.
async fn reached(deadline: &mut Deadline) {
    loop {
        let wait = remaining(deadline);
        tokio::select! {
            () = tokio::time::sleep(wait) => return,
            changed = deadline.changed() => if changed.is_err() {
                tokio::time::sleep(remaining(deadline)).await;
                return;
            },
        }
    }
}

/// Number of a signal by name (with or without SIG) or number.
fn signal_number(text: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 17] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("WINCH", 28),
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|offset| offset.parse::<u32>().ok()) {
        return (offset <= 30).then_some(34 + offset);
    }
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let table = [
            ("SIGTERM", Some(15)),
            ("QUIT", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("99", None),
            ("", None),
            ("SIGNOPE", None),
        ];
        for (text, expected) in table {
            assert_eq!(signal_number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let mut log = Vec::new();
        for number in 0..100 {
            crate::logs::format::encode(
                &mut log,
                Timestamp::UNIX_EPOCH,
                crate::logs::format::Stream::Stderr,
                format!("line {number}\n").as_bytes(),
            );
        }
        let tail = String::from_utf8_lossy(&log_tail(&log)).into_owned();
        assert_eq!(tail.lines().count(), 80);
        assert!(tail.starts_with("line 20\n") && tail.ends_with("line 99\n"));
    }
}
