//! Texts of table cells as upstream's printers write them (kubernetes `pkg/printers/internalversion`, apimachinery `util/duration`).
//!
//! Which cells a kind shows is in the kind's own file.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::field;

/// What an empty set prints as.
pub const NONE: &str = "<none>";

/// What an unknown time prints as.
pub const UNKNOWN: &str = "<unknown>";

/// The object's name.
#[must_use]
pub fn name(object: &Value) -> Value {
    field::text(object, "/metadata/name").into()
}

/// The object's creation time as it is stored: the cell of kinds without columns of their own.
#[must_use]
pub fn created_at(object: &Value) -> Value {
    field::text(object, "/metadata/creationTimestamp").into()
}

/// Time since the object was created.
#[must_use]
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(field::text(object, "/metadata/creationTimestamp"), now).into()
}

/// Time since `timestamp` (RFC 3339), `<unknown>` when it is empty or unreadable.
#[must_use]
pub fn since(timestamp: &str, now: Timestamp) -> String {
    timestamp.parse::<Timestamp>().map_or_else(
        |_| UNKNOWN.to_owned(),
        |then| human_duration(now.as_millisecond() - then.as_millisecond()),
    )
}

/// A span of time with about two significant digits: `118s`, `2m5s`, `3h`, `5d12h`. Negative spans are clocks that disagree: up to a second counts as 0.
#[must_use]
pub fn human_duration(milliseconds: i64) -> String {
    let pair = |large: i64, large_unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit}{small}{small_unit}")
        }
    };
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => pair(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

/// `text`, or `<none>` when it is empty.
#[must_use]
pub fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// The map of texts at `pointer` as `a=1,b=2` in the order of keys, `<none>` when empty.
#[must_use]
pub fn labels(object: &Value, pointer: &str) -> String {
    let sorted: BTreeMap<&str, &str> = field::texts(object, pointer).collect();
    or_none(sorted.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// A `LabelSelector` in the selector grammar, in the order of keys; empty when it selects nothing or everything.
#[must_use]
pub fn selector(object: &Value, pointer: &str) -> String {
    let mut terms: Vec<(&str, String)> = field::texts(object, &format!("{pointer}/matchLabels"))
        .map(|(key, value)| (key, format!("{key}={value}")))
        .collect();
    for requirement in field::list(object, &format!("{pointer}/matchExpressions")) {
        let key = field::text(requirement, "/key");
        let mut values: Vec<&str> = field::items(requirement, "/values").collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push((
            key,
            match field::text(requirement, "/operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.to_owned(),
            },
        ));
    }
    terms.sort_by(|left, right| left.0.cmp(right.0));
    terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// One field of each item of a list, joined by commas: names or images of containers.
#[must_use]
pub fn joined(object: &Value, list: &str, pointer: &str) -> String {
    field::list(object, list).iter().map(|item| field::text(item, pointer)).collect::<Vec<_>>().join(",")
}

/// At most three of `items`, and how many more there are.
#[must_use]
pub fn first_three(items: &[String], empty: &str) -> String {
    const SHOWN: usize = 3;
    match items.len() {
        0 => empty.to_owned(),
        count if count > SHOWN => format!("{} + {} more...", items[..SHOWN].join(","), count - SHOWN),
        _ => items.join(","),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_keep_about_two_digits() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (10 * MINUTE + 5, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + MINUTE, "3h1m"),
            (47 * HOUR + 59 * MINUTE, "47h"),
            (2 * DAY, "2d"),
            (5 * DAY + 12 * HOUR, "5d12h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (3000 * DAY, "8y"),
        ] {
            assert_eq!(human_duration(seconds * 1000), expected, "{seconds}");
        }
    }

    #[test]
    fn selectors_read_as_a_command_line_would_take_them() {
        let object = json!({"s": {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["y", "x"]},
                {"key": "aa", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist"},
                {"key": "e", "operator": "NotIn", "values": ["z"]},
            ],
        }});
        assert_eq!(selector(&object, "/s"), "a=1,aa,b=2,c in (x,y),!d,e notin (z)");
        assert_eq!(labels(&object, "/s/matchLabels"), "a=1,b=2");
        assert_eq!(labels(&object, "/none"), NONE);
    }

    #[test]
    fn long_lists_say_how_much_is_missing() {
        let items = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(first_three(&items(0), NONE), NONE);
        assert_eq!(first_three(&items(3), NONE), "0,1,2");
        assert_eq!(first_three(&items(5), NONE), "0,1,2 + 2 more...");
    }
}
