//! Which representation a client accepts: JSON or YAML, the object itself or a Table or metadata alone.
//!
//! Protobuf is read, not written: every client seen that asks for it accepts JSON too, so it is answered with JSON.

use api::ApiError;
use http::HeaderMap;
use http::header::ACCEPT;

/// What is shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Whole,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

impl Media {
    /// The Content-Type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What the client accepts, out of what the server can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// What is shown.
    pub form: Form,
    /// How it is written.
    pub media: Media,
}

/// One clause of an Accept header: media type and parameters.
pub struct Clause<'a> {
    /// `application/json`
    pub media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    /// A parameter's value, empty if absent.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(it, _)| *it == name).map_or("", |(_, value)| value)
    }

    fn quality(&self) -> f32 {
        self.parameter("q").parse().unwrap_or(1.0)
    }
}

/// The clauses of the Accept headers, best first.
#[must_use]
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let mut clauses: Vec<Clause<'_>> = texts.flat_map(|it| it.split(',')).map(clause).collect();
    clauses.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    clauses
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let parameters =
        parts.filter_map(|it| it.split_once('=')).map(|(name, value)| (name.trim(), value.trim())).collect();
    Clause { media, parameters }
}

/// Picks the first clause that can be served.
///
/// # Errors
/// 406 listing what could be.
pub fn accepted(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    let clauses = clauses(headers);
    if clauses.iter().all(|it| it.media.is_empty()) {
        return Ok(Accepted { form: Form::Whole, media: Media::Json });
    }
    clauses
        .iter()
        .find_map(|it| {
            let media = match it.media {
                "application/json" | "application/*" | "*/*" | "application/vnd.kubernetes.protobuf" => {
                    Media::Json
                }
                "application/yaml" => Media::Yaml,
                _ => return None,
            };
            Some(Accepted { form: form(it)?, media })
        })
        .ok_or_else(|| {
            ApiError::not_acceptable(&[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ])
        })
}

fn form(clause: &Clause<'_>) -> Option<Form> {
    let meta = clause.parameter("g") == "meta.k8s.io" && clause.parameter("v") == "v1";
    match clause.parameter("as") {
        "" => Some(Form::Whole),
        "Table" if meta => Some(Form::Table),
        "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => Some(Form::Metadata),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<(Form, Media)>) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = accept.parse() {
            headers.insert(ACCEPT, value);
        }
        assert_eq!(accepted(&headers).ok().map(|it| (it.form, it.media)), expected, "{accept}");
    }

    #[test]
    fn the_first_servable_clause_wins() {
        check("", Some((Form::Whole, Media::Json)));
        check("*/*", Some((Form::Whole, Media::Json)));
        check("application/yaml", Some((Form::Whole, Media::Yaml)));
        check("application/vnd.kubernetes.protobuf", Some((Form::Whole, Media::Json)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some((Form::Table, Media::Json)),
        );
        check(
            "application/json;as=Table;v=v2;g=meta.k8s.io,application/json",
            Some((Form::Whole, Media::Json)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Form::Metadata, Media::Json)),
        );
        check(
            "text/html;q=0.9, application/yaml;q=0.1, application/json;q=0.5",
            Some((Form::Whole, Media::Json)),
        );
        check("text/html", None);
        check("application/json;as=Table;v=v1;g=other", None);
    }
}
