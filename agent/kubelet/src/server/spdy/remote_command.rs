//! Exec and attach over SPDY, protocol v4.channel.k8s.io: a stream each for the status, input, output, error output and
//! terminal size, told apart by the header `streamType`.

use std::collections::VecDeque;
use std::time::Duration;

use super::SpdyError;
use super::headers::Headers;
use super::session::{self, Event, Events, Writer};
use crate::server::Query;
use crate::server::channels::{Incoming, STDERR, STDOUT, size, status_object};
use crate::server::upgrade::Connection;

/// The protocol. Older ones tell no exit code; every kubectl since 1.4 knows this.
pub const PROTOCOL: &str = "v4.channel.k8s.io";

/// A client has this long to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// A terminal size has fewer bytes.
const SIZE_LIMIT: usize = 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The connection broke.
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    /// The client left.
    #[error("client left before it opened all streams")]
    Gone,
    /// The client opened too few.
    #[error("timed out waiting for client to create streams")]
    Slow,
}

/// Which streams a client will open, beside the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Wanted {
    /// As the request says. A terminal has no error output of its own.
    pub fn of(query: &Query) -> Self {
        let resize = query.flag("tty");
        let stderr = query.flag("error") && !resize;
        Self { stdin: query.flag("input"), stdout: query.flag("output"), stderr, resize }
    }
}

/// Streams by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streams {
    status: Option<u32>,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

impl Streams {
    /// Notes an opened stream; false: nobody wants it.
    fn open(&mut self, stream: u32, headers: &Headers) -> bool {
        let place = match headers.get("streamType") {
            Some("error") => &mut self.status,
            Some("stdin") => &mut self.stdin,
            Some("stdout") => &mut self.stdout,
            Some("stderr") => &mut self.stderr,
            Some("resize") => &mut self.resize,
            _ => return false,
        };
        place.replace(stream).is_none()
    }

    fn complete(&self, wanted: Wanted) -> bool {
        self.status.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
            && (self.resize.is_some() || !wanted.resize)
    }
}

/// What the client says.
pub struct Input {
    events: Events<Connection>,
    reader: Reader,
}

/// Makes words of events.
#[derive(Default)]
struct Reader {
    streams: Streams,
    /// Said and not asked for yet.
    said: VecDeque<Incoming>,
    /// Beginning of a terminal size.
    size: Vec<u8>,
}

impl Reader {
    fn take(&mut self, event: Event) {
        match event {
            Event::Data { stream, data, fin } if Some(stream) == self.streams.stdin => {
                if !data.is_empty() {
                    self.said.push_back(Incoming::Input(data.to_vec()));
                }
                if fin {
                    self.said.push_back(Incoming::EndOfInput);
                }
            }
            Event::Reset { stream } if Some(stream) == self.streams.stdin => {
                self.said.push_back(Incoming::EndOfInput);
            }
            Event::Data { stream, data, .. } if Some(stream) == self.streams.resize => {
                self.size.extend_from_slice(&data);
                // One JSON object a line.
                while let Some(end) = self.size.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.size.drain(..=end).collect();
                    self.said.push_back(size(&line));
                }
                if self.size.len() > SIZE_LIMIT {
                    self.size.clear();
                }
            }
            Event::Opened { .. } | Event::Data { .. } | Event::Reset { .. } => {}
        }
    }
}

impl Input {
    /// The next thing the client says. May be dropped before it is ready and called again.
    pub async fn next(&mut self) -> Incoming {
        loop {
            if let Some(said) = self.reader.said.pop_front() {
                return said;
            }
            match self.events.next().await {
                Some(event) => self.reader.take(event),
                None => return Incoming::Gone,
            }
        }
    }
}

/// What the client is told.
pub struct Output {
    streams: Streams,
    writer: Writer,
}

