//! Points in time as the API writes them: `metav1.Time` (seconds) and `metav1.MicroTime` (microseconds), RFC 3339 in UTC.
//!
//! Reads no clock: the caller gives the time.

use jiff::Timestamp;

/// `2026-11-22T10:28:37Z`: `metav1.Time`.
#[must_use]
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-22T10:28:37.123456Z`: `metav1.MicroTime`.
#[must_use]
pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 with any offset and any fraction, as Go's `time.Parse(time.RFC3339, ..)` does.
///
/// # Errors
/// Go's words, which clients see after `invalid value`.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    text.parse().map_err(|_| ParseError { text: text.to_owned() })
}

/// A text that is no RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\"")]
pub struct ParseError {
    text: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_formats_are_utc_and_keep_their_width() {
        let at = Timestamp::new(1_795_343_317, 120_000_000).unwrap();
        assert_eq!(seconds(at), "2026-11-22T10:28:37Z");
        assert_eq!(micros(at), "2026-11-22T10:28:37.120000Z");
        assert_eq!(parse("2026-11-22T11:28:37.12+01:00").unwrap(), at);
        assert_eq!(
            parse("soon").unwrap_err().to_string(),
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#
        );
    }
}
