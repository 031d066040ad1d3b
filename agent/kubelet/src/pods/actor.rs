//! One pod's actor: takes hints, asks `decide`, begins effects. It owns the pod's state; nobody else changes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::backoff::later;
use super::decide::{Action, decide, over, seconds};
use super::effects::{PodEffects, Severity, StartError, StartOrder, StopOrder};
use super::record::PodRecord;
use super::state::{
    Cause, Doom, Exit, FailureKind, Instance, InstanceState, Operation, PodState, Sandbox, Slot, StartFailure, Step,
    Termination, container, init_containers, name, spec_hash,
};
use super::status::generate;
use super::status_writer::{self, Wanted};
use crate::probes::tracker::Change;
use crate::probes::{Outcome, ProbeKind};

/// Hints that wait for an actor before their senders do.
const MAILBOX: usize = 256;
/// Wait before a start that failed for a reason of configuration is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// News for an actor.
#[derive(Debug)]
pub enum Hint {
    /// The object as the API has it now.
    Desired(Arc<Pod>),
    /// The API has it no more; the object as last seen, if there was a deletion to see.
    Removed(Option<Arc<Pod>>),
    /// A container's first process ended.
    TaskExited {
        /// Runtime id.
        id: String,
        /// Exit code.
        code: i32,
        /// When.
        at: Timestamp,
    },
    /// Effects that ended, and probes.
    #[doc(hidden)]
    Done(Done),
    /// Refresh API-backed volumes.
    RefreshVolumes,
}

/// The end of an effect.
#[derive(Debug)]
pub enum Done {
    /// Of PrepareSandbox.
    Sandbox(Result<Sandbox, String>),
    /// Of PrepareVolumes.
    Volumes(Result<(), String>),
    /// Of Start.
    Started(String, Result<Instance, StartError>),
    /// Of postStart: container, id.
    PostStarted(String, String, Result<(), String>),
    /// Of a stop: container, id.
    Stopped(String, String),
    /// Of the reaping of an instance: container, id.
    Reaped(String, String, Exit),
    /// A probe failed or its verdict changed: container, id.
    Probed(String, String, ProbeKind, Option<Change>, Outcome),
    /// Of CleanUp.
    CleanedUp(Result<(), String>),
    /// Of DeleteObject.
    Deleted(Result<(), String>),
}

/// Where to send hints for a pod.
pub type Mailbox = mpsc::Sender<Hint>;

/// Time as the actor sees it; tests drive it with tokio's paused clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A pod as others on the node see it.
#[derive(Debug, Clone)]
pub struct View {
    /// The object.
    pub pod: Arc<Pod>,
    /// Its status as generated last.
    pub status: PodStatus,
    /// Ids of running containers, by container name.
    pub running: BTreeMap<String, String>,
    /// Newest and second newest run, by container name.
    pub attempts: BTreeMap<String, (Option<u32>, Option<u32>)>,
    /// Whether it holds resources of the node no more.
    pub ended: bool,
}

/// Facts about the node that every actor needs.
#[derive(Clone)]
pub struct ActorConfig {
    /// Addresses of the node.
    pub node_ips: Vec<std::net::IpAddr>,
    /// Time.
    pub clock: Clock,
    /// How often volumes are refreshed.
    pub volume_refresh: Duration,
}

/// The actor. [`Actor::spawn`] starts it.
pub struct Actor {
    state: PodState,
    effects: Arc<dyn PodEffects>,
    config: ActorConfig,
    mailbox: mpsc::Receiver<Hint>,
    own: mpsc::WeakSender<Hint>,
    status: PodStatus,
    wanted: watch::Sender<Wanted>,
    view: watch::Sender<View>,
    stored: watch::Receiver<PodStatus>,
    saved: Option<String>,
    /// Deadlines of stops under way, by container.
    stops: HashMap<String, watch::Sender<Timestamp>>,
    /// Effects that a stop interrupts: postStart hooks, by container.
    hooks: HashMap<String, AbortHandle>,
    /// Probes, by container and kind.
    probes: HashMap<(String, ProbeKind), AbortHandle>,
    /// Instances being reaped.
    reaping: HashSet<String>,
    /// Ends of instances whose start has not been reported yet.
    early: HashMap<String, (i32, Timestamp)>,
}

