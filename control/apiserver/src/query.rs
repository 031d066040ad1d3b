//! Query parameters, and the option sets that upstream reads from them.

use api::ApiError;
use api::status::FieldError;

/// The parameters of a URL in their order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Splits and decodes what follows the `?`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { pairs: form_urlencoded::parse(text.as_bytes()).into_owned().collect() }
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter, if it is not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// A switch as upstream's decoder reads it: there, and neither `false` nor `0`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|it| !matches!(it, "false" | "0"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 naming the parameter.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing \"{text}\": invalid syntax ({name})"
                ))
            }),
        }
    }
}

/// How a read relates to `resourceVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Not said.
    Unset,
    /// `NotOlderThan`
    NotOlderThan,
    /// `Exact`
    Exact,
}

/// The parameters of LIST and WATCH, checked.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Objects a page; 0 = all.
    pub limit: usize,
    /// Token of the next page, or empty.
    pub continue_token: String,
    /// `None` = not given.
    pub resource_version: Option<i64>,
    /// How `resource_version` is meant.
    pub version_match: Match,
    /// BOOKMARK events are welcome.
    pub bookmarks: bool,
    /// Given and true: a watch starts with the current state and marks its end.
    pub send_initial_events: Option<bool>,
    /// Seconds.
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads and checks the parameters of a LIST, or of a WATCH.
    ///
    /// # Errors
    /// 400 for what cannot be parsed, 422 for combinations that mean nothing, in upstream's words.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let version = query.text("resourceVersion");
        let resource_version = match version {
            "" => None,
            text => Some(text.parse::<i64>().ok().filter(|it| *it >= 0).ok_or_else(|| {
                let error = FieldError::invalid(
                    "resourceVersion",
                    text,
                    format!("strconv.ParseUint: parsing \"{text}\": invalid syntax"),
                );
                ApiError::invalid(LIST_OPTIONS, "", vec![error])
            })?),
        };
        let options = Self {
            limit: usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0),
            continue_token: query.text("continue").to_owned(),
            resource_version,
            version_match: Match::Unset,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout_seconds: query
                .number("timeoutSeconds")?
                .and_then(|it| u64::try_from(it).ok())
                .filter(|it| *it > 0),
        };
        let wanted = query.text("resourceVersionMatch");
        let error = if watch { watch_conflict(&options, wanted) } else { list_conflict(&options, wanted) };
        if let Some(error) = error {
            return Err(ApiError::invalid(LIST_OPTIONS, "", vec![error]));
        }
        let version_match = match wanted {
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            _ => Match::Unset,
        };
        Ok(Self { version_match, ..options })
    }
}

const LIST_OPTIONS: (&str, &str) = ("meta.k8s.io", "ListOptions");

fn list_conflict(options: &ListOptions, wanted: &str) -> Option<FieldError> {
    let forbidden = |why: &str| Some(FieldError::forbidden("resourceVersionMatch", why));
    match wanted {
        _ if options.send_initial_events.is_some() => {
            Some(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        }
        "" => None,
        _ if options.resource_version.is_none() => {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        _ if !options.continue_token.is_empty() => {
            forbidden("resourceVersionMatch is forbidden with continue")
        }
        "Exact" if options.resource_version == Some(0) => {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        "Exact" | "NotOlderThan" => None,
        _ => Some(FieldError::not_supported("resourceVersionMatch", wanted, &["Exact", "NotOlderThan", ""])),
    }
}

fn watch_conflict(options: &ListOptions, wanted: &str) -> Option<FieldError> {
    match (options.send_initial_events, wanted) {
        (Some(_), "NotOlderThan") | (None, "") => None,
        (Some(_), _) => Some(FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (None, _) => Some(FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, watch: bool, expected: &str) {
        let seen = match ListOptions::parse(&Query::parse(query), watch) {
            Ok(it) => format!("{:?} {:?}", it.resource_version, it.version_match),
            Err(error) => format!("{} {}", error.code(), error.message),
        };
        assert!(seen.contains(expected), "{query}: {seen}");
    }

    #[test]
    fn combinations_without_meaning_are_refused() {
        check("resourceVersionMatch=Exact&resourceVersion=7", false, "Some(7) Exact");
        check("resourceVersionMatch=Exact", false, "422 ");
        check(
            "resourceVersionMatch=Exact&resourceVersion=0",
            false,
            "is forbidden for resourceVersion \"0\"",
        );
        check("resourceVersionMatch=Best&resourceVersion=7", false, "supported values");
        check("resourceVersionMatch=Exact&resourceVersion=7&continue=x", false, "forbidden with continue");
        check("sendInitialEvents=true", false, "forbidden for list");
        check("sendInitialEvents=true", true, "requires setting resourceVersionMatch to NotOlderThan");
        check("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, "None NotOlderThan");
        check("resourceVersion=abc", true, "422 ");
        check("limit=x", false, "400 ");
    }
}
