//! Empties a namespace that is being deleted, then lets it go (upstream: pkg/controller/namespace). The rounds of deleting and
//! looking are made by `beeline-control` (`driving::namespaces`); here is decided in which order, and what a look means.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{self, Action, Plan, Target};
use crate::table::{Change, Key};
use crate::view::{Resource, View, Watch};

/// What wakes the emptying of namespaces.
pub const WATCHES: &[Watch] = &[Watch::Namespace(leaving)];

fn leaving(_: &View, change: &Change<Namespace>) -> Vec<Key> {
    let leaves = change.new.as_ref().filter(|it| it.metadata.deletion_timestamp.is_some());
    leaves.map(|it| Key::of(&it.metadata)).into_iter().collect()
}

/// The finalizer that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// What is left of one resource in the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Objects that still exist.
    pub count: usize,
    /// Finalizers that hold them, and how many each holds.
    pub finalizers: BTreeMap<String, usize>,
}

/// The result of one round over a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Why some API groups could not be discovered.
    pub undiscovered: Option<String>,
    /// Why some collections could not be deleted.
    pub undeleted: Option<String>,
    /// What is left, by resource (`pods`, `deployments.apps`).
    pub remaining: BTreeMap<String, Remaining>,
}

impl Survey {
    /// Whether nothing is left and nothing is unknown.
    pub fn is_clear(&self) -> bool {
        self.undiscovered.is_none()
            && self.undeleted.is_none()
            && self.remaining.values().all(|it| it.count == 0)
    }
}

/// Rounds in which to delete: pods first, so that what they use outlives them, then everything else.
pub fn rounds(resources: Vec<Resource>) -> [Vec<Resource>; 2] {
    let (pods, others) = resources.into_iter().partition(|it| it.group.is_empty() && it.plural == "pods");
    [pods, others]
}

/// The name of a resource in conditions.
pub fn resource_name(resource: &Resource) -> String {
    // Upstream writes core resources with a dot at their end.
    format!("{}.{}", resource.plural, resource.group)
}

/// Decides about `namespace` after a round.
pub fn plan(namespace: &Namespace, survey: &Survey, now: Timestamp) -> Plan {
    let mut updated = namespace.clone();
    if survey.is_clear() {
        let finalizers = updated.spec.get_or_insert_default().finalizers.get_or_insert_default();
        finalizers.retain(|it| it != FINALIZER);
        return Plan::of(vec![Action::ReplaceSubresource {
            target: Target::of(namespace),
            subresource: "finalize",
            object: plan::to_value(&updated),
        }]);
    }
    let old = namespace.status.clone().unwrap_or_default();
    let kept = |condition: NamespaceCondition| {
        let known = old
            .conditions
            .iter()
            .flatten()
            .find(|it| it.type_ == condition.type_ && it.status == condition.status);
        let since = known.and_then(|it| it.last_transition_time.clone());
        NamespaceCondition { last_transition_time: since.or(condition.last_transition_time), ..condition }
    };
    let conditions = conditions(survey, now).into_iter().map(kept).collect();
    updated.status =
        Some(NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) });
    let status = (updated != *namespace).then(|| plan::replace_status(&updated));
    Plan { status, ..Plan::default() }
}

fn conditions(survey: &Survey, now: Timestamp) -> Vec<NamespaceCondition> {
    let condition = |name: &str, bad: Option<(&str, String)>, reason: &str, message: &str| {
        let is_bad = bad.is_some();
        let (reason, message) = bad.unwrap_or((reason, message.to_owned()));
        NamespaceCondition {
            type_: name.into(),
            status: if is_bad { "True" } else { "False" }.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }
    };
    let left: Vec<String> = survey
        .remaining
        .iter()
        .filter(|(_, it)| it.count > 0)
        .map(|(name, it)| format!("{name} has {} resource instances", it.count))
        .collect();
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, count) in survey.remaining.values().flat_map(|it| &it.finalizers) {
        *holders.entry(name).or_default() += count;
    }
    let held: Vec<String> =
        holders.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let some =
        |parts: Vec<String>, text: &str| (!parts.is_empty()).then(|| format!("{text}: {}", parts.join(", ")));
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            survey.undiscovered.clone().map(|it| ("DiscoveryFailed", it)),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        condition(
            "NamespaceDeletionContentFailure",
            survey.undeleted.clone().map(|it| ("ContentDeletionFailed", it)),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        condition(
            "NamespaceContentRemaining",
            some(left, "Some resources are remaining").map(|it| ("SomeResourcesRemain", it)),
            "ContentRemoved",
            "All content successfully removed",
        ),
        condition(
            "NamespaceFinalizersRemaining",
            some(held, "Some content in the namespace has finalizers remaining")
                .map(|it| ("SomeFinalizersRemain", it)),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::NamespaceSpec;

    use super::*;
    use crate::fake::{NOW, describe};

    fn namespace() -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("team".into());
        namespace.spec = Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.into()]) });
        namespace
    }

    #[test]
    fn an_empty_namespace_is_let_go() {
        let plan = plan(&namespace(), &Survey::default(), NOW);
        let [Action::ReplaceSubresource { subresource, object, .. }] = plan.actions.as_slice() else {
            panic!("{plan:?}")
        };
        assert_eq!((*subresource, &object["spec"]["finalizers"]), ("finalize", &serde_json::json!([])));
    }

    #[test]
    fn what_is_left_is_named() {
        let held = Remaining { count: 2, finalizers: BTreeMap::from([("example.com/hold".into(), 1)]) };
        let survey = Survey { remaining: BTreeMap::from([("pods.".into(), held)]), ..Survey::default() };
        let text = describe(&plan(&namespace(), &survey, NOW));
        assert!(text.contains("NamespaceContentRemaining=True/SomeResourcesRemain"), "{text}");
        let messages: Vec<String> = conditions(&survey, NOW)
            .into_iter()
            .filter(|it| it.status == "True")
            .filter_map(|it| it.message)
            .collect();
        assert_eq!(
            messages,
            [
                "Some resources are remaining: pods. has 2 resource instances",
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        );
    }
}
