//! Events: core/v1 and events.k8s.io/v1 are two faces of one object.
//!
//! It is stored in core's form; `to_events` and `to_core` turn one face into the other. How long events live is the store's business.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{cell, field, metadata, names};
use crate::status::FieldError;
use crate::strategy::{Column, NameRule, Strategy};

/// Fields that the two faces name differently: core's, events.k8s.io's.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An event of core/v1 as events.k8s.io/v1 shows it.
#[must_use]
pub fn to_events(event: &Value) -> Value {
    rename(event, "events.k8s.io/v1", |key| {
        RENAMED.iter().find(|(core, _)| *core == key).map(|(_, events)| *events)
    })
}

/// An event of events.k8s.io/v1 as core/v1 shows it, and as it is stored.
#[must_use]
pub fn to_core(event: &Value) -> Value {
    rename(event, "v1", |key| RENAMED.iter().find(|(_, events)| *events == key).map(|(core, _)| *core))
}

fn rename(event: &Value, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let mut out: Map<String, Value> = event
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (name(key).unwrap_or(key).to_owned(), value.clone()))
        .collect();
    out.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(out)
}

fn core_view(event: &Value) -> Cow<'_, Value> {
    if field::text(event, "/apiVersion").starts_with("events.k8s.io/") {
        Cow::Owned(to_core(event))
    } else {
        Cow::Borrowed(event)
    }
}

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "Time since the event happened last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word."),
    Column::text("Object", "Object that it happened to."),
    Column::wide("Subobject", "Part of the object that it happened to."),
    Column::wide("Source", "Who reports it."),
    Column::text("Message", "What happened."),
    Column::wide("First Seen", "Time since the event happened first."),
    Column::wide("Count", "How often it happened."),
    Column { priority: 1, ..Column::NAME },
];

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let event = core_view(event);
    let first_of = |pointers: [&str; 2]| {
        pointers
            .into_iter()
            .map(|pointer| field::text(&event, pointer))
            .find(|text| !text.is_empty())
            .unwrap_or("")
    };
    let first = cell::since(first_of(["/firstTimestamp", "/eventTime"]), now);
    let mut last = match field::text(&event, "/lastTimestamp") {
        "" => first.clone(),
        last => cell::since(last, now),
    };
    let mut count = field::integer(&event, "/count").unwrap_or(0).max(1);
    if field::at(&event, "/series").is_some() {
        last = cell::since(field::text(&event, "/series/lastObservedTime"), now);
        count = field::integer(&event, "/series/count").unwrap_or(0);
    }
    let kind = field::text(&event, "/involvedObject/kind").to_lowercase();
    let target = match field::text(&event, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = first_of(["/source/component", "/reportingComponent"]);
    let source = match first_of(["/source/host", "/reportingInstance"]) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.into(),
        field::text(&event, "/type").into(),
        field::text(&event, "/reason").into(),
        target.into(),
        field::text(&event, "/involvedObject/fieldPath").into(),
        source.into(),
        field::text(&event, "/message").trim().into(),
        first.into(),
        count.into(),
        cell::name(&event),
    ]
}

const OBJECT_KEYS: [&str; 7] =
    ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];

fn reported_by(event: &Value) -> String {
    field::text(event, "/reportingComponent").to_owned()
}

