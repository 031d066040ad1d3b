//! How many pods each ReplicaSet of a Deployment may have: rolling updates within maxSurge and maxUnavailable, and
//! proportional scaling in the middle of a rollout. Sizes only; patches are made by the parent module.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Rollout, available, fenceposts, is_rolling, size};

/// `spec.replicas` of the Deployment when the ReplicaSet was sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus the surge allowed then.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A ReplicaSet and the size it should have.
#[derive(Clone, Debug)]
pub struct Resize {
    /// The ReplicaSet as seen.
    pub set: Arc<ReplicaSet>,
    /// Its new `spec.replicas`.
    pub size: i32,
}

impl Resize {
    /// `set` should have `size` pods.
    pub fn to(set: &Arc<ReplicaSet>, size: i32) -> Self {
        Self { set: set.clone(), size }
    }
}

/// The annotations that remember for which Deployment size a ReplicaSet was sized.
pub fn size_annotations(rollout: &Rollout<'_>) -> BTreeMap<String, String> {
    let (surge, _) = fenceposts(rollout.spec);
    let wanted = rollout.wanted();
    BTreeMap::from([(DESIRED.to_owned(), wanted.to_string()), (MAX.to_owned(), (wanted + surge).to_string())])
}

fn annotated(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// Whether `spec.replicas` of the Deployment changed since its ReplicaSets were sized. With `Recreate` several active ReplicaSets
/// cannot share pods, so the rollout goes on first.
pub fn size_changed(rollout: &Rollout<'_>) -> bool {
    let active: Vec<_> = rollout.all().filter(|it| size(it) > 0).collect();
    let can_share = is_rolling(rollout.spec) || active.len() == 1;
    can_share
        && active.iter().filter_map(|it| annotated(it, DESIRED)).any(|desired| desired != rollout.wanted())
}

/// The size that a new ReplicaSet of `current` pods may have now.
pub fn new_size(rollout: &Rollout<'_>, current: i32) -> i32 {
    let wanted = rollout.wanted();
    if !is_rolling(rollout.spec) {
        return wanted;
    }
    let (surge, _) = fenceposts(rollout.spec);
    let pods: i32 = rollout.all().map(|it| size(it)).sum();
    let room = wanted + surge - pods;
    if room <= 0 { current } else { current + room.min(wanted - current) }
}

/// The next step of a rolling update: first the new ReplicaSet grows, then old ones shrink.
pub fn rolling(rollout: &Rollout<'_>, new: &Arc<ReplicaSet>) -> Vec<Resize> {
    let current = size(new);
    let target = if current > rollout.wanted() { rollout.wanted() } else { new_size(rollout, current) };
    if target != current { vec![Resize::to(new, target)] } else { shrink_old(rollout, new) }
}

fn shrink_old(rollout: &Rollout<'_>, new: &ReplicaSet) -> Vec<Resize> {
    let (_, unavailable) = fenceposts(rollout.spec);
    let floor = rollout.wanted() - unavailable;
    let pods: i32 = rollout.all().map(|it| size(it)).sum();
    let spare = pods - floor - (size(new) - available(new)).max(0);
    let mut sizes: Vec<i32> = rollout.old.iter().map(|it| size(it)).collect();
    if spare <= 0 || sizes.iter().all(|it| *it == 0) {
        return Vec::new();
    }
    // Pods that serve nobody go first: they cost no availability.
    let mut left = spare;
    for (set, current) in rollout.old.iter().zip(&mut sizes) {
        let sick = (*current - available(set)).clamp(0, left);
        *current -= sick;
        left -= sick;
    }
    // Then healthy ones, as far as the floor of available pods allows.
    let mut healthy_spare = (rollout.all().map(|it| available(it)).sum::<i32>() - floor).min(left);
    for current in &mut sizes {
        let gone = (*current).min(healthy_spare.max(0));
        *current -= gone;
        healthy_spare -= gone;
    }
    let changed = rollout.old.iter().zip(sizes).filter(|(set, target)| size(set) != *target);
    changed.map(|(set, target)| Resize::to(set, target)).collect()
}

/// Sizes after `spec.replicas` changed, or while paused: the only active ReplicaSet takes it all; a finished rollout drops its
/// leftovers; a rollout under way shares the difference in proportion.
pub fn proportionally(rollout: &Rollout<'_>) -> Vec<Resize> {
    let active: Vec<&Arc<ReplicaSet>> = rollout.all().filter(|it| size(it) > 0).collect();
    let only = match active.as_slice() {
        [] => rollout.new.as_ref().or_else(|| rollout.old.last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        return settle(rollout, vec![Resize::to(only, rollout.wanted())]);
    }
    if let Some(new) = rollout.new.as_ref().filter(|it| is_saturated(rollout, it)) {
        let leftovers = rollout.old.iter().filter(|it| size(it) > 0).map(|it| Resize::to(it, 0)).collect();
        return settle(rollout, [leftovers, vec![Resize::to(new, size(new))]].concat());
    }
    if is_rolling(rollout.spec) { settle(rollout, shares(rollout, active)) } else { Vec::new() }
}

fn settle(rollout: &Rollout<'_>, resizes: Vec<Resize>) -> Vec<Resize> {
    let (surge, _) = fenceposts(rollout.spec);
    let marks = (Some(rollout.wanted()), Some(rollout.wanted() + surge));
    let settled = |it: &Resize| {
        size(&it.set) == it.size && (annotated(&it.set, DESIRED), annotated(&it.set, MAX)) == marks
    };
    resizes.into_iter().filter(|it| !settled(it)).collect()
}

fn is_saturated(rollout: &Rollout<'_>, new: &ReplicaSet) -> bool {
    let wanted = rollout.wanted();
    annotated(new, DESIRED) == Some(wanted) && size(new) == wanted && available(new) == wanted
}

fn shares(rollout: &Rollout<'_>, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Resize> {
    let (surge, _) = fenceposts(rollout.spec);
    let wanted = rollout.wanted();
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let to_add = allowed - active.iter().map(|it| size(it)).sum::<i32>();
    // Largest first; among equals the newest takes growth first and the oldest takes loss first.
    active.sort_by(|a, b| {
        let by_age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
        size(b).cmp(&size(a)).then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut added = 0;
    let mut resizes: Vec<Resize> = Vec::new();
    for set in active {
        let part = proportion(rollout, set, to_add, added);
        added += part;
        resizes.push(Resize::to(set, size(set) + part));
    }
    if let Some(largest) = resizes.first_mut() {
        largest.size = (largest.size + to_add - added).max(0);
    }
    resizes
}

fn proportion(rollout: &Rollout<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if size(set) == 0 || left == 0 {
        return 0;
    }
    let (surge, _) = fenceposts(rollout.spec);
    let wanted = rollout.wanted();
    let before = annotated(set, MAX)
        .filter(|it| *it > 0)
        .or_else(|| rollout.deployment.status.as_ref()?.replicas)
        .filter(|it| *it > 0)
        .unwrap_or_else(|| size(set));
    let fraction = if wanted == 0 {
        -size(set)
    } else {
        let scaled = f64::from(size(set)) * f64::from(wanted + surge) / f64::from(before);
        scaled.round() as i32 - size(set)
    };
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}
