//! SPDY/3.1, the part that Kubernetes' clients speak after `Upgrade: SPDY/3.1`: frames, header compression, and
//! sessions that a client opened. Not here: streams that the server opens, priorities, waiting for windows.

pub mod dictionary;
pub mod frame;
pub mod headers;
pub mod remote_command;
pub mod session;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("control frame is not of SPDY version 3")]
    Version,
    /// Longer than is accepted.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// Fields do not fit.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// zlib refuses.
    #[error("header compression is broken")]
    Compression,
}
