//! What a Deployment reports: counters, and the conditions Available, Progressing and ReplicaFailure with upstream's reasons
//! and messages, on which `kubectl rollout status` and `wait` rely.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Rollout, available, fenceposts, revision, size};
use crate::plan::{self, Context, Plan};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// How much of the status a plan tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Counters and availability: while paused, scaling or leaving.
    Counts,
    /// Also how the rollout progresses.
    Progress,
    /// The same, and that the new ReplicaSet's name is taken, so that the next plan tries another one.
    Collision,
}

/// Adds the status to `plan`, and when to look at the progress deadline again.
pub fn report(rollout: &Rollout<'_>, mut plan: Plan, detail: Detail, context: &Context<'_>) -> Plan {
    let mut status = counts(rollout);
    if detail == Detail::Collision {
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    }
    pause(rollout, &mut status);
    if detail != Detail::Counts {
        progress(rollout, &mut status, &plan, context);
        replica_failure(rollout, &mut status);
    }
    if let Some(delay) = deadline(rollout, &status) {
        plan.requeue_after(delay);
    }
    let mut updated = Deployment::clone(rollout.deployment);
    if let Some(number) = revision::current(rollout).or_else(|| will_create(&plan)) {
        updated
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(revision::REVISION.into(), number.to_string());
    }
    updated.status = Some(status);
    if updated != *rollout.deployment {
        plan.status = Some(plan::replace_status(&updated));
    }
    plan
}

/// The revision of the ReplicaSet that `plan` creates.
fn will_create(plan: &Plan) -> Option<i64> {
    plan.actions.iter().find_map(|it| match it {
        plan::Action::Create { object, .. } => {
            object["metadata"]["annotations"][revision::REVISION].as_str()?.parse().ok()
        }
        _ => None,
    })
}

fn sum(rollout: &Rollout<'_>, count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    rollout.all().map(|it| count(it)).sum()
}

fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// Counters and the Available condition; other conditions stay as they are.
pub fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let actual = |it: &ReplicaSet| it.status.as_ref().map_or(0, |it| it.replicas);
    let available = sum(rollout, available);
    let mut status = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: positive(sum(rollout, actual)),
        updated_replicas: positive(rollout.new.as_deref().map_or(0, actual)),
        ready_replicas: positive(sum(rollout, |it| {
            it.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0)
        })),
        available_replicas: positive(available),
        unavailable_replicas: positive(sum(rollout, size) - available),
        terminating_replicas: Some(sum(rollout, |it| {
            it.status.as_ref().and_then(|it| it.terminating_replicas).unwrap_or(0)
        })),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (_, unavailable) = fenceposts(rollout.spec);
    let (value, reason, text) = if available >= rollout.wanted() - unavailable {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, rollout, AVAILABLE, value, reason, text.to_owned());
    status
}

/// Whether the rollout has reached its end.
pub fn is_complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let wanted = positive(rollout.wanted());
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= rollout.deployment.metadata.generation
}

fn find<'a>(status: &'a DeploymentStatus, name: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|it| it.type_ == name)
}

/// Sets a condition unless status and reason are those it has; the transition time moves with the status alone.
fn set(
    status: &mut DeploymentStatus,
    rollout: &Rollout<'_>,
    name: &str,
    value: &str,
    reason: &str,
    message: String,
) {
    let old = find(status, name);
    if old.is_some_and(|it| it.status == value && it.reason.as_deref() == Some(reason)) {
        return;
    }
    let now = Some(Time(rollout.now));
    let kept = old.filter(|it| it.status == value).and_then(|it| it.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: name.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: kept.or_else(|| now.clone()),
        last_update_time: now,
    };
    remove(status, name);
    status.conditions.get_or_insert_default().push(condition);
}

fn remove(status: &mut DeploymentStatus, name: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|it| it.type_ != name);
    }
}

fn has_deadline(rollout: &Rollout<'_>) -> bool {
    rollout.spec.progress_deadline_seconds.is_some_and(|it| it != i32::MAX)
}

/// While paused, the progress deadline does not run; the condition says so.
fn pause(rollout: &Rollout<'_>, status: &mut DeploymentStatus) {
    let reason = find(status, PROGRESSING).and_then(|it| it.reason.as_deref());
    if !has_deadline(rollout) || reason == Some(TIMED_OUT) {
        return;
    }
    let (was, is) = (reason == Some(PAUSED), rollout.spec.paused == Some(true));
    if is && !was {
        set(status, rollout, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into());
    } else if was && !is {
        set(status, rollout, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into());
    }
}

