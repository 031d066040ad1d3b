//! Errors as the API tells them: `Status` objects in upstream's words (apimachinery `api/errors`).
//!
//! A constructor a reason; what to do about an error is the caller's business. Field errors are in [`field`].

mod field;

use serde_json::{Map, Value, json};

use crate::registry::Resource;
pub use field::{FieldError, FieldErrorKind};

/// `Status.reason`: the closed set that clients switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409, the name is taken
    AlreadyExists,
    /// 409, the object has changed
    Conflict,
    /// 410, a revision or a continue token that is too old
    Expired,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 500, worth a retry
    ServerTimeout,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
}

impl Reason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// The HTTP status code that goes with it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// A resource as messages name it: `deployments.apps`, `pods`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupResource {
    /// Empty for core.
    pub group: String,
    /// The plural, or with its subresource `pods/exec`.
    pub resource: String,
}

/// A kind as messages name it: `Deployment.apps`, `Pod`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupKind {
    /// Empty for core.
    pub group: String,
    /// The kind.
    pub kind: String,
}

impl From<&Resource> for GroupResource {
    fn from(row: &Resource) -> Self {
        Self { group: row.group.into(), resource: row.plural.into() }
    }
}

impl From<(&str, &str)> for GroupResource {
    fn from((group, resource): (&str, &str)) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl From<&Resource> for GroupKind {
    fn from(row: &Resource) -> Self {
        Self { group: row.group.into(), kind: row.kind.into() }
    }
}

impl From<(&str, &str)> for GroupKind {
    fn from((group, kind): (&str, &str)) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        dotted(&self.resource, &self.group, f)
    }
}

impl std::fmt::Display for GroupKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        dotted(&self.kind, &self.group, f)
    }
}

fn dotted(name: &str, group: &str, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    if group.is_empty() { f.write_str(name) } else { write!(f, "{name}.{group}") }
}

/// One entry of `Status.details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// `reason` on the wire, e.g. `FieldValueInvalid`.
    pub kind: String,
    /// What is wrong.
    pub message: String,
    /// Path of the field, e.g. `spec.ports[0].port`.
    pub field: String,
}

/// `Status.details`: which object, why, and when to try again. Empty members stay out of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural of the resource; the kind for [`ApiError::invalid`] (as upstream).
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// One entry a field or conflict.
    pub causes: Vec<Cause>,
    /// Seconds until a retry makes sense; 0 = not said.
    pub retry_after_seconds: u32,
}

impl Details {
    fn of(resource: GroupResource, name: &str) -> Self {
        Self { name: name.into(), group: resource.group, kind: resource.resource, ..Self::default() }
    }

    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !value.is_empty() {
                out.insert(key.into(), value.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".into(), self.causes.iter().map(Cause::to_json).collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [("reason", &self.kind), ("message", &self.message), ("field", &self.field)] {
            if !value.is_empty() {
                out.insert(key.into(), value.as_str().into());
            }
        }
        Value::Object(out)
    }
}

/// A request that failed, ready to be told to a client. `Display` is the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Decides the HTTP status code.
    pub reason: Reason,
    /// Text for people.
    pub message: String,
    /// Facts for programs.
    pub details: Option<Box<Details>>,
}

impl ApiError {
    /// An error with a message and nothing else.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    /// The same error with `details`.
    #[must_use]
    pub fn with_details(self, details: Details) -> Self {
        Self { details: Some(Box::new(details)), ..self }
    }

