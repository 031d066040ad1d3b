//! The options of writes: dry run, strictness about unknown fields, and what a DELETE asks for.

use api::ApiError;
use api::decode::FieldValidation;
use api::status::FieldError;
use serde_json::{Value, json};

use crate::query::Query;

/// Query parameters common to create, update, patch and delete.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// The options as the object that admission sees.
    pub(crate) as_object: Value,
}

impl WriteOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let dry_run = dry_run(query.all("dryRun"))?;
        let validation = FieldValidation::parse(query.get("fieldValidation"))?;
        let as_object = json!({
            "kind": "WriteOptions",
            "apiVersion": "meta.k8s.io/v1",
            "dryRun": if dry_run { json!(["All"]) } else { json!([]) },
            "fieldManager": query.text("fieldManager"),
        });
        Ok(Self { dry_run, validation, as_object })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry_run = false;
    for value in values {
        if value != "All" {
            let error = FieldError::not_supported("dryRun", value, &["All"]);
            return Err(ApiError::invalid(("meta.k8s.io", "CreateOptions"), "", vec![error]));
        }
        dry_run = true;
    }
    Ok(dry_run)
}

/// What becomes of the objects that a deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They stay, ownerless.
    Orphan,
    /// The garbage collector removes them afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// `DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads the query and then the body, whose fields win.
    pub(crate) fn parse(query: &Query, body: Option<&Value>) -> Result<Self, ApiError> {
        let empty = Value::Null;
        let body = body.unwrap_or(&empty);
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let from_body =
            body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let policy = text("/propagationPolicy").unwrap_or_else(|| query.text("propagationPolicy").to_owned());
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let orphan = orphan.or_else(|| query.get("orphanDependents").map(|_| query.flag("orphanDependents")));
        let propagation = match (policy.as_str(), orphan) {
            ("Orphan", None) | ("", Some(true)) => Some(Propagation::Orphan),
            ("Background", None) | ("", Some(false)) => Some(Propagation::Background),
            ("Foreground", None) => Some(Propagation::Foreground),
            ("", None) => None,
            (_, Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                return Err(invalid(FieldError::invalid("propagationPolicy", policy, why)));
            }
            (other, None) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                return Err(invalid(FieldError::not_supported("propagationPolicy", other, &known)));
            }
        };
        let grace = body.get("gracePeriodSeconds").and_then(Value::as_i64);
        let grace_period_seconds =
            if grace.is_some() { grace } else { query.number("gracePeriodSeconds")? };
        Ok(Self {
            grace_period_seconds,
            propagation,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: dry_run(query.all("dryRun").chain(from_body))?,
        })
    }
}

fn invalid(error: FieldError) -> ApiError {
    ApiError::invalid(("meta.k8s.io", "DeleteOptions"), "", vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, body: &Value, expected: &str) {
        let seen = match DeleteOptions::parse(&Query::parse(query), Some(body)) {
            Ok(it) => {
                format!("{:?} {:?} {:?} {}", it.propagation, it.grace_period_seconds, it.uid, it.dry_run)
            }
            Err(error) => error.message,
        };
        assert!(seen.contains(expected), "{query} {body}: {seen}");
    }

    #[test]
    fn the_body_wins_over_the_query() {
        check("", &json!({}), "None None None false");
        check("gracePeriodSeconds=5&propagationPolicy=Orphan", &json!({}), "Some(Orphan) Some(5) None false");
        check(
            "gracePeriodSeconds=5",
            &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}),
            "None Some(0) Some(\"u\")",
        );
        check(
            "",
            &json!({"propagationPolicy": "Foreground", "dryRun": ["All"]}),
            "Some(Foreground) None None true",
        );
        check("orphanDependents=false", &json!({}), "Some(Background)");
        check("", &json!({"propagationPolicy": "Sometimes"}), "propagationPolicy: Unsupported value");
        check("", &json!({"propagationPolicy": "Orphan", "orphanDependents": true}), "cannot be both set");
        check("dryRun=Some", &json!({}), "dryRun: Unsupported value");
    }
}
