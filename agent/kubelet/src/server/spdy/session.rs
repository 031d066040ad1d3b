//! A SPDY connection that a client opened: its events on one side, frames for it on the other. Pings are answered,
//! streams accepted and window updates sent here.
//!
//! The client's windows are not waited for: Kubernetes' clients (moby/spdystream) neither open nor heed windows, so
//! what slows a sender down is the connection itself, for all its streams together.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::SpdyError;
use super::frame::{CANCEL, Decoder, Encoder, Frame, PROTOCOL_ERROR};
use super::headers::Headers;

/// Frames that may wait to be written.
const BACKLOG: usize = 16;
/// Longest piece of data in a frame that is sent.
const CHUNK: usize = 32 * 1024;
/// Written at once at most, about.
const BATCH: usize = 64 * 1024;

/// What a client does.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Opened a stream.
    Opened {
        /// Stream.
        stream: u32,
        /// What for.
        headers: Headers,
        /// It says nothing on it.
        fin: bool,
    },
    /// Said something on a stream, perhaps nothing but its end.
    Data {
        /// Stream.
        stream: u32,
        /// Bytes.
        data: Bytes,
        /// The last.
        fin: bool,
    },
    /// Gave a stream up.
    Reset {
        /// Stream.
        stream: u32,
    },
}

/// The reading side.
pub struct Events<S> {
    io: ReadHalf<S>,
    buffer: BytesMut,
    decoder: Decoder,
    /// Answers not handed over yet.
    answers: VecDeque<Frame>,
    writer: Writer,
    last: u32,
    ended: bool,
}

/// The writing side. The connection's writing end closes with the last clone (one is in [`Events`]).
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Frame>);

/// Starts to serve a connection.
pub fn serve<S>(io: S) -> Result<(Events<S>, Writer), SpdyError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let encoder = Encoder::new()?;
    tokio::spawn(async move {
        if let Err(error) = write_frames(write, encoder, receiver).await {
            tracing::debug!(%error, "SPDY connection cannot be written to");
        }
    });
    let writer = Writer(sender);
    let events = Events {
        io: read,
        buffer: BytesMut::new(),
        decoder: Decoder::default(),
        answers: VecDeque::new(),
        writer: writer.clone(),
        last: 0,
        ended: false,
    };
    Ok((events, writer))
}

async fn write_frames<S: AsyncWrite>(
    mut io: WriteHalf<S>,
    mut encoder: Encoder,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        encoder.encode(&frame, &mut out).map_err(io::Error::other)?;
        while out.len() < BATCH
            && let Ok(frame) = frames.try_recv()
        {
            encoder.encode(&frame, &mut out).map_err(io::Error::other)?;
        }
        io.write_all_buf(&mut out).await?;
        io.flush().await?;
    }
    io.shutdown().await
}

impl<S: AsyncRead> Events<S> {
    /// The next event; `None`: the client is gone. May be dropped before it is ready and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while !self.answers.is_empty() {
                let Ok(permit) = self.writer.0.reserve().await else {
                    self.ended = true;
                    return None;
                };
                if let Some(answer) = self.answers.pop_front() {
                    permit.send(answer);
                }
            }
            if self.ended {
                return None;
            }
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => {
                    if let Some(event) = self.take(frame) {
                        return Some(event);
                    }
                }
                Ok(None) => match self.io.read_buf(&mut self.buffer).await {
                    Ok(length) if length > 0 => {}
                    _ => self.ended = true,
                },
                Err(error) => {
                    tracing::debug!(%error, "SPDY connection is broken");
                    self.answers.push_back(Frame::GoAway { last: self.last, status: PROTOCOL_ERROR });
                    self.ended = true;
                }
            }
        }
    }

    /// What a frame means; what it must be answered with waits in `answers`.
    fn take(&mut self, frame: Frame) -> Option<Event> {
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                // A client's streams have odd numbers that only grow.
                if stream % 2 == 0 || stream <= self.last {
                    self.answers.push_back(Frame::RstStream { stream, status: PROTOCOL_ERROR });
                    return None;
                }
                self.last = stream;
                self.answers.push_back(Frame::SynReply { stream, headers: Headers::default(), fin: false });
                Some(Event::Opened { stream, headers, fin })
            }
            Frame::Data { stream, data, fin } => {
                if let Ok(delta) = u32::try_from(data.len())
                    && delta > 0
                {
                    self.answers.push_back(Frame::WindowUpdate { stream: 0, delta });
                    if !fin {
                        self.answers.push_back(Frame::WindowUpdate { stream, delta });
                    }
                }
                Some(Event::Data { stream, data, fin })
            }
            Frame::Headers { stream, fin: true, .. } => {
                Some(Event::Data { stream, data: Bytes::new(), fin: true })
            }
            Frame::RstStream { stream, .. } => Some(Event::Reset { stream }),
            Frame::Ping(id) => {
                // Even ones would be answers to ours; none is sent.
                if id % 2 == 1 {
                    self.answers.push_back(Frame::Ping(id));
                }
                None
            }
            Frame::Headers { .. }
            | Frame::SynReply { .. }
            | Frame::Settings(_)
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. } => None,
        }
    }
}

