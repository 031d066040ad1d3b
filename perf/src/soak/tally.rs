//! Counts that both kinds of connections and the datagrams share: reasons, who answered, silences.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The result names so many single failures; the rest is in the counts.
const FIRST_ERRORS: usize = 10;

/// Failures by reason, the first of them in full.
#[derive(Default, Serialize)]
pub(super) struct Failures {
    /// How often each reason was seen.
    pub(super) reasons: BTreeMap<String, u64>,
    /// The first ten, with what was being asked.
    pub(super) errors: Vec<String>,
}

impl Failures {
    pub(super) fn add(&mut self, reason: &str, what: &str) {
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
        if self.errors.len() < FIRST_ERRORS {
            self.errors.push(format!("{what}: {reason}"));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.reasons.values().sum()
    }
}

/// The longest time between two answers.
#[derive(Default)]
pub(super) struct Silence {
    last: Option<Instant>,
    pub(super) longest: Duration,
}

impl Silence {
    /// An answer came, or the first question was sent.
    pub(super) fn broken(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last {
            self.longest = self.longest.max(now.duration_since(last));
        }
        self.last = Some(now);
    }

    /// Counts the silence that is not over, when somebody still waits for an answer.
    pub(super) fn still_waiting(&mut self) {
        if self.last.is_some() {
            self.broken();
        }
    }
}

/// Who gave an answer: the value of `pod=`, or `-`.
pub(super) fn pod(answer: &str) -> &str {
    answer.split_whitespace().find_map(|word| word.strip_prefix("pod=")).unwrap_or("-")
}

/// What an answer quotes: the value of `got=`, to the end.
pub(super) fn got(answer: &str) -> Option<&str> {
    answer.trim_end().split_once("got=").map(|(_, got)| got)
}

/// The reason of an I/O error, without addresses or numbers: so that equal ones are counted together.
pub(super) fn reason(error: &std::io::Error) -> String {
    error.kind().to_string()
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_pod_and_the_question() {
        let answer = "pod=web-1 node=n client=1.2.3.4 port=5 got=L3-7\n";
        assert_eq!((pod(answer), got(answer)), ("web-1", Some("L3-7")));
        assert_eq!((pod("hello"), got("hello")), ("-", None));
    }

    #[test]
    fn failures_are_counted_all_and_named_some() {
        let mut failures = Failures::default();
        (0..25).for_each(|i| failures.add("connection reset", &format!("short {i}")));
        failures.add("timed out", "short 25");
        assert_eq!((failures.count(), failures.errors.len()), (26, FIRST_ERRORS));
        assert_eq!(failures.errors[0], "short 0: connection reset");
    }
}
