//! A pod's `nodeSelector` and node affinity: required terms rule nodes out, preferred ones add their weight.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::{Filter, Fit, Score, scale};
use crate::event::ClusterEvent;
use crate::snapshot::{NodeInfo, PodInfo};

/// The plugin.
pub struct NodeAffinity;

/// Whether `node` satisfies what `pod` requires of nodes.
pub fn required_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    if !spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|it| it.node_affinity.as_ref());
    match affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref()) {
        Some(required) => required.node_selector_terms.iter().any(|it| term_matches(it, node)),
        None => true,
    }
}

/// Whether all requirements of `term` hold. A term without any matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |it: &NodeSelectorRequirement| {
        node.metadata.labels.as_ref().and_then(|all| all.get(&it.key)).map(String::as_str)
    };
    let field = |it: &NodeSelectorRequirement| {
        if it.key == "metadata.name" { node.metadata.name.as_deref() } else { None }
    };
    labels.iter().all(|it| requirement_holds(it, label(it)))
        && fields.iter().all(|it| requirement_holds(it, field(it)))
}

fn requirement_holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|it| it == value);
    let number = |text: Option<&str>| text.and_then(|it| it.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match (wanted.operator.as_str(), value) {
        ("In", Some(value)) => listed(value),
        ("NotIn", Some(value)) => !listed(value),
        ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
        ("Gt", value) => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        ("Lt", value) => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn wakes(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdd, ClusterEvent::NodeLabel]
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Fit {
        match &node.node {
            Some(node) if required_matches(&pod.pod, node) => Fit::Yes,
            _ => Fit::never("node(s) didn't match Pod's node affinity/selector"),
        }
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let affinity = pod
            .pod
            .spec
            .as_ref()
            .and_then(|it| it.affinity.as_ref())
            .and_then(|it| it.node_affinity.as_ref());
        let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
        let Some(node) = &node.node else { return 0 };
        terms
            .into_iter()
            .flatten()
            .filter(|it| term_matches(&it.preference, node))
            .map(|it| i64::from(it.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_compare_as_upstream_does() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.labels =
            Some(BTreeMap::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]));
        for (key, operator, values, want) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "NotIn", &["a"], false),
            ("rack", "NotIn", &["a"], true),
            ("rack", "DoesNotExist", &[], true),
            ("zone", "Exists", &[], true),
            ("cores", "Gt", &["4"], true),
            ("cores", "Lt", &["4"], false),
            ("zone", "Gt", &["4"], false),
            ("zone", "Near", &["a"], false),
        ] {
            let requirement = NodeSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            };
            let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
            assert_eq!(term_matches(&term, &node), want, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn a_term_can_name_the_node_and_an_empty_term_matches_nothing() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        let by_name = |name: &str| NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![name.into()]),
            }]),
            match_expressions: None,
        };
        assert!(term_matches(&by_name("n1"), &node));
        assert!(!term_matches(&by_name("n2"), &node));
        assert!(!term_matches(&NodeSelectorTerm::default(), &node));
    }
}