/// Waits until a client has opened its streams.
pub async fn accept(connection: Connection, wanted: Wanted) -> Result<(Input, Output), AcceptError> {
    let (mut events, writer) = session::serve(connection)?;
    let mut reader = Reader::default();
    let opening = async {
        while !reader.streams.complete(wanted) {
            match events.next().await {
                Some(Event::Opened { stream, headers, .. }) => {
                    if !reader.streams.open(stream, &headers) {
                        writer.reset(stream).await;
                    }
                }
                Some(event) => reader.take(event),
                None => return Err(AcceptError::Gone),
            }
        }
        Ok(())
    };
    tokio::time::timeout(OPENING, opening).await.map_err(|_| AcceptError::Slow)??;
    let output = Output { streams: reader.streams, writer };
    Ok((Input { events, reader }, output))
}

impl Output {
    /// Sends output on a channel; false when the client is gone.
    pub async fn send(&self, channel: u8, data: &[u8]) -> bool {
        let stream = match channel {
            STDOUT => self.streams.stdout,
            STDERR => self.streams.stderr,
            _ => None,
        };
        match stream {
            Some(stream) => self.writer.data(stream, data).await,
            // Not asked for.
            None => true,
        }
    }

    /// Ends the output and tells the status.
    pub async fn finish(self, end: &Result<i32, String>) {
        let Streams { status, stdin, stdout, stderr, resize } = self.streams;
        for stream in [stdout, stderr].into_iter().flatten() {
            self.writer.end(stream).await;
        }
        if let Some(status) = status {
            self.writer.data(status, status_object(end).to_string().as_bytes()).await;
            self.writer.end(status).await;
        }
        for stream in [stdin, resize].into_iter().flatten() {
            self.writer.end(stream).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn opened(kinds: &[&str]) -> Streams {
        let mut streams = Streams::default();
        for (kind, stream) in kinds.iter().zip([1, 3, 5, 7, 9]) {
            assert!(streams.open(stream, &Headers::new(&[("streamType", kind)])), "{kind}");
        }
        streams
    }

    #[test]
    fn the_request_says_which_streams_to_wait_for() {
        let table: [(&str, &[&str], bool); 5] = [
            ("output=1&error=1", &["error", "stdout", "stderr"], true),
            ("output=1&error=1", &["error", "stdout"], false),
            ("input=1&output=1&error=1&tty=1", &["error", "stdin", "stdout", "resize"], true),
            ("input=1&output=1&tty=1", &["error", "stdin", "stdout"], false),
            ("output=1", &["stdout"], false),
        ];
        for (query, kinds, expected) in table {
            let wanted = Wanted::of(&Query::parse(query));
            assert_eq!(opened(kinds).complete(wanted), expected, "{query} {kinds:?}");
        }
    }

    #[test]
    fn unknown_and_second_streams_are_not_wanted() {
        let mut streams = opened(&["error", "stdout"]);
        for headers in [Headers::new(&[("streamType", "stdout")]), Headers::new(&[("streamType", "x")])] {
            assert!(!streams.open(11, &headers), "{headers:?}");
        }
    }

    #[test]
    fn input_its_end_and_sizes_are_told_apart_by_stream() {
        let mut reader =
            Reader { streams: opened(&["error", "stdin", "stdout", "resize"]), ..Reader::default() };
        let data = |stream, text: &'static str, fin| Event::Data {
            stream,
            data: Bytes::from_static(text.as_bytes()),
            fin,
        };
        for event in [
            data(3, "ls", false),
            data(7, r#"{"Width":80,"#, false),
            data(1, "nobody reads this", true),
            data(7, "\"Height\":24}\n{\"Width\":100,\"Height\":30}\n", false),
            data(3, "\n", true),
            Event::Reset { stream: 3 },
            Event::Reset { stream: 5 },
        ] {
            reader.take(event);
        }
        assert_eq!(
            Vec::from(reader.said),
            [
                Incoming::Input(b"ls".to_vec()),
                Incoming::Resize(80, 24),
                Incoming::Resize(100, 30),
                Incoming::Input(b"\n".to_vec()),
                Incoming::EndOfInput,
                Incoming::EndOfInput,
            ]
        );
    }
}
