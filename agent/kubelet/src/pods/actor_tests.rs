//! A pod's course from first sight to the end, with effects in memory and a clock that jumps.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::actor::{Actor, ActorConfig, Hint, Mailbox, fresh};
use super::fake::{FakeEffects, clock};
use super::testing::pod;
use crate::probes::Outcome;

struct Course {
    effects: Arc<FakeEffects>,
    mailbox: Mailbox,
    log: UnboundedReceiver<String>,
    pod: Arc<Pod>,
}

impl Course {
    fn begin(spec: &Value) -> Self {
        let (sender, log) = unbounded_channel();
        let effects = FakeEffects::new(sender);
        let pod = pod(spec);
        let config = ActorConfig {
            node_ips: Vec::new(),
            clock: Arc::new(clock),
            volume_refresh: Duration::from_secs(100_000),
        };
        let state = fresh(pod.clone(), clock(), Duration::from_secs(300));
        let (mailbox, _, _) = Actor::spawn(state, PodStatus::default(), effects.clone(), config);
        *effects.mailbox.lock().unwrap() = Some(mailbox.clone());
        Self { effects, mailbox, log, pod }
    }

    /// What happens within `seconds`, without status writes.
    async fn within(&mut self, seconds: u64) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let mut lines = Vec::new();
        while let Ok(line) = self.log.try_recv() {
            if !line.starts_with("status") {
                lines.push(line);
            }
        }
        lines
    }

    async fn delete(&self, grace: i64) {
        let mut pod = (*self.pod).clone();
        pod.metadata.deletion_timestamp = Some(Time(clock()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.mailbox.send(Hint::Desired(Arc::new(pod))).await.unwrap();
    }

    fn phase(&self) -> String {
        self.effects.written.lock().unwrap().phase.clone().unwrap_or_default()
    }

    fn ready(&self) -> bool {
        let status = self.effects.written.lock().unwrap();
        status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

fn one() -> Value {
    json!({"containers": [{"name": "a"}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_goes_when_it_is_deleted() {
    let mut course = Course::begin(&one());
    assert_eq!(course.within(1).await, ["volumes", "sandbox", "start a-0"]);
    assert_eq!((course.phase().as_str(), course.ready()), ("Running", true));
    course.delete(30).await;
    assert_eq!(
        course.within(15).await,
        ["event Killing", "stop a-0", "reap a-0 0", "clean up", "delete object", "forget"]
    );
    assert_eq!(course.phase(), "Succeeded", "the last status is written before the object goes");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_hastens_a_stop() {
    let mut course = Course::begin(&one());
    course.within(1).await;
    course.delete(30).await;
    assert_eq!(course.within(1).await, ["event Killing", "stop a-0"]);
    course.delete(0).await;
    assert_eq!(course.within(1).await, ["reap a-0 137", "clean up", "delete object", "forget"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_waits_longer_each_time() {
    let mut course = Course::begin(&one());
    course.within(1).await;
    for (attempt, wait) in [(0, 0), (1, 10), (2, 20), (3, 40)] {
        course.effects.exit(&format!("a-{attempt}"), 1).await;
        if wait > 0 {
            let expected = [format!("reap a-{attempt} 1"), "event BackOff".into()];
            assert_eq!(course.within(wait - 1).await, expected);
            let status = course.effects.written.lock().unwrap().clone();
            let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
            assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        }
        let restart = format!("start a-{}", attempt + 1);
        assert_eq!(course.within(2).await.last(), Some(&restart));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_restarts_the_container() {
    let spec = json!({"containers": [{"name": "a",
        "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 2}}]});
    let mut course = Course::begin(&spec);
    course.within(2).await;
    course.effects.probes.lock().unwrap().insert("a".into(), Outcome::Failure("no".into()));
    let lines = course.within(14).await;
    course.effects.probes.lock().unwrap().clear();
    assert_eq!(
        lines.iter().filter(|line| *line != "event Unhealthy").collect::<Vec<_>>()[..4],
        ["event Killing", "stop a-0", "reap a-0 0", "start a-1"]
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_probe_and_startup_comes_first() {
    let spec = json!({"containers": [{"name": "a",
        "startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 5, "failureThreshold": 10},
        "readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 1}}]});
    let mut course = Course::begin(&spec);
    course.effects.probes.lock().unwrap().insert("a".into(), Outcome::Failure("no".into()));
    course.within(12).await;
    assert!(!course.ready());
    course.effects.probes.lock().unwrap().clear();
    course.within(7).await;
    assert!(course.ready());
    course.effects.probes.lock().unwrap().insert("a".into(), Outcome::Failure("no".into()));
    let lines = course.within(2).await;
    assert!(!course.ready());
    assert!(lines.iter().all(|line| line == "event Unhealthy"), "{lines:?}: nothing is restarted");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_cleaned_up_and_stays() {
    let mut course = Course::begin(&json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    course.within(1).await;
    course.effects.exit("a-0", 0).await;
    assert_eq!(course.within(60).await, ["reap a-0 0", "clean up"]);
    assert_eq!(course.phase(), "Succeeded");
    course.delete(30).await;
    assert_eq!(course.within(5).await, ["delete object", "forget"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_left_the_api_is_ended_without_a_delete() {
    let mut course = Course::begin(&one());
    course.within(1).await;
    course.mailbox.send(Hint::Removed(None)).await.unwrap();
    assert_eq!(course.within(15).await, ["event Killing", "stop a-0", "reap a-0 0", "clean up", "forget"]);
}
