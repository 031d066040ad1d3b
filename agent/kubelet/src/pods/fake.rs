//! Effects in memory: every call is a line in a log, containers are entries in a table.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc::UnboundedSender;

use super::actor::{Hint, Mailbox};
use super::effects::{PodEffects, ProbeOrder, Severity, StartError, StartOrder, StopOrder, Written};
use super::record::PodRecord;
use super::state::{Exit, Instance, InstanceState, Sandbox, container, spec_hash};
use crate::probes::Outcome;

/// Effects that always work, unless told otherwise.
pub struct FakeEffects {
    log: UnboundedSender<String>,
    /// The actor, to tell of exits.
    pub mailbox: Mutex<Option<Mailbox>>,
    /// Containers whose next starts fail.
    pub refuse: Mutex<HashMap<String, StartError>>,
    /// What probes find, by container.
    pub probes: Mutex<HashMap<String, Outcome>>,
    /// The last status written.
    pub written: Mutex<PodStatus>,
}

impl FakeEffects {
    /// Effects that write their log to `log`.
    pub fn new(log: UnboundedSender<String>) -> Arc<Self> {
        Arc::new(Self {
            log,
            mailbox: Mutex::default(),
            refuse: Mutex::default(),
            probes: Mutex::default(),
            written: Mutex::default(),
        })
    }

    fn note(&self, line: impl Into<String>) {
        // The test may have ended.
        let _ = self.log.send(line.into());
    }

    /// A container's process ends.
    pub async fn exit(&self, id: &str, code: i32) {
        let mailbox = self.mailbox.lock().unwrap().clone();
        if let Some(mailbox) = mailbox {
            let _ = mailbox.send(Hint::TaskExited { id: id.into(), code, at: clock() }).await;
        }
    }
}

/// Time that tokio's paused clock drives.
pub fn clock() -> Timestamp {
    thread_local! {
        static START: tokio::time::Instant = tokio::time::Instant::now();
    }
    let passed = START.with(tokio::time::Instant::elapsed);
    super::backoff::later(Timestamp::from_second(1_000_000).unwrap(), passed)
}

impl PodEffects for FakeEffects {
    fn prepare_sandbox(self: Arc<Self>, _: Arc<Pod>) -> BoxFuture<'static, Result<Sandbox, String>> {
        self.note("sandbox");
        Box::pin(async move { Ok(Sandbox { ips: vec!["10.244.0.5".parse().unwrap()] }) })
    }

    fn prepare_volumes(
        self: Arc<Self>,
        _: Arc<Pod>,
        sandbox: Option<Sandbox>,
    ) -> BoxFuture<'static, Result<(), String>> {
        self.note(if sandbox.is_some() { "refresh" } else { "volumes" });
        Box::pin(async { Ok(()) })
    }

    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Instance, StartError>> {
        Box::pin(async move {
            self.note(format!("start {}-{}", order.container, order.attempt));
            if let Some(error) = self.refuse.lock().unwrap().remove(&order.container) {
                return Err(error);
            }
            Ok(Instance {
                id: format!("{}-{}", order.container, order.attempt),
                attempt: order.attempt,
                image: "echo".into(),
                image_id: "echo@1".into(),
                spec_hash: spec_hash(container(&order.pod, &order.container).unwrap()),
                user: None,
                state: InstanceState::Running { started_at: clock() },
            })
        })
    }

    fn post_start(self: Arc<Self>, order: StopOrder) -> BoxFuture<'static, Result<(), String>> {
        self.note(format!("postStart {}", order.id));
        Box::pin(async { Ok(()) })
    }

    /// Processes end ten seconds after the signal, or at the deadline.
    fn stop(self: Arc<Self>, mut order: StopOrder) -> BoxFuture<'static, ()> {
        self.note(format!("stop {}", order.id));
        Box::pin(async move {
            let orderly = tokio::time::sleep(std::time::Duration::from_secs(10));
            tokio::pin!(orderly);
            let code = loop {
                let left = order.deadline.borrow().duration_since(clock());
                let left = std::time::Duration::try_from(left).unwrap_or_default();
                tokio::select! {
                    () = &mut orderly => break 0,
                    () = tokio::time::sleep(left) => break 137,
                    changed = order.deadline.changed() => if changed.is_err() { orderly.await; break 0 },
                }
            };
            self.exit(&order.id, code).await;
        })
    }

    fn reap(
        self: Arc<Self>,
        _: Arc<Pod>,
        _: String,
        instance: Instance,
        code: i32,
        at: Timestamp,
    ) -> BoxFuture<'static, Exit> {
        self.note(format!("reap {} {code}", instance.id));
        let reason = if code == 0 { "Completed" } else { "Error" };
        Box::pin(async move {
            Exit { code, reason: reason.into(), message: None, started_at: Some(at), finished_at: at }
        })
    }

    fn probe(self: Arc<Self>, order: ProbeOrder) -> BoxFuture<'static, Outcome> {
        let outcome = self.probes.lock().unwrap().get(&order.container).cloned().unwrap_or(Outcome::Success);
        Box::pin(async { outcome })
    }

    fn clean_up(self: Arc<Self>, _: Arc<Pod>) -> BoxFuture<'static, Result<(), String>> {
        self.note("clean up");
        Box::pin(async { Ok(()) })
    }

    fn write_status(
        self: Arc<Self>,
        _: Arc<Pod>,
        _: PodStatus,
        status: PodStatus,
    ) -> BoxFuture<'static, Written> {
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let phase = status.phase.clone().unwrap_or_default();
        self.note(format!("status {phase}{}", if ready { " ready" } else { "" }));
        *self.written.lock().unwrap() = status;
        Box::pin(async { Written::Stored })
    }

    fn delete_object(self: Arc<Self>, _: Arc<Pod>) -> BoxFuture<'static, Result<(), String>> {
        self.note("delete object");
        Box::pin(async { Ok(()) })
    }

    fn save(&self, _: &PodRecord) -> Result<(), String> {
        Ok(())
    }

    fn forget(&self, _: &Pod) {
        self.note("forget");
    }

    fn event(&self, _: &Pod, _: Option<&str>, _: Severity, reason: &str, _: &str) {
        self.note(format!("event {reason}"));
    }
}
