//! Selector grammar and matching, as tables.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use serde_json::json;

use super::*;

#[track_caller]
fn matches(selector: &str, labels: &[(&str, &'static str)], expected: bool) {
    let labels: HashMap<&str, &'static str> = labels.iter().copied().collect();
    let selector = LabelSelector::parse(selector).unwrap();
    assert_eq!(selector.matches(|key| labels.get(key).copied()), expected, "{selector} on {labels:?}");
}

#[test]
fn label_selectors_match_as_upstream_does() {
    for (selector, labels, expected) in [
        ("", &[][..], true),
        ("a=b", &[("a", "b")], true),
        ("a==b", &[("a", "c")], false),
        ("a!=b", &[], true),
        ("a!=b", &[("a", "b")], false),
        ("a in (b, c)", &[("a", "c")], true),
        ("a in (b,c)", &[], false),
        ("a notin (b,c)", &[], true),
        ("a notin (b)", &[("a", "b")], false),
        ("a", &[("a", "")], true),
        ("!a", &[("a", "")], false),
        ("! a", &[], true),
        ("a=,b", &[("a", ""), ("b", "x")], true),
        ("a>3", &[("a", "4")], true),
        ("a<3", &[("a", "x")], false),
        ("in in (in,notin)", &[("in", "notin")], true),
        ("app.kubernetes.io/name=web,tier notin (a)", &[("app.kubernetes.io/name", "web")], true),
        ("x in ()", &[("x", "")], true),
        ("x in (a,,b)", &[("x", "")], true),
    ] {
        matches(selector, labels, expected);
    }
}

#[test]
fn bad_label_selectors_get_upstreams_words() {
    for (selector, message) in [
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        let error = LabelSelector::parse(selector).unwrap_err();
        assert_eq!((error.code(), error.message.as_str()), (400, message), "{selector}");
    }
    let error = LabelSelector::parse("a=b/c").unwrap_err().message;
    assert!(
        error.starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"b/c\": a valid label must be"
        ),
        "{error}"
    );
}

#[test]
fn label_selectors_print_canonically() {
    for (text, printed) in [("b=1,a in (y,x)", "a in (x,y),b=1"), ("!a, b", "!a,b"), ("a!=1", "a!=1")] {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), printed);
    }
}

#[test]
fn selector_objects() {
    let selects = |selector: Value, labels: Value| {
        LabelSelector::from_object(Some(&selector)).unwrap().matches_map(Some(&labels))
    };
    assert!(selects(json!({}), json!({})));
    assert!(selects(json!({"matchLabels": {"a": "b"}}), json!({"a": "b", "c": "d"})));
    assert!(!selects(
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]}),
        json!({"a": "b", "c": "d"})
    ));
    assert!(selects(
        json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "b"]}]}),
        json!({"a": "b"})
    ));
    assert!(!LabelSelector::from_object(None).unwrap().matches_map(Some(&json!({}))));
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    assert_eq!(
        LabelSelector::from_object(Some(&wrong)).unwrap_err().to_string(),
        "matchExpressions[0].operator: Invalid value: \"Near\": \"Near\" is not a valid label selector operator"
    );
}

#[test]
fn exact_values_are_found_for_triggers() {
    let selector = LabelSelector::parse("a=b,c in (d),e in (f,g),h!=i").unwrap();
    let found: Vec<_> = ["a", "c", "e", "h", "z"].map(|key| selector.exact(key)).into();
    assert_eq!(found, [Some("b"), Some("d"), None, None, None]);
    let fields = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
    assert_eq!((fields.exact("spec.nodeName"), fields.exact("status.phase")), (Some("n1"), None));
}

#[test]
fn field_selectors() {
    let selects = |selector: &str| {
        FieldSelector::parse(selector).unwrap().matches(|field| (field == "metadata.name").then_some("a,b"))
    };
    assert!(selects(""));
    assert!(selects(r"metadata.name=a\,b"));
    assert!(!selects(r"metadata.name!=a\,b"));
    assert!(selects("spec.nodeName="));
    assert!(!selects("spec.nodeName=x"));
    assert_eq!(
        FieldSelector::parse("abc").unwrap_err().message,
        "invalid selector: 'abc'; can't understand 'abc'"
    );
    assert_eq!(FieldSelector::parse(r"a=b\,c").unwrap().to_string(), r"a=b\,c");
}

#[test]
fn unknown_fields_are_refused_by_resource() {
    let pods = crate::registry::lookup("", "v1", "pods").unwrap();
    let check = |text: &str| FieldSelector::parse(text).unwrap().check(pods).map_err(|e| e.message);
    assert_eq!(check("metadata.name=a,spec.nodeName=b"), Ok(()));
    assert_eq!(check("spec.colour=red"), Err("field label not supported: spec.colour".into()));
    let configmaps = crate::registry::lookup("", "v1", "configmaps").unwrap();
    assert_eq!(
        FieldSelector::parse("data=x").unwrap().check(configmaps).unwrap_err().message,
        "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
}