fn progress(rollout: &Rollout<'_>, status: &mut DeploymentStatus, plan: &Plan, context: &Context<'_>) {
    if !has_deadline(rollout) {
        remove(status, PROGRESSING);
        return;
    }
    if let Some((name, error)) =
        rollout.new.is_none().then(|| revision::new_name(rollout).0).zip(context.failure)
    {
        let text = format!("Failed to create new replica set \"{name}\": {error}");
        return set(status, rollout, PROGRESSING, "False", "ReplicaSetCreateError", text);
    }
    if rollout.new.is_none() && will_create(plan).is_some() {
        let text = format!("Created new replica set \"{}\"", revision::new_name(rollout).0);
        return set(status, rollout, PROGRESSING, "True", "NewReplicaSetCreated", text);
    }
    let subject = match rollout.new.as_ref().and_then(|it| it.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!("Deployment \"{}\"", rollout.name()),
    };
    if rollout.new.is_some() && find(status, PROGRESSING).is_none() {
        let text = format!("Found new replica set {}", subject.trim_start_matches("ReplicaSet "));
        set(status, rollout, PROGRESSING, "True", "FoundNewReplicaSet", text);
    }
    let known = find(status, PROGRESSING);
    if status.replicas == status.updated_replicas
        && known.is_some_and(|it| it.reason.as_deref() == Some(NEW_SET_AVAILABLE))
    {
        return;
    }
    if is_complete(rollout, status) {
        set(
            status,
            rollout,
            PROGRESSING,
            "True",
            NEW_SET_AVAILABLE,
            format!("{subject} has successfully progressed."),
        );
    } else if moves(rollout, status) {
        // Each step forward restarts the deadline, so the condition is renewed even when its text stays.
        let since = known.filter(|it| it.status == "True").and_then(|it| it.last_transition_time.clone());
        remove(status, PROGRESSING);
        set(status, rollout, PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
        if let (Some(since), Some(last)) = (since, status.conditions.as_mut().and_then(|it| it.last_mut())) {
            last.last_transition_time = Some(since);
        }
    } else if is_overdue(rollout, status) {
        set(
            status,
            rollout,
            PROGRESSING,
            "False",
            TIMED_OUT,
            format!("{subject} has timed out progressing."),
        );
    }
}

/// Whether anything got better since the last report.
fn moves(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let outdated = |it: &DeploymentStatus| it.replicas.unwrap_or(0) - it.updated_replicas.unwrap_or(0);
    status.updated_replicas > old.updated_replicas
        || outdated(status) < outdated(&old)
        || status.ready_replicas > old.ready_replicas
        || status.available_replicas > old.available_replicas
}

/// Seconds until the deadline of the current progress, negative when it is over.
fn seconds_left(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<i64> {
    let limit = rollout.spec.progress_deadline_seconds.filter(|_| has_deadline(rollout))?;
    let condition = find(status, PROGRESSING)?;
    let since = condition.last_update_time.as_ref()?.0;
    Some(i64::from(limit) - rollout.now.duration_since(since).as_secs())
}

fn is_overdue(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    match find(status, PROGRESSING).and_then(|it| it.reason.as_deref()) {
        Some(TIMED_OUT) => true,
        Some(NEW_SET_AVAILABLE | PAUSED) | None => false,
        Some(_) => seconds_left(rollout, status).is_some_and(|it| it < 0),
    }
}

fn deadline(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let reason = find(status, PROGRESSING)?.reason.as_deref()?;
    if matches!(reason, TIMED_OUT | NEW_SET_AVAILABLE | PAUSED) || is_complete(rollout, status) {
        return None;
    }
    let left = seconds_left(rollout, status)?;
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}

/// Passes on why a ReplicaSet cannot have its pods: the new one's reason if it has one, else any.
fn replica_failure(rollout: &Rollout<'_>, status: &mut DeploymentStatus) {
    let failure = rollout.new.iter().chain(&rollout.old).find_map(|set| {
        set.status
            .as_ref()?
            .conditions
            .as_ref()?
            .iter()
            .find(|it| it.type_ == REPLICA_FAILURE && it.status == "True")
    });
    match failure {
        Some(it) => {
            let (reason, message) =
                (it.reason.clone().unwrap_or_default(), it.message.clone().unwrap_or_default());
            set(status, rollout, REPLICA_FAILURE, "True", &reason, message);
        }
        None => remove(status, REPLICA_FAILURE),
    }
}
