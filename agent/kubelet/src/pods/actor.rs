//! One pod's actor: takes hints, asks `decide`, begins effects. It owns the pod's state; nobody else changes it.

mod containers;
mod probing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::decide::{Action, decide, over, seconds};
use super::effects::{PodEffects, Severity, StartError};
use super::record::PodRecord;
use super::state::{
    Cause, Exit, Instance, Operation, PodState, Sandbox, Slot, Step, Termination, init_containers, name,
};
use super::status::{begun_backoffs, generate};
use super::status_writer::{self, Wanted};
use crate::probes::tracker::Change;
use crate::probes::{Outcome, ProbeKind};

/// Hints that wait for an actor before their senders do.
const MAILBOX: usize = 256;

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
        let running: Vec<String> = self
            .state
            .containers
            .iter()
            .filter(|(_, slot)| slot.running().is_some())
            .map(|(n, _)| n.clone())
            .collect();
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
            for (container, message) in begun_backoffs(&self.status, &status) {
                self.effects.event(&self.state.pod, Some(&container), Severity::Warning, "BackOff", &message);
            }
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
            Action::PrepareSandbox => {
                self.state.sandbox.begin();
                self.perform(async move { Done::Sandbox(effects.prepare_sandbox(pod).await) });
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
        if self.state.termination.is_some()
            || self.state.volumes.done().is_none()
            || self.state.cleanup != Step::Absent
        {
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
                if slot.running().is_some_and(|instance| instance.id == id) && !self.reaping.contains(&id) {
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
}

fn view(state: &PodState, status: &PodStatus) -> View {
    let running =
        state.containers.iter().filter_map(|(name, slot)| Some((name.clone(), slot.running()?.id.clone())));
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
