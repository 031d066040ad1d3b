//! What is said between `perf control` and its prober, as lines of JSON over the prober's standard streams. The prober
//! answers in turn: one answer to [`Ask::Clock`], two to [`Ask::Watch`] (that it has begun, and what it saw).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// To the prober.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Ask {
    /// What time is it?
    Clock,
    /// Send datagrams until the right server answers.
    Watch(Watch),
}

/// What is watched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) target: SocketAddr,
    /// The name of the pod whose answer ends it.
    pub(super) pod: String,
    /// Microseconds between two datagrams.
    pub(super) interval_us: u64,
    /// Milliseconds after which it is given up.
    pub(super) limit_ms: u64,
}

/// From the prober. Times are nanoseconds of its `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The time, and which boot of which kernel it counts from.
    Clock { now_ns: u64, boot: String },
    /// The first datagram goes out now.
    Begun { now_ns: u64 },
    /// The right server answered.
    Seen { at_ns: u64, counts: Counts },
    /// It did not, within the limit.
    NotSeen { counts: Counts },
}

/// What became of the datagrams before the one that was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Sent, the last one included.
    pub(super) sent: u64,
    /// Answered by another server.
    pub(super) other: u64,
    /// Refused: nobody serves the address, as whoever proxies it says.
    pub(super) refused: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_name_what_they_are() {
        let watch = Watch {
            target: "10.96.0.7:9090".parse().unwrap(),
            pod: "b".to_owned(),
            interval_us: 200,
            limit_ms: 1000,
        };
        let text = serde_json::to_string(&Ask::Watch(watch.clone())).unwrap();
        let expected =
            r#"{"ask":"watch","target":"10.96.0.7:9090","pod":"b","interval_us":200,"limit_ms":1000}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Ask>(&text).unwrap(), Ask::Watch(watch));
        let seen = Answer::Seen { at_ns: 7, counts: Counts::default() };
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), seen);
    }
}