impl Actor {
    /// Starts the actor of a pod. `state` is new, or read from disk and the runtime; `status` is the one written
    /// last. The task ends when nothing of the pod is left.
    pub fn spawn(
        state: PodState,
        status: PodStatus,
        effects: Arc<dyn PodEffects>,
        config: ActorConfig,
    ) -> (Mailbox, watch::Receiver<View>, tokio::task::JoinHandle<()>) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (wanted, wanted_receiver) = watch::channel(None);
        let (stored_sender, stored) = watch::channel(status.clone());
        tokio::spawn(status_writer::run(effects.clone(), wanted_receiver, status.clone(), stored_sender));
        let (view, view_receiver) = watch::channel(view(&state, &status));
        let actor = Self {
            state,
            view,
            effects,
            config,
            mailbox,
            own: sender.downgrade(),
            status,
            wanted,
            stored,
            saved: None,
            stops: HashMap::new(),
            hooks: HashMap::new(),
            probes: HashMap::new(),
            reaping: HashSet::new(),
            early: HashMap::new(),
        };
        (sender, view_receiver, tokio::spawn(actor.run()))
    }

    async fn run(mut self) {
        self.resume();
        let mut refresh = tokio::time::interval(self.config.volume_refresh);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        refresh.reset();
        loop {
            let now = (self.config.clock)();
            let decision = decide(&self.state, now);
            self.save();
            for action in decision.actions {
                if action == Action::Forget {
                    return self.forget();
                }
                self.begin(action, now);
            }
            self.publish(now);
            let wait = decision.wake.map_or(Duration::from_secs(3600), |wake| {
                Duration::try_from(wake.duration_since(now)).unwrap_or(Duration::ZERO)
            });
            tokio::select! {
                hint = self.mailbox.recv() => match hint {
                    Some(hint) => self.take(hint),
                    // The node stops: containers stay.
                    None => return self.stop_probes(|_| true),
                },
                () = tokio::time::sleep(wait) => {}
                _ = refresh.tick() => self.take(Hint::RefreshVolumes),
            }
            while let Ok(hint) = self.mailbox.try_recv() {
                self.take(hint);
            }
        }
    }

    /// Probes of instances that a former agent started.
    fn resume(&mut self) {
        let running: Vec<String> =
            self.state.containers.iter().filter(|(_, slot)| slot.running().is_some()).map(|(n, _)| n.clone()).collect();
        for name in running {
            self.start_probes(&name, true);
        }
    }

    fn save(&mut self) {
        let record = PodRecord {
            pod: (*self.state.pod).clone(),
            start_time: self.state.start_time,
            rejection: self.state.rejection.clone(),
            termination: self.state.termination.clone(),
            sandbox: self.state.sandbox.done().cloned(),
        };
        // The status is saved elsewhere, and writes of it must not rewrite the record.
        let key = serde_json::to_string(&(
            &record.pod.spec,
            &record.pod.metadata.generation,
            &record.pod.metadata.deletion_timestamp,
            &record.termination,
            &record.sandbox,
            &record.rejection,
        ))
        .unwrap_or_default();
        if self.saved.as_ref() != Some(&key) {
            match self.effects.save(&record) {
                Ok(()) => self.saved = Some(key),
                Err(error) => tracing::error!(pod = name(&self.state.pod), error, "pod record not saved"),
            }
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let status = generate(&self.state, now, &self.config.node_ips, &self.status);
        if status != self.status {
            self.status = status.clone();
            self.wanted.send_replace(Some((self.state.pod.clone(), status)));
        }
        self.view.send_replace(view(&self.state, &self.status));
    }

    fn forget(&mut self) {
        self.stop_probes(|_| true);
        self.effects.forget(&self.state.pod);
    }

    /// Runs an effect and reports its end to this actor.
    fn perform(&self, effect: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let own = self.own.clone();
        let task = tokio::spawn(async move {
            let done = effect.await;
            if let Some(own) = own.upgrade() {
                // The actor may have ended meanwhile.
                let _ = own.send(Hint::Done(done)).await;
            }
        });
        task.abort_handle()
    }

    fn slot(&mut self, container: &str) -> &mut Slot {
        let init = init_containers(&self.state.pod).iter().any(|init| init.name == container);
        let slot = self.state.containers.entry(container.to_owned()).or_default();
        slot.init = init;
        slot
    }

    fn sandbox(&self) -> Sandbox {
        self.state.sandbox.done().cloned().unwrap_or_default()
    }

    fn begin(&mut self, action: Action, now: Timestamp) {
        let (pod, effects) = (self.state.pod.clone(), self.effects.clone());
        match action {
            Action::PrepareSandbox { attempt } => {
                self.state.sandbox.begin();
                self.perform(async move { Done::Sandbox(effects.prepare_sandbox(pod, attempt).await) });
            }
            Action::PrepareVolumes => {
                self.state.volumes.begin();
                self.perform(async move { Done::Volumes(effects.prepare_volumes(pod, None).await) });
            }
            Action::Start { container } => self.begin_start(container, now),
            Action::Stop { container, deadline, message } => self.begin_stop(container, deadline, &message),
            Action::Hasten { container, deadline } => {
                if let Some(stop) = self.stops.get(&container) {
                    stop.send_replace(deadline);
                }
                self.slot(&container).operation = Operation::Stopping { deadline };
            }
            Action::Fail(verdict) => {
                self.effects.event(&pod, None, Severity::Normal, &verdict.reason, &verdict.message);
                let grace = super::decide::pod_grace(&pod);
                self.terminate(Termination { since: now, grace, cause: Cause::Failed(verdict) });
            }
            Action::CleanUp => {
                self.stop_probes(|_| true);
                self.state.cleanup.begin();
                self.perform(async move { Done::CleanedUp(effects.clean_up(pod).await) });
            }
            Action::DeleteObject => self.begin_delete(now),
            Action::Forget => {}
        }
    }

    fn begin_start(&mut self, container: String, now: Timestamp) {
        let cap = self.state.crash_loop_max;
        let sandbox = self.sandbox();
        let slot = self.slot(&container);
        if let Some(exit) = slot.current.as_ref().and_then(Instance::exit).filter(|_| slot.failure.is_none()) {
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

    fn begin_stop(&mut self, container: String, deadline: Timestamp, message: &str) {
        self.effects.event(&self.state.pod, Some(&container), Severity::Normal, "Killing", message);
        if let Some(hook) = self.hooks.remove(&container) {
            hook.abort();
        }
        let (sender, receiver) = watch::channel(deadline);
        let Some(order) = self.stop_order(&container, receiver) else { return };
        self.stops.insert(container.clone(), sender);
        self.slot(&container).operation = Operation::Stopping { deadline };
        let own: Vec<_> = [ProbeKind::Liveness, ProbeKind::Startup].map(|kind| (container.clone(), kind)).into();
        self.stop_probes(|key| own.contains(key));
        let (effects, id) = (self.effects.clone(), order.id.clone());
        self.perform(async move {
            effects.stop(order).await;
            Done::Stopped(container, id)
        });
    }

    fn stop_order(&mut self, container: &str, deadline: watch::Receiver<Timestamp>) -> Option<StopOrder> {
        let (pod, sandbox) = (self.state.pod.clone(), self.sandbox());
        let id = self.slot(container).running()?.id.clone();
        Some(StopOrder { pod, container: container.to_owned(), id, deadline, sandbox })
    }

    /// The last status is written before the object goes, so that watchers see how the pod ended.
    fn begin_delete(&mut self, now: Timestamp) {
        self.publish(now);
        self.state.deletion.begin();
        let (pod, effects) = (self.state.pod.clone(), self.effects.clone());
        let (mut stored, last) = (self.stored.clone(), self.status.clone());
        self.perform(async move {
            const PATIENCE: Duration = Duration::from_secs(2);
            // A writer that found the object gone has ended: then there is nothing to wait for.
            let _ = tokio::time::timeout(PATIENCE, stored.wait_for(|status| *status == last)).await;
            Done::Deleted(effects.delete_object(pod).await)
        });
    }

    fn take(&mut self, hint: Hint) {
        let now = (self.config.clock)();
        match hint {
            Hint::Desired(pod) => self.take_desired(pod, now),
            Hint::Removed(last) => {
                let pod = last.unwrap_or_else(|| self.state.pod.clone());
                let grace = pod.metadata.deletion_grace_period_seconds;
                let grace = grace.map_or_else(|| super::decide::pod_grace(&pod), seconds);
                self.terminate(Termination { since: now, grace, cause: Cause::Removed });
            }
            Hint::TaskExited { id, code, at } => self.take_exit(id, code, at),
            Hint::RefreshVolumes => self.refresh_volumes(),
            Hint::Done(done) => self.take_done(done, now),
        }
    }

    fn take_desired(&mut self, pod: Arc<Pod>, now: Timestamp) {
        if pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.metadata.deletion_grace_period_seconds;
            let grace = grace.map_or_else(|| super::decide::pod_grace(&pod), seconds);
            self.terminate(Termination { since: now, grace, cause: Cause::Deleted });
        }
        self.state.pod = pod;
    }

    /// Terminating is absorbing; the deadline only comes nearer, and a deletion outranks a failure.
    fn terminate(&mut self, order: Termination) {
        let order = match self.state.termination.take() {
            None => order,
            Some(old) => {
                let sooner = order.deadline() < old.deadline();
                let cause = match (&old.cause, order.cause) {
                    (Cause::Failed(_), new) | (Cause::Deleted, new @ Cause::Removed) => new,
                    (_, _) => old.cause.clone(),
                };
                let (since, grace) = if sooner { (order.since, order.grace) } else { (old.since, old.grace) };
                Termination { since, grace, cause }
            }
        };
        self.state.termination = Some(order);
        self.stop_probes(|(_, kind)| *kind != ProbeKind::Readiness);
    }

    fn refresh_volumes(&mut self) {
        if self.state.termination.is_some() || self.state.volumes.done().is_none() || self.state.cleanup != Step::Absent {
            return;
        }
        let (pod, effects, sandbox) = (self.state.pod.clone(), self.effects.clone(), self.sandbox());
        self.perform(async move {
            if let Err(error) = effects.prepare_volumes(pod, Some(sandbox)).await {
                tracing::warn!(error, "volumes not refreshed");
            }
            Done::Volumes(Ok(()))
        });
    }

    fn take_exit(&mut self, id: String, code: i32, at: Timestamp) {
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

    fn take_done(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Sandbox(outcome) => {
                self.warn("FailedCreatePodSandBox", outcome.as_ref().err());
                self.state.sandbox.finish(outcome, now);
            }
            Done::Volumes(outcome) => {
                self.warn("FailedMount", outcome.as_ref().err());
                self.state.volumes.finish(outcome, now);
            }
            Done::Started(container, outcome) => self.take_started(container, outcome, now),
            Done::PostStarted(container, id, outcome) => self.take_post_started(&container, &id, outcome),
            Done::Stopped(container, id) => {
                let slot = self.slot(&container);
                // The end itself is reported by the runtime; a stop that gave up leaves it to be tried again.
                if slot.running().is_some_and(|instance| instance.id == id)
                    && !self.reaping.contains(&id)
                {
                    self.slot(&container).operation = Operation::Idle;
                }
            }
            Done::Reaped(container, id, exit) => self.take_reaped(&container, &id, exit),
            Done::Probed(container, id, kind, change, outcome) => {
                self.take_probed(&container, &id, kind, change, outcome);
            }
            Done::CleanedUp(outcome) => {
                self.warn("FailedKillPod", outcome.as_ref().err());
                self.state.cleanup.finish(outcome, now);
            }
            Done::Deleted(outcome) => self.state.deletion.finish(outcome, now),
        }
    }

    fn warn(&self, reason: &str, error: Option<&String>) {
        if let Some(error) = error {
            self.effects.event(&self.state.pod, None, Severity::Warning, reason, error);
        }
    }

    fn take_started(&mut self, name: String, outcome: Result<Instance, StartError>, now: Timestamp) {
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
            Err(StartError::Run { id, image, image_id, run_as, message }) => {
                let exit = Exit {
                    code: 128,
                    reason: "StartError".into(),
                    message: Some(message),
                    started_at: None,
                    finished_at: now,
                };
                let instance = Instance {
                    id,
                    attempt: slot.next_attempt,
                    image,
                    image_id,
                    spec_hash: spec_hash(container),
                    user: Some(run_as),
                    state: InstanceState::Exited(exit),
                };
                begin_instance(slot, instance);
            }
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

    fn begin_post_start(&mut self, container: &str) {
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

    fn take_post_started(&mut self, name: &str, id: &str, outcome: Result<(), String>) {
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

    fn take_reaped(&mut self, container: &str, id: &str, exit: Exit) {
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

    fn take_probed(&mut self, name: &str, id: &str, kind: ProbeKind, change: Option<Change>, outcome: Outcome) {
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
                let probe = if kind == ProbeKind::Startup { &spec.startup_probe } else { &spec.liveness_probe };
                let grace = probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds).map(seconds);
                let kind = kind.as_str().to_lowercase();
                let message = format!("Container {name} failed {kind} probe, will be restarted");
                self.slot(name).doomed = Some(Doom::Unhealthy { grace, message });
            }
            _ => {}
        }
    }

    /// Starts the probes that fit an instance's state: the startup probe, or after it the others.
    fn start_probes(&mut self, name: &str, resumed: bool) {
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

    fn start_probe(
        &mut self,
        name: &str,
        kind: ProbeKind,
        probe: k8s_openapi::api::core::v1::Probe,
        known: Option<bool>,
        resumed: bool,
    ) {
        let Some(id) = self.slot(name).running().map(|instance| instance.id.clone()) else { return };
        let timing = crate::probes::Timing::of(&probe);
        // After a restart of the agent probes are spread over a period, not all at once.
        let first = if resumed { spread(&id, timing.period) } else { timing.initial_delay };
        let order = super::effects::ProbeOrder {
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

    fn stop_probes(&mut self, which: impl Fn(&(String, ProbeKind)) -> bool) {
        self.probes.retain(|key, task| {
            let stop = which(key);
            if stop {
                task.abort();
            }
            !stop
        });
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

/// A wait between zero and `period` that differs from id to id.
fn spread(id: &str, period: Duration) -> Duration {
    let sum: u32 = id.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    period.mul_f64(f64::from(sum % 1000) / 1000.0)
}

fn view(state: &PodState, status: &PodStatus) -> View {
    let running = state.containers.iter().filter_map(|(name, slot)| Some((name.clone(), slot.running()?.id.clone())));
    let attempts = state.containers.iter().map(|(name, slot)| {
        let attempt = |instance: &Option<Instance>| instance.as_ref().map(|instance| instance.attempt);
        (name.clone(), (attempt(&slot.current), attempt(&slot.previous)))
    });
    View {
        pod: state.pod.clone(),
        status: status.clone(),
        running: running.collect(),
        attempts: attempts.collect(),
        ended: over(state) || state.cleanup != Step::Absent,
    }
}

/// Fresh state of a pod seen for the first time: its restart counts go on where the API has them.
pub fn fresh(pod: Arc<Pod>, now: Timestamp, crash_loop_max: Duration) -> PodState {
    let status = pod.status.as_ref();
    let start_time = status.and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
    let phase = status.and_then(|status| status.phase.as_deref());
    let known = status
        .into_iter()
        .flat_map(|status| [&status.init_container_statuses, &status.container_statuses])
        .flatten()
        .flatten()
        .filter(|known| known.container_id.is_some());
    let containers = known
        .map(|known| {
            let next_attempt = u32::try_from(known.restart_count).unwrap_or(0) + 1;
            (known.name.clone(), Slot { next_attempt, ..Slot::default() })
        })
        .collect();
    PodState {
        start_time,
        rejection: None,
        termination: None,
        sandbox: Step::Absent,
        volumes: Step::Absent,
        containers,
        cleanup: Step::Absent,
        deletion: Step::Absent,
        crash_loop_max,
        ended: matches!(phase, Some("Succeeded" | "Failed")),
        pod,
    }
}
