//! Why the store could not do what was asked.

/// A failure of the store. Conflicts are answers, not failures of etcd: they carry what the caller needs to decide.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is there already.
    #[error("key exists")]
    Exists,
    /// The key changed since the revision the writer had seen, or is gone.
    #[error("key is at another revision")]
    Conflict,
    /// The key is not there.
    #[error("key not found")]
    NotFound,
    /// The revision asked for is no longer kept.
    #[error("revision {wanted} is no longer kept, the oldest is {oldest}")]
    Expired {
        /// The revision that was asked for.
        wanted: i64,
        /// The oldest revision that can still be asked for.
        oldest: i64,
    },
    /// The revision asked for has not been reached.
    #[error("revision {wanted} is ahead of the current {current}")]
    Future {
        /// The revision that was asked for.
        wanted: i64,
        /// The revision reached so far.
        current: i64,
    },
    /// No collection covers the key.
    #[error("no collection holds {0}")]
    UnknownCollection(String),
    /// etcd cannot be reached; the request had no effect.
    #[error("etcd is unavailable: {0}")]
    Unavailable(String),
    /// etcd did not answer in time; the request may or may not have had an effect.
    #[error("etcd: request timed out: {0}")]
    Timeout(String),
    /// etcd refused the request.
    #[error("etcd: {0}")]
    Refused(String),
}

impl Error {
    /// What a failed etcd call means for the caller.
    pub(crate) fn from_etcd(error: &etcd_client::Error) -> Self {
        let text = error.to_string();
        match error {
            etcd_client::Error::GRpcStatus(status) => match status.code() as i32 {
                // A transport that never connected reports `Unknown` or `Unavailable`, with the connect error inside.
                UNKNOWN | UNAVAILABLE if never_sent(&text) => Self::Unavailable(text),
                UNAVAILABLE | UNKNOWN | DEADLINE_EXCEEDED | CANCELLED => Self::Timeout(text),
                _ => Self::Refused(text),
            },
            etcd_client::Error::TransportError(_) => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

/// gRPC status codes (grpc.io, "Status codes and their use in gRPC").
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const DEADLINE_EXCEEDED: i32 = 4;
const UNAVAILABLE: i32 = 14;

fn never_sent(text: &str) -> bool {
    ["tcp connect error", "error trying to connect", "Connection refused", "dns error"]
        .iter()
        .any(|it| text.contains(it))
}
