//! From a request body to an object of a known kind: JSON, YAML or protobuf, checked against the schema.
//!
//! What comes out has the right `apiVersion` and `kind`, only known fields, and values of the right types; nulls are gone. Defaults and
//! validation come later. Messages are upstream's (apiserver `transformDecodeError`, sigs.k8s.io/json).

mod conform;
mod field_numbers;
mod protobuf;
mod syntax;
mod tree;

use serde_json::Value;

use crate::registry::{self, Resource, Subresource};
use crate::schema;
use crate::status::{ApiError, quote};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl MediaType {
    /// The media types that can be read, as error messages list them.
    pub const ACCEPTED: [&'static str; 3] =
        ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

    /// From a `Content-Type` header; absent means JSON.
    ///
    /// # Errors
    /// 415 for anything else.
    pub fn of(content_type: Option<&str>) -> Result<Self, ApiError> {
        match essence(content_type).as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" => Ok(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Self::Protobuf),
            _ => Err(ApiError::unsupported_media_type(&Self::ACCEPTED)),
        }
    }
}

/// The media type of a `Content-Type` header without its parameters, in lower case; empty when there is none.
#[must_use]
pub fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What happens to unknown and duplicate fields: the query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the client is warned.
    #[default]
    Warn,
    /// The request fails.
    Strict,
}

impl FieldValidation {
    /// From the query parameter; absent and empty mean `Warn`.
    ///
    /// # Errors
    /// 422 as upstream's option validation gives it.
    pub fn parse(parameter: Option<&str>) -> Result<Self, ApiError> {
        match parameter.unwrap_or_default() {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let error = crate::FieldError::not_supported(
                    "fieldValidation",
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                );
                Err(ApiError::invalid(("meta.k8s.io", "CreateOptions"), "", vec![error]))
            }
        }
    }
}

/// The kind that a body must be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name of its definition.
    pub type_name: &'static str,
    /// `apiVersion` in the body does not matter.
    pub any_version: bool,
}

impl Target {
    /// `DeleteOptions`, which clients send under many versions.
    pub const DELETE_OPTIONS: Self = Self {
        group: "",
        version: "v1",
        kind: "DeleteOptions",
        type_name: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        any_version: true,
    };

    /// The kind of a resource's objects.
    #[must_use]
    pub fn of(row: &Resource) -> Self {
        Self {
            group: row.group,
            version: row.version,
            kind: row.kind,
            type_name: row.type_name,
            any_version: false,
        }
    }

    /// The kind that a subresource takes.
    #[must_use]
    pub fn subresource(sub: &Subresource) -> Self {
        Self {
            group: sub.group,
            version: sub.version,
            kind: sub.kind,
            type_name: sub.type_name,
            any_version: false,
        }
    }
}

/// An object, and what the client should be warned of.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// A value that does not fit the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A value of the wrong type or form; Go's words.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields, under `Strict`.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Reads a whole request body.
///
/// # Errors
/// 400: malformed, of another kind, of wrong types, or with unknown or duplicate fields under `Strict`.
pub fn body(
    bytes: &[u8],
    media: MediaType,
    target: &Target,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let (object, duplicates) = match media {
        MediaType::Json => syntax::json(bytes).map_err(|e| {
            unrecognized(target, &format!("couldn't get version/kind; json parse error: {e}"), bytes)
        })?,
        MediaType::Yaml => syntax::yaml(bytes).map_err(|e| unrecognized(target, &e, bytes))?,
        MediaType::Protobuf => {
            (protobuf::decode(bytes, target).map_err(|e| unrecognized(target, &e, bytes))?, Vec::new())
        }
    };
    let (mut object, given) = identify(object, target, bytes)?;
    match conform(&mut object, target.type_name, validation, duplicates) {
        Ok(warnings) => Ok(Decoded { object, warnings }),
        Err(error) => Err(cannot_be_handled(target, &given, &error.to_string())),
    }
}

