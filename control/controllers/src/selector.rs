//! Label selectors in their typed form. The text form of query strings is the API server's.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` names nothing, which means "everything" to the API and "a mistake" to a controller.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether `selector` matches `labels`. An empty selector matches everything; an unknown operator nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let empty = Labels::new();
    let labels = labels.unwrap_or(&empty);
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|it| requirement(it, labels))
}

fn requirement(wanted: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let listed = |value: &String| wanted.values.iter().flatten().any(|it| it == value);
    match (wanted.operator.as_str(), labels.get(&wanted.key)) {
        ("In", Some(value)) => listed(value),
        ("NotIn", Some(value)) => !listed(value),
        ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
        _ => false,
    }
}

/// Whether a plain map of labels, as Services have it, is contained in `labels`. An empty map selects nothing.
pub fn selects(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    match (selector, labels) {
        (Some(selector), Some(labels)) => {
            !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split_whitespace()
            .filter_map(|it| it.split_once('='))
            .map(|(k, v)| (k.into(), v.into()))
            .collect()
    }

    #[test]
    fn operators_treat_absent_labels_as_upstream_does() {
        for (operator, values, on, want) in [
            ("In", &["x", "y"][..], "a=x", true),
            ("In", &["x"], "a=z", false),
            ("In", &["x"], "", false),
            ("NotIn", &["x"], "a=z", true),
            ("NotIn", &["x"], "", true),
            ("NotIn", &["x"], "a=x", false),
            ("Exists", &[], "a=1", true),
            ("Exists", &[], "b=1", false),
            ("DoesNotExist", &[], "b=1", true),
            ("Near", &[], "a=1", false),
        ] {
            let selector = LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "a".into(),
                    operator: operator.into(),
                    values: Some(values.iter().map(ToString::to_string).collect()),
                }]),
                match_labels: None,
            };
            assert_eq!(matches(&selector, Some(&labels(on))), want, "{operator} {values:?} on {on:?}");
        }
    }

    #[test]
    fn an_empty_service_selector_selects_nothing() {
        assert!(!selects(Some(&Labels::new()), Some(&labels("a=1"))));
        assert!(selects(Some(&labels("a=1")), Some(&labels("a=1 b=2"))));
    }
}