fn object_fields(event: &Value, names: [&'static str; 7]) -> Vec<(&'static str, String)> {
    names
        .into_iter()
        .zip(OBJECT_KEYS)
        .map(|(name, key)| (name, field::text(event, &format!("/involvedObject/{key}")).to_owned()))
        .collect()
}

/// core/v1 Event.
#[derive(Debug, Clone, Copy)]
pub struct CoreEvent;

impl Strategy for CoreEvent {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        // Names of events begin with the name of their object, which may be none of DNS.
        let mut errors = metadata::validate(object, true, NameRule::PathSegment);
        errors.extend(validate_loosely(object));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        errors.extend(validate_loosely(new));
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let event = core_view(object);
        let mut fields = object_fields(
            &event,
            [
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
            ],
        );
        let source = match field::text(&event, "/source/component") {
            "" => reported_by(&event),
            component => component.to_owned(),
        };
        fields.extend([
            ("reason", field::text(&event, "/reason").to_owned()),
            ("reportingComponent", reported_by(&event)),
            ("source", source),
            ("type", field::text(&event, "/type").to_owned()),
        ]);
        fields
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// events.k8s.io/v1 Event, which is judged more strictly than core's.
#[derive(Debug, Clone, Copy)]
pub struct EventsEvent;

impl Strategy for EventsEvent {
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let event = core_view(object);
        let mut errors = metadata::validate(&event, true, NameRule::DnsSubdomain);
        errors.extend(validate_loosely(&event));
        validate_series(&event, &mut errors);
        if field::text(&event, "/eventTime").is_empty() {
            errors.push(FieldError::required("eventTime", ""));
        }
        let kind = field::text(&event, "/type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
        }
        for key in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            if !field::is_empty(event.get(key)) {
                errors.push(FieldError::invalid(key, "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old) = (core_view(new), core_view(old));
        let mut errors = metadata::validate_update(&new, &old);
        errors.extend(validate_loosely(&new));
        if !field::same(new.get("series"), old.get("series")) {
            validate_series(&new, &mut errors);
        }
        for (key, path) in [
            ("involvedObject", "involvedObject"),
            ("reason", "reason"),
            ("message", "message"),
            ("source", "source"),
            ("firstTimestamp", "firstTimestamp"),
            ("lastTimestamp", "lastTimestamp"),
            ("count", "count"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ] {
            errors.extend(metadata::immutable(&new, &old, &format!("/{key}"), path));
        }
        errors
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let event = core_view(object);
        let mut fields = object_fields(
            &event,
            [
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
            ],
        );
        fields.extend([
            ("reason", field::text(&event, "/reason").to_owned()),
            ("reportingController", reported_by(&event)),
            ("type", field::text(&event, "/type").to_owned()),
        ]);
        fields
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn validate_series(event: &Value, errors: &mut Vec<FieldError>) {
    let Some(series) = field::at(event, "/series") else { return };
    if field::integer(series, "/count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if field::text(series, "/lastObservedTime").is_empty() {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

/// Rules for events of either face. Events without `eventTime` are of the oldest kind and hardly judged.
fn validate_loosely(event: &Value) -> Vec<FieldError> {
    const OBJECT_NAMESPACE: &str = "involvedObject.namespace";
    let mut errors = Vec::new();
    let namespace = field::text(event, "/metadata/namespace");
    let object_namespace = field::text(event, "/involvedObject/namespace");
    let mismatch =
        || FieldError::invalid(OBJECT_NAMESPACE, object_namespace, "does not match event.namespace");
    if field::text(event, "/eventTime").is_empty() {
        let fits = if object_namespace.is_empty() {
            matches!(namespace, "" | "default")
        } else {
            namespace == object_namespace
        };
        if !fits {
            errors.push(mismatch());
        }
        return errors;
    }
    if object_namespace.is_empty() && !matches!(namespace, "default" | "kube-system") {
        errors.push(mismatch());
    }
    let controller = field::text(event, "/reportingComponent");
    if controller.is_empty() {
        errors.push(FieldError::required("reportingController", ""));
    }
    metadata::invalid(&mut errors, "reportingController", controller, names::qualified_name(controller));
    for (pointer, path, max, required) in [
        ("/reportingInstance", "reportingInstance", 128, true),
        ("/action", "action", 128, true),
        ("/reason", "reason", 128, true),
        ("/message", "message", 1024, false),
    ] {
        let text = field::text(event, pointer);
        if required && text.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if text.len() > max {
            errors.push(FieldError::invalid(path, "", format!("can have at most {max} characters")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": "p.1", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "Started", "message": "Started container a\n", "type": "Normal",
            "source": {"component": "kubelet", "host": "node1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z", "count": 3,
        })
    }

    #[test]
    fn the_two_faces_turn_into_each_other() {
        let events = to_events(&event());
        assert_eq!(events["regarding"]["name"], "p");
        assert_eq!(events["note"], "Started container a\n");
        assert_eq!(events["deprecatedCount"], 3);
        assert_eq!(events["apiVersion"], "events.k8s.io/v1");
        assert_eq!(to_core(&events), event());
    }

    #[test]
    fn a_row_is_the_same_for_both_faces() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let row = CoreEvent.cells(&event(), now);
        let expected = [
            json!("60s"),
            json!("Normal"),
            json!("Started"),
            json!("pod/p"),
            json!(""),
            json!("kubelet, node1"),
            json!("Started container a"),
            json!("2m"),
            json!(3),
            json!("p.1"),
        ];
        assert_eq!(row, expected);
        assert_eq!(EventsEvent.cells(&to_events(&event()), now), row);
        let fields = CoreEvent.selectable_fields(&event());
        assert!(
            fields.contains(&("involvedObject.name", "p".to_owned()))
                && fields.contains(&("source", "kubelet".to_owned()))
        );
        assert!(EventsEvent.selectable_fields(&event()).contains(&("regarding.kind", "Pod".to_owned())));
    }

    #[test]
    fn new_events_are_judged_more_strictly() {
        let check = |errors: &[FieldError], expected: &[&str]| {
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&CoreEvent.validate_create(&event()), &[]);
        let mut elsewhere = event();
        elsewhere["metadata"]["namespace"] = json!("other");
        check(
            &CoreEvent.validate_create(&elsewhere),
            &["involvedObject.namespace: Invalid value: \"default\": does not match event.namespace"],
        );
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"namespace": "default"}, "reason": "R", "action": "A", "type": "Normal", "reportingController": "beeline/scheduler", "reportingInstance": "i",
        });
        check(&EventsEvent.validate_create(&new), &[]);
        let mut bare = new;
        bare["action"] = json!("");
        bare["type"] = json!("Odd");
        check(
            &EventsEvent.validate_create(&bare),
            &["action: Required value", "type: Invalid value: \"\": has invalid value: Odd"],
        );
    }
}
