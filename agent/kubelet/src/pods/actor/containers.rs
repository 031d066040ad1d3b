//! The actor's part for containers: starts, hooks, stops and ends.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::super::backoff::later;
use super::super::effects::{Severity, StartError, StartOrder, StopOrder};
use super::super::state::{
    Doom, Exit, FailureKind, Instance, InstanceState, Operation, Slot, StartFailure, container,
};
use super::{Actor, Done};
use crate::probes::ProbeKind;

/// Wait before a start that failed for a reason of configuration is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

impl Actor {
    pub(super) fn begin_start(&mut self, container: String, now: Timestamp) {
        let cap = self.state.crash_loop_max;
        let sandbox = self.sandbox();
        let slot = self.slot(&container);
        if let Some(exit) = slot.current.as_ref().and_then(Instance::exit).filter(|_| slot.failure.is_none())
        {
            let finished_at = exit.finished_at;
            slot.restarts.advance(finished_at, now, cap);
        }
        slot.operation = Operation::Starting;
        let order = StartOrder {
            attempt: slot.next_attempt,
            container: container.clone(),
            pod: self.state.pod.clone(),
            sandbox,
        };
        let effects = self.effects.clone();
        self.perform(async move { Done::Started(container, effects.start(order).await) });
    }

    pub(super) fn begin_stop(&mut self, container: String, deadline: Timestamp, message: &str) {
        self.effects.event(&self.state.pod, Some(&container), Severity::Normal, "Killing", message);
        if let Some(hook) = self.hooks.remove(&container) {
            hook.abort();
        }
        let (sender, receiver) = watch::channel(deadline);
        let Some(order) = self.stop_order(&container, receiver) else { return };
        self.stops.insert(container.clone(), sender);
        self.slot(&container).operation = Operation::Stopping { deadline };
        let own: Vec<_> =
            [ProbeKind::Liveness, ProbeKind::Startup].map(|kind| (container.clone(), kind)).into();
        self.stop_probes(|key| own.contains(key));
        let (effects, id) = (self.effects.clone(), order.id.clone());
        self.perform(async move {
            effects.stop(order).await;
            Done::Stopped(container, id)
        });
    }

    pub(super) fn stop_order(
        &mut self,
        container: &str,
        deadline: watch::Receiver<Timestamp>,
    ) -> Option<StopOrder> {
        let (pod, sandbox) = (self.state.pod.clone(), self.sandbox());
        let id = self.slot(container).running()?.id.clone();
        Some(StopOrder { pod, container: container.to_owned(), id, deadline, sandbox })
    }

    pub(super) fn take_exit(&mut self, id: String, code: i32, at: Timestamp) {
        let found = self.state.containers.iter().find_map(|(name, slot)| {
            slot.current.as_ref().filter(|instance| instance.id == id).map(|i| (name.clone(), i.clone()))
        });
        let Some((container, instance)) = found else {
            self.early.insert(id, (code, at));
            return;
        };
        if instance.exit().is_some() || !self.reaping.insert(id.clone()) {
            return;
        }
        let (pod, effects) = (self.state.pod.clone(), self.effects.clone());
        self.perform(async move {
            let exit = effects.reap(pod, container.clone(), instance, code, at).await;
            Done::Reaped(container, id, exit)
        });
    }

    pub(super) fn take_started(
        &mut self,
        name: String,
        outcome: Result<Instance, StartError>,
        now: Timestamp,
    ) {
        let pod = self.state.pod.clone();
        let Some(container) = container(&pod, &name) else { return };
        let probed = container.startup_probe.is_some();
        let hook = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let unready = container.readiness_probe.is_some();
        let cap = self.state.crash_loop_max;
        let slot = self.slot(&name);
        slot.operation = Operation::Idle;
        match outcome {
            Ok(instance) => {
                let id = instance.id.clone();
                begin_instance(slot, instance);
                slot.ready = !unready;
                slot.started = !probed && !hook;
                if hook {
                    slot.operation = Operation::PostStart;
                    self.begin_post_start(&name);
                } else {
                    self.start_probes(&name, false);
                }
                if let Some((code, at)) = self.early.remove(&id) {
                    self.take_exit(id, code, at);
                }
            }
            Err(StartError::Run(instance)) => begin_instance(slot, *instance),
            Err(StartError::Failed { kind, message }) => {
                let pull = kind == FailureKind::ErrImagePull;
                let retry_at = if pull {
                    slot.pulls.advance(now, now, cap);
                    later(now, slot.pulls.delay())
                } else {
                    later(now, CONFIG_RETRY)
                };
                slot.failure = Some(StartFailure { kind, message, at: now, retry_at });
            }
        }
    }

    pub(super) fn begin_post_start(&mut self, container: &str) {
        let now = (self.config.clock)();
        let (_, deadline) = watch::channel(now);
        let Some(order) = self.stop_order(container, deadline) else { return };
        let (effects, name, id) = (self.effects.clone(), container.to_owned(), order.id.clone());
        let hook = self.perform(async move {
            let outcome = effects.post_start(order).await;
            Done::PostStarted(name, id, outcome)
        });
        self.hooks.insert(container.to_owned(), hook);
    }

    pub(super) fn take_post_started(&mut self, name: &str, id: &str, outcome: Result<(), String>) {
        self.hooks.remove(name);
        let pod = self.state.pod.clone();
        let probed = container(&pod, name).is_some_and(|container| container.startup_probe.is_some());
        let slot = self.slot(name);
        if slot.operation != Operation::PostStart || slot.running().is_none_or(|instance| instance.id != id) {
            return;
        }
        slot.operation = Operation::Idle;
        match outcome {
            Ok(()) => {
                slot.started = !probed;
                self.start_probes(name, false);
            }
            Err(error) => {
                slot.doomed = Some(Doom::Unhealthy { grace: None, message: "FailedPostStartHook".into() });
                self.effects.event(&pod, Some(name), Severity::Warning, "FailedPostStartHook", &error);
            }
        }
    }

    pub(super) fn take_reaped(&mut self, container: &str, id: &str, exit: Exit) {
        self.reaping.remove(id);
        self.stops.remove(container);
        if let Some(hook) = self.hooks.remove(container) {
            hook.abort();
        }
        let name = container.to_owned();
        self.stop_probes(|(owner, _)| *owner == name);
        let slot = self.slot(container);
        if let Some(instance) = slot.current.as_mut().filter(|instance| instance.id == id) {
            instance.state = InstanceState::Exited(exit);
            slot.operation = Operation::Idle;
            slot.ready = false;
            slot.started = false;
            if matches!(slot.doomed, Some(Doom::Unhealthy { .. })) {
                slot.doomed = None;
            }
        }
    }
}

/// A new run of a container: what ran before becomes the last state.
fn begin_instance(slot: &mut Slot, instance: Instance) {
    slot.failure = None;
    slot.doomed = None;
    slot.next_attempt = instance.attempt + 1;
    if let Some(old) = slot.current.replace(instance) {
        slot.previous = Some(old);
    }
}