    /// HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// Seconds for a `Retry-After` header, if the error asks for one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|&s| s > 0)
    }

    /// 404: `pods "x" not found`.
    #[must_use]
    pub fn not_found(resource: impl Into<GroupResource>, name: &str) -> Self {
        let resource = resource.into();
        Self::new(Reason::NotFound, format!("{resource} {} not found", quote(name)))
            .with_details(Details::of(resource, name))
    }

    /// 404 for a path that no resource serves.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
            .with_details(Details::default())
    }

    /// 409: `pods "x" already exists`.
    #[must_use]
    pub fn already_exists(resource: impl Into<GroupResource>, name: &str) -> Self {
        let resource = resource.into();
        Self::new(Reason::AlreadyExists, format!("{resource} {} already exists", quote(name)))
            .with_details(Details::of(resource, name))
    }

    /// 409 after the last try to make a free name from `generateName`.
    #[must_use]
    pub fn generate_name_conflict(resource: impl Into<GroupResource>, name: &str) -> Self {
        let resource = resource.into();
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::new(Reason::AlreadyExists, message)
            .with_details(Details { retry_after_seconds: 1, ..Details::of(resource, name) })
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    #[must_use]
    pub fn conflict(resource: impl Into<GroupResource>, name: &str, why: impl std::fmt::Display) -> Self {
        let resource = resource.into();
        Self::new(
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name)),
        )
        .with_details(Details::of(resource, name))
    }

    /// 409 for a stale `resourceVersion`.
    #[must_use]
    pub fn modified(resource: impl Into<GroupResource>, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with one cause a field: `Pod "x" is invalid: [..]`.
    #[must_use]
    pub fn invalid(kind: impl Into<GroupKind>, name: &str, errors: Vec<FieldError>) -> Self {
        let kind = kind.into();
        let message = match field::aggregate(&errors) {
            Some(list) => format!("{kind} {} is invalid: {list}", quote(name)),
            None => format!("{kind} {} is invalid", quote(name)),
        };
        let causes = errors.into_iter().map(FieldError::into_cause).collect();
        Self::new(Reason::Invalid, message).with_details(Details {
            name: name.into(),
            group: kind.group,
            kind: kind.kind,
            causes,
            ..Details::default()
        })
    }

    /// 403 for a resource; an empty `name` means the collection.
    #[must_use]
    pub fn forbidden(resource: impl Into<GroupResource>, name: &str, why: impl std::fmt::Display) -> Self {
        let resource = resource.into();
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::new(Reason::Forbidden, message).with_details(Details::of(resource, name))
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 405: `create is not supported on resources of kind "nodes"`.
    #[must_use]
    pub fn method_not_supported(resource: impl Into<GroupResource>, action: &str) -> Self {
        let resource = resource.into();
        Self::new(
            Reason::MethodNotAllowed,
            format!("{action} is not supported on resources of kind {}", quote(&resource.to_string())),
        )
        .with_details(Details::of(resource, ""))
    }

    /// 406; `accepted` are the media types that the server can give.
    #[must_use]
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::new(
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// 415; `accepted` are the media types that the server can read.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 413; `limit` in bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    /// 410 for a revision that compaction or the event log has dropped.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 429.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(Reason::TooManyRequests, message)
            .with_details(Details { retry_after_seconds, ..Details::default() })
    }

    /// 500; the cause is told, so it must hold no secret.
    #[must_use]
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let message = cause.to_string();
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}")).with_details(
            Details { causes: vec![Cause { message, ..Cause::default() }], ..Details::default() },
        )
    }

    /// 500 that a client may retry.
    #[must_use]
    pub fn server_timeout(
        resource: impl Into<GroupResource>,
        operation: &str,
        retry_after_seconds: u32,
    ) -> Self {
        let resource = resource.into();
        Self::new(
            Reason::ServerTimeout,
            format!("The {operation} operation against {resource} could not be completed at this time, please try again."),
        )
        .with_details(Details { retry_after_seconds, ..Details::of(resource, operation) })
    }

    /// 503.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// 504.
    #[must_use]
    pub fn timeout(message: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(Reason::Timeout, format!("Timeout: {message}"))
            .with_details(Details { retry_after_seconds, ..Details::default() })
    }

    /// 504 for a `resourceVersion` that lies in the future.
    #[must_use]
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let cause = Cause {
            kind: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        Self::new(Reason::Timeout, format!("Timeout: {message}")).with_details(Details {
            causes: vec![cause],
            retry_after_seconds: 1,
            ..Details::default()
        })
    }

    /// The `Status` object, as the body of an error response or of a watch's `ERROR` event.
    #[must_use]
    pub fn to_status_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        status["code"] = self.code().into();
        status
    }
}

/// `Status` of a request that succeeded without an object to give, e.g. a deletion.
#[derive(Clone, Debug, Default)]
pub struct Status;

impl Status {
    /// `{"status":"Success", "details":{name, group, kind, uid}}`.
    #[must_use]
    pub fn success(resource: impl Into<GroupResource>, name: &str, uid: &str) -> Value {
        let details = Details { uid: uid.into(), ..Details::of(resource.into(), name) };
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json() })
    }
}

/// A string between double quotes, escaped as Go's `%q` does.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(error: &ApiError, code: u16, message: &str) {
        assert_eq!((error.code(), error.message.as_str()), (code, message));
        assert_eq!(error.to_status_json()["code"], code);
        assert_eq!(error.to_status_json()["message"], message);
    }

    #[test]
    fn messages_are_in_upstreams_words() {
        let deployments = ("apps", "deployments");
        check(&ApiError::not_found(deployments, "x"), 404, r#"deployments.apps "x" not found"#);
        check(&ApiError::not_found(("", "pods"), "x"), 404, r#"pods "x" not found"#);
        check(&ApiError::already_exists(("", "pods"), "x"), 409, r#"pods "x" already exists"#);
        check(
            &ApiError::modified(deployments, "x"),
            409,
            r#"Operation cannot be fulfilled on deployments.apps "x": the object has been modified; please apply your changes to the latest version and try again"#,
        );
        check(&ApiError::forbidden(("", "pods"), "", "no"), 403, "pods is forbidden: no");
        check(&ApiError::forbidden(("", "pods"), "x", "no"), 403, r#"pods "x" is forbidden: no"#);
        check(
            &ApiError::method_not_supported(("", "nodes"), "create"),
            405,
            r#"create is not supported on resources of kind "nodes""#,
        );
        check(&ApiError::too_large(3_145_728), 413, "Request entity too large: limit is 3145728");
        check(&ApiError::internal("x"), 500, "Internal error occurred: x");
        check(
            &ApiError::too_large_resource_version(9, 7),
            504,
            "Timeout: Too large resource version: 9, current: 7",
        );
    }

    #[test]
    fn invalid_lists_each_message_once_and_keeps_every_cause() {
        let one = FieldError::required("spec.a", "");
        let two = FieldError::invalid("spec.b", 7, "must be even");
        check(
            &ApiError::invalid(("apps", "Deployment"), "x", vec![one.clone()]),
            422,
            r#"Deployment.apps "x" is invalid: spec.a: Required value"#,
        );
        let both = ApiError::invalid(("", "Pod"), "x", vec![one.clone(), two, one]);
        check(
            &both,
            422,
            r#"Pod "x" is invalid: [spec.a: Required value, spec.b: Invalid value: 7: must be even]"#,
        );
        assert_eq!(
            both.to_status_json()["details"],
            json!({"name": "x", "kind": "Pod", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
                {"reason": "FieldValueInvalid", "message": "Invalid value: 7: must be even", "field": "spec.b"},
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
            ]})
        );
    }

    #[test]
    fn members_of_a_status_come_in_upstreams_order() {
        let text = ApiError::not_found(("", "pods"), "x").to_status_json().to_string();
        assert_eq!(
            text,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#
        );
    }
}
