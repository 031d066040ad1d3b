//! PodLogOptions: the parameters of `pods/log`, checked, and under the kubelet's names.

use api::status::{ApiError, FieldError};
use jiff::Timestamp;

/// What to show of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which container; empty if the pod has only one.
    pub container: String,
    parameters: Vec<(&'static str, String)>,
}

/// Parameters that are switches.
const SWITCHES: [&str; 3] = ["follow", "previous", "timestamps"];
/// Parameters that are numbers, the least permitted value, and how upstream says so.
const NUMBERS: [(&str, i64, &str); 3] = [
    ("tailLines", 0, "must be greater than or equal to 0"),
    ("limitBytes", 1, "must be greater than 0"),
    ("sinceSeconds", 1, "must be greater than 0"),
];
const STREAMS: [&str; 3] = ["All", "Stdout", "Stderr"];

impl LogOptions {
    /// Reads the query of a request for the log of `pod`.
    pub fn parse(query: &str, pod: &str) -> Result<Self, ApiError> {
        let given: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let get = |name: &str| {
            given
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let mut options =
            Self { container: get("container").unwrap_or_default().to_owned(), parameters: Vec::new() };
        let mut errors = Vec::new();
        for name in SWITCHES {
            if get(name).is_some_and(|value| !matches!(value, "false" | "0")) {
                options.parameters.push((name, "true".to_owned()));
            }
        }
        for (name, least, message) in NUMBERS {
            let Some(text) = get(name) else { continue };
            let number: i64 = text.parse().map_err(|_| {
                ApiError::bad_request(format!("{name}: strconv.ParseInt: parsing {text:?}: invalid syntax"))
            })?;
            if number < least {
                errors.push(FieldError::invalid(name, number, message));
            }
            options.parameters.push((name, number.to_string()));
        }
        if let Some(time) = get("sinceTime") {
            time.parse::<Timestamp>().map_err(|_| {
                ApiError::bad_request(format!("sinceTime: cannot parse {time:?} as an RFC 3339 time"))
            })?;
            if get("sinceSeconds").is_some() {
                errors.push(FieldError::forbidden(
                    "",
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            options.parameters.push(("sinceTime", time.to_owned()));
        }
        if let Some(stream) = get("stream") {
            if !STREAMS.contains(&stream) {
                errors.push(FieldError::not_supported("stream", stream, &STREAMS));
            } else if stream != "All" && get("tailLines").is_some() {
                errors.push(FieldError::forbidden(
                    "",
                    "`tailLines` and specific `stream` are mutually exclusive for now",
                ));
            }
            options.parameters.push(("stream", stream.to_owned()));
        }
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(ApiError::invalid(("", "PodLogOptions"), pod, errors))
        }
    }

    /// The parameters for the kubelet's `/containerLogs`.
    pub fn kubelet_parameters(&self) -> Vec<(&'static str, String)> {
        self.parameters.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<&str, &str>) {
        let outcome = LogOptions::parse(query, "web").map(|options| {
            let words: Vec<String> =
                options.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            words.join(" ")
        });
        assert_eq!(
            outcome.map_err(|error| error.message),
            expected.map(str::to_owned).map_err(str::to_owned)
        );
    }

    #[test]
    fn good_parameters_are_passed_on() {
        check("", Ok(""));
        check("container=a&follow=true&previous=false&timestamps=1", Ok("follow=true timestamps=true"));
        check("tailLines=0&limitBytes=1&sinceSeconds=30", Ok("tailLines=0 limitBytes=1 sinceSeconds=30"));
        check("sinceTime=2026-11-22T10%3A00%3A00Z", Ok("sinceTime=2026-11-22T10:00:00Z"));
        check("stream=Stderr", Ok("stream=Stderr"));
    }

    #[test]
    fn bad_parameters_are_named() {
        check(
            "tailLines=-1",
            Err(
                r#"PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#,
            ),
        );
        check(
            "limitBytes=0",
            Err(r#"PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0"#),
        );
        check("tailLines=x", Err(r#"tailLines: strconv.ParseInt: parsing "x": invalid syntax"#));
        check("sinceTime=yesterday", Err(r#"sinceTime: cannot parse "yesterday" as an RFC 3339 time"#));
        check(
            "stream=Both",
            Err(
                r#"PodLogOptions "web" is invalid: stream: Unsupported value: "Both": supported values: "All", "Stdout", "Stderr""#,
            ),
        );
    }
}
