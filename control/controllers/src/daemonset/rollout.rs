//! Replaces pods of former templates, node by node, within maxUnavailable, or maxSurge where pods may overlap.
//! Only called when every node has the pods it needs otherwise.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Fleet, create, delete};
use crate::deployment::share;
use crate::plan::Action;
use crate::pod;

/// How many nodes may be without an available pod, and how many may have two.
pub fn limits(fleet: &Fleet<'_>) -> (usize, usize) {
    let total =
        i32::try_from(fleet.nodes.iter().filter(|(_, it)| it.should_start).count()).unwrap_or(i32::MAX);
    let rolling = fleet.spec.update_strategy.as_ref().and_then(|it| it.rolling_update.as_ref());
    let count = |value: i32| usize::try_from(value).unwrap_or(0);
    let surge = rolling.and_then(|it| it.max_surge.as_ref()).map_or(0, |it| share(Some(it), total, true));
    let unavailable =
        rolling.and_then(|it| it.max_unavailable.as_ref()).map_or(1, |it| share(Some(it), total, true));
    match (count(unavailable), count(surge)) {
        (0, 0) => (1, 0),
        limits => limits,
    }
}

/// The next replacements.
pub fn replace(fleet: &Fleet<'_>) -> Vec<Action> {
    let strategy = fleet.spec.update_strategy.as_ref().and_then(|it| it.type_.as_deref());
    if strategy == Some("OnDelete") {
        return Vec::new();
    }
    match limits(fleet) {
        (unavailable, 0) => by_deletion(fleet, unavailable),
        (_, surge) => by_surge(fleet, surge),
    }
}

/// The pods of a node that are not leaving: the current one and the old one.
fn pair<'a>(fleet: &Fleet<'_>, pods: &'a [Arc<Pod>]) -> (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>) {
    let mut living = pods.iter().filter(|it| !pod::is_terminating(it));
    let current = living.clone().find(|it| fleet.is_current(it));
    (current, living.find(|it| !fleet.is_current(it)))
}

/// Old pods that serve nobody go at once, others as far as the budget of unavailable nodes allows.
fn by_deletion(fleet: &Fleet<'_>, budget: usize) -> Vec<Action> {
    let mut unavailable = 0;
    let (mut sick, mut healthy) = (Vec::new(), Vec::new());
    for (node, _) in fleet.nodes.iter().filter(|(_, it)| it.should_start) {
        match pair(fleet, fleet.on(node)) {
            (Some(current), _) => unavailable += usize::from(!fleet.is_available(current)),
            (None, Some(old)) if fleet.is_available(old) => healthy.push(old),
            (None, Some(old)) => {
                unavailable += 1;
                sick.push(old);
            }
            (None, None) => unavailable += 1,
        }
    }
    sick.extend(healthy.into_iter().take(budget.saturating_sub(unavailable)));
    if sick.is_empty() { Vec::new() } else { vec![delete(fleet, &sick)] }
}

/// A new pod comes beside the old one, which goes when the new one is available.
fn by_surge(fleet: &Fleet<'_>, budget: usize) -> Vec<Action> {
    let mut surging = 0;
    let (mut done, mut waiting, mut urgent) = (Vec::new(), Vec::new(), Vec::new());
    for (node, _) in fleet.nodes.iter().filter(|(_, it)| it.should_start) {
        match pair(fleet, fleet.on(node)) {
            (Some(current), Some(old)) if fleet.is_available(current) => done.push(old),
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if fleet.is_available(old) => waiting.push(create(fleet, node)),
            (None, Some(_)) => urgent.push(create(fleet, node)),
            _ => {}
        }
    }
    let mut creations = urgent;
    creations.extend(waiting.into_iter().take(budget.saturating_sub(surging)));
    let mut actions = Vec::new();
    if !done.is_empty() {
        actions.push(delete(fleet, &done));
    }
    if !creations.is_empty() {
        actions.push(Action::SlowStart(creations));
    }
    actions
}
