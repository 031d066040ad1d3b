//! The actor's part for probes: starting and stopping them, and what their results mean.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::super::decide::seconds;
use super::super::effects::{ProbeOrder, Severity};
use super::super::state::{Doom, container};
use super::{Actor, Done, Hint};
use crate::probes::tracker::Change;
use crate::probes::{Outcome, ProbeKind, Timing};

impl Actor {
    pub(super) fn take_probed(
        &mut self,
        name: &str,
        id: &str,
        kind: ProbeKind,
        change: Option<Change>,
        outcome: Outcome,
    ) {
        let pod = self.state.pod.clone();
        let Some(spec) = container(&pod, name) else { return };
        if self.slot(name).running().is_none_or(|instance| instance.id != id) {
            return;
        }
        if let Outcome::Failure(error) | Outcome::Unknown(error) = &outcome {
            let message = format!("{} probe failed: {error}", kind.as_str());
            self.effects.event(&pod, Some(name), Severity::Warning, "Unhealthy", &message);
        }
        match (kind, change) {
            (ProbeKind::Readiness, Some(change)) => self.slot(name).ready = change == Change::Passed,
            (ProbeKind::Startup, Some(Change::Passed)) => {
                self.slot(name).started = true;
                self.stop_probes(|key| *key == (name.to_owned(), ProbeKind::Startup));
                self.start_probes(name, false);
            }
            (ProbeKind::Startup | ProbeKind::Liveness, Some(Change::Failed)) => {
                let probe =
                    if kind == ProbeKind::Startup { &spec.startup_probe } else { &spec.liveness_probe };
                let grace =
                    probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds).map(seconds);
                let kind = kind.as_str().to_lowercase();
                let message = format!("Container {name} failed {kind} probe, will be restarted");
                self.slot(name).doomed = Some(Doom::Unhealthy { grace, message });
            }
            _ => {}
        }
    }

    /// Starts the probes that fit an instance's state: the startup probe, or after it the others.
    pub(super) fn start_probes(&mut self, name: &str, resumed: bool) {
        let pod = self.state.pod.clone();
        let Some(spec) = container(&pod, name) else { return };
        let (started, ready) = {
            let slot = self.slot(name);
            (slot.started, slot.ready)
        };
        let wanted = if started {
            vec![(ProbeKind::Liveness, &spec.liveness_probe), (ProbeKind::Readiness, &spec.readiness_probe)]
        } else {
            vec![(ProbeKind::Startup, &spec.startup_probe)]
        };
        for (kind, probe) in wanted {
            let ending = self.state.termination.is_some() && kind != ProbeKind::Readiness;
            let (Some(probe), false) = (probe, ending) else { continue };
            let known = (resumed && kind == ProbeKind::Readiness).then_some(ready);
            self.start_probe(name, kind, probe.clone(), known, resumed);
        }
    }

    pub(super) fn start_probe(
        &mut self,
        name: &str,
        kind: ProbeKind,
        probe: Probe,
        known: Option<bool>,
        resumed: bool,
    ) {
        let Some(id) = self.slot(name).running().map(|instance| instance.id.clone()) else { return };
        let timing = Timing::of(&probe);
        // After a restart of the agent probes are spread over a period, not all at once.
        let first = if resumed { spread(&id, timing.period) } else { timing.initial_delay };
        let order = ProbeOrder {
            pod: self.state.pod.clone(),
            container: name.to_owned(),
            id: id.clone(),
            kind,
            timeout: timing.timeout,
            sandbox: self.sandbox(),
        };
        let (effects, own, container) = (self.effects.clone(), self.own.clone(), name.to_owned());
        let ask = move || effects.clone().probe(order.clone());
        let report = move |change, outcome| {
            let done = Done::Probed(container.clone(), id.clone(), kind, change, outcome);
            // A full mailbox loses one failure event, not the verdict: the next probe repeats it.
            own.upgrade().is_some_and(|own| own.try_send(Hint::Done(done)).is_ok())
        };
        let task = tokio::spawn(crate::probes::run(kind, probe, known, first, ask, report));
        if let Some(old) = self.probes.insert((name.to_owned(), kind), task.abort_handle()) {
            old.abort();
        }
    }

    pub(super) fn stop_probes(&mut self, which: impl Fn(&(String, ProbeKind)) -> bool) {
        self.probes.retain(|key, task| {
            let stop = which(key);
            if stop {
                task.abort();
            }
            !stop
        });
    }
}

/// A wait between zero and `period` that differs from id to id.
fn spread(id: &str, period: Duration) -> Duration {
    let sum: u32 = id.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    period.mul_f64(f64::from(sum % 1000) / 1000.0)
}
