//! Field selectors: `spec.nodeName=n1,status.phase!=Running`.
//!
//! Which fields a resource offers is its strategy's `selectable_fields`; every resource has `metadata.name` and `metadata.namespace`.

use serde_json::Value;

use crate::registry::Resource;
use crate::status::{ApiError, quote};

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `metadata.name`, `spec.nodeName`, ..
    pub field: String,
    /// The value to compare with, unescaped.
    pub value: String,
    /// `=` as opposed to `!=`.
    pub equal: bool,
}

/// A conjunction of conditions on fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Reads the text form. The empty text selects everything.
    ///
    /// # Errors
    /// 400 with upstream's message.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = split_term(part).ok_or_else(|| {
                ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            terms.push(FieldTerm {
                field: field.to_owned(),
                value: unescape(value).map_err(ApiError::bad_request)?,
                equal,
            });
        }
        Ok(Self { terms })
    }

    /// Refuses fields that `resource` does not offer.
    ///
    /// # Errors
    /// 400 with upstream's message.
    pub fn check(&self, resource: &Resource) -> Result<(), ApiError> {
        let offered = resource.strategy.selectable_fields(&Value::Null);
        for term in &self.terms {
            let always = term.field == "metadata.name" || term.field == "metadata.namespace";
            if always || offered.iter().any(|(name, _)| *name == term.field) {
                continue;
            }
            return Err(ApiError::bad_request(if offered.is_empty() {
                format!(
                    "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    quote(&term.field)
                )
            } else {
                format!("field label not supported: {}", term.field)
            }));
        }
        Ok(())
    }

    /// The conditions, in the order given.
    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Selects every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Selects an object, given a look-up of its fields; an unknown field is empty.
    #[must_use]
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (field(&t.field).unwrap_or_default() == t.value) == t.equal)
    }

    /// The one value that the field must have, if the selector demands one.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash escapes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, value and whether they must be equal. The first operator counts.
fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['!', '='])?;
    let (field, rest) = term.split_at(at);
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field, value, equal));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => {
                    return Err(format!("invalid field selector: invalid escape sequence in value: {value}"));
                }
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {value}"));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}