impl Writer {
    /// Sends data; false when the client is gone.
    pub async fn data(&self, stream: u32, data: &[u8]) -> bool {
        for piece in data.chunks(CHUNK) {
            let frame = Frame::Data { stream, data: Bytes::copy_from_slice(piece), fin: false };
            if self.0.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends this side of a stream.
    pub async fn end(&self, stream: u32) {
        // A client that is gone needs no end.
        let _ = self.0.send(Frame::Data { stream, data: Bytes::new(), fin: true }).await;
    }

    /// Gives a stream up.
    pub async fn reset(&self, stream: u32) {
        let _ = self.0.send(Frame::RstStream { stream, status: CANCEL }).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Writes what a client would, and reads frames from the server until there is one that `wanted` takes.
    struct Client {
        io: tokio::io::DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        buffer: BytesMut,
    }

    impl Client {
        fn new(io: tokio::io::DuplexStream) -> Self {
            let encoder = Encoder::new().unwrap();
            Self { io, encoder, decoder: Decoder::default(), buffer: BytesMut::new() }
        }

        async fn send(&mut self, frame: Frame) {
            let mut out = BytesMut::new();
            self.encoder.encode(&frame, &mut out).unwrap();
            self.io.write_all(&out).await.unwrap();
        }

        async fn receive(&mut self) -> Option<Frame> {
            loop {
                if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                    return Some(frame);
                }
                if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    return None;
                }
            }
        }
    }

    #[tokio::test]
    async fn streams_are_accepted_pings_answered_and_data_acknowledged() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut events, writer) = serve(near).unwrap();
        let mut client = Client::new(far);
        let headers = Headers::new(&[("streamtype", "stdin")]);
        let data = Bytes::from_static(b"abc");
        for frame in [
            Frame::Ping(1),
            Frame::SynStream { stream: 1, headers: headers.clone(), fin: false },
            Frame::SynStream { stream: 2, headers: headers.clone(), fin: false },
            Frame::Settings(vec![(7, 1)]),
            Frame::Data { stream: 1, data: data.clone(), fin: false },
            Frame::RstStream { stream: 1, status: CANCEL },
        ] {
            client.send(frame).await;
        }
        assert_eq!(events.next().await, Some(Event::Opened { stream: 1, headers, fin: false }));
        assert_eq!(events.next().await, Some(Event::Data { stream: 1, data, fin: false }));
        assert_eq!(events.next().await, Some(Event::Reset { stream: 1 }));
        assert!(writer.data(1, &vec![7; CHUNK + 1]).await);
        writer.end(1).await;
        let mut answers = Vec::new();
        while answers.len() < 8 {
            answers.push(client.receive().await.unwrap());
        }
        assert_eq!(
            answers[..5],
            [
                Frame::Ping(1),
                Frame::SynReply { stream: 1, headers: Headers::default(), fin: false },
                Frame::RstStream { stream: 2, status: PROTOCOL_ERROR },
                Frame::WindowUpdate { stream: 0, delta: 3 },
                Frame::WindowUpdate { stream: 1, delta: 3 },
            ]
        );
        drop(client);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn a_broken_frame_ends_the_session_with_a_goaway() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut events, writer) = serve(near).unwrap();
        let mut client = Client::new(far);
        client.io.write_all(&[0x80, 9, 0, 1, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(events.next().await, None);
        drop((events, writer));
        assert_eq!(client.receive().await, Some(Frame::GoAway { last: 0, status: PROTOCOL_ERROR }));
        assert_eq!(client.receive().await, None);
    }
}