/// Brings a value that is already parsed (a patched object) into the shape of `type_name`, dropping unknown fields. `already` are strict
/// errors that were found before. Gives warnings.
///
/// # Errors
/// Wrong types always; unknown fields and `already` under `Strict`.
pub fn conform(
    object: &mut Value,
    type_name: &str,
    validation: FieldValidation,
    already: Vec<String>,
) -> Result<Vec<String>, SchemaError> {
    let Some(root) = schema::of(type_name) else { return Ok(already) };
    let mut found = already;
    found.extend(conform::object(object, root).map_err(SchemaError::Type)?);
    let mut seen = std::collections::HashSet::new();
    found.retain(|text| seen.insert(text.clone()));
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(found),
        FieldValidation::Strict if found.is_empty() => Ok(found),
        FieldValidation::Strict => Err(SchemaError::Strict(found)),
    }
}

/// Parses JSON without a schema, as patches need it: the value, and texts on duplicate fields.
///
/// # Errors
/// What is malformed, in Go's words.
pub fn json_value(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    syntax::json(bytes)
}

/// Parses YAML (or JSON) without a schema.
///
/// # Errors
/// What is malformed.
pub fn yaml_value(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    syntax::yaml(bytes)
}

/// `apiVersion` and `kind` as the body gives them, or as the target has them.
struct Given {
    group: String,
    version: String,
    kind: String,
}

/// Fills in `apiVersion` and `kind` and refuses a body of another kind.
fn identify(object: Value, target: &Target, bytes: &[u8]) -> Result<(Value, Given), ApiError> {
    let parse_error = |what: String| {
        unrecognized(
            target,
            &format!("couldn't get version/kind; json parse error: json: cannot unmarshal {what}"),
            bytes,
        )
    };
    let Value::Object(mut map) = object else {
        let what = conform::go_kind(&object);
        return Err(parse_error(format!(
            "{what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(parse_error(format!(
            "{} into Go struct field .{key} of type string",
            conform::go_kind(other)
        ))),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    if api_version.matches('/').count() > 1 {
        return Err(unrecognized(target, &format!("unexpected GroupVersion string: {api_version}"), bytes));
    }
    let (group, version) = if api_version.is_empty() {
        (target.group, target.version)
    } else {
        registry::split_api_version(&api_version)
    };
    let given = Given {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: if kind.is_empty() { target.kind.to_owned() } else { kind },
    };
    check_kind(&given, target)?;
    map.shift_remove("apiVersion");
    map.shift_remove("kind");
    let mut object = serde_json::Map::with_capacity(map.len() + 2);
    let api_version = if target.any_version {
        registry::api_version(&given.group, &given.version)
    } else {
        registry::api_version(target.group, target.version)
    };
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), target.kind.into());
    object.append(&mut map);
    Ok((Value::Object(object), given))
}

fn check_kind(given: &Given, target: &Target) -> Result<(), ApiError> {
    let same_version = target.any_version || (given.group == target.group && given.version == target.version);
    if given.kind == target.kind && same_version {
        return Ok(());
    }
    let version = registry::api_version(&given.group, &given.version);
    if registry::by_kind(&given.group, &given.version, &given.kind).is_none() {
        let message = format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            quote(&given.kind),
            quote(&version)
        );
        return Err(cannot_be_handled(target, given, &message));
    }
    if given.kind == target.kind {
        let expected = registry::api_version(target.group, target.version);
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    let package =
        if target.group.is_empty() { "core" } else { target.group.split('.').next().unwrap_or_default() };
    let message = format!(
        "converting ({}.{}) to ({package}.{}): unknown conversion",
        given.version, given.kind, target.kind
    );
    Err(cannot_be_handled(target, given, &message))
}

fn cannot_be_handled(target: &Target, given: &Given, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {why}",
        given.kind,
        quote(&given.version),
        target.kind
    ))
}

fn unrecognized(target: &Target, why: &str, bytes: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        target.kind,
        summary(bytes)
    ))
}

/// The start of a body: as text when it looks like JSON, else as hex.
fn summary(bytes: &[u8]) -> String {
    const LIMIT: usize = 30;
    let head = &bytes[..bytes.len().min(LIMIT)];
    let more = if bytes.len() > LIMIT { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", head.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
