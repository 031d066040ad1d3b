//! One TCP connection: what came, what is still to be sent, and what it waits for. Reads and writes until the socket
//! would block; the server tells it when to go on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use crate::http::{self, Follow, Request};
use crate::identity::Identity;
use crate::line;

/// A line or a request's head may be so long: what is longer ends the connection.
const LONGEST: usize = 64 * 1024;
/// No more is read while so much waits to be sent.
const BACKLOG: usize = 256 * 1024;
/// Time between two lines of a stream.
const STREAM_INTERVAL: Duration = Duration::from_millis(100);
/// So many writes of zeros are one connection's turn.
const TURN: usize = 16;
/// What bulk transfers are made of.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What the bytes of a connection mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// A line is answered with a line.
    Lines,
    /// HTTP/1.1.
    Http,
}

/// What a connection does between two requests.
enum Phase {
    Requests,
    Zeros { left: u64 },
    Stream { until: Instant, next: Instant },
}

/// What a connection needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// To be called when bytes have come.
    Read,
    /// To be called when bytes can leave (or have come).
    Write,
    /// To be called at this instant.
    Timer(Instant),
    /// To be closed.
    Close,
}

/// One connection.
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    protocol: Protocol,
    /// What the server says to this client.
    answer: String,
    input: Vec<u8>,
    output: Vec<u8>,
    /// So much of `output` has been sent.
    sent: usize,
    phase: Phase,
    /// There may be bytes to read.
    readable: bool,
    /// The end follows what there is to read: no further edge announces it.
    hung_up: bool,
    /// The client sends no more.
    ended: bool,
    /// The client wants no more than what it has asked for.
    closing: bool,
}

impl Session {
    /// A connection that has just been accepted.
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, protocol: Protocol, identity: &Identity) -> Self {
        Self {
            stream,
            protocol,
            answer: identity.answer(peer),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            phase: Phase::Requests,
            readable: false,
            hung_up: false,
            ended: false,
            closing: false,
        }
    }

    /// The socket has become readable, up to the client's end if `last`.
    pub(crate) fn notice(&mut self, last: bool) {
        self.readable = true;
        self.hung_up |= last;
    }

    /// Goes on as far as the socket allows. An error of the socket closes the connection: it is the client's own.
    pub(crate) fn advance(&mut self, now: Instant) -> Wish {
        self.try_advance(now).unwrap_or(Wish::Close)
    }

    fn try_advance(&mut self, now: Instant) -> io::Result<Wish> {
        loop {
            if !self.flush()? {
                return Ok(Wish::Write);
            }
            match self.phase {
                Phase::Zeros { ref mut left } => {
                    let blocked = !send_zeros(&mut self.stream, left)?;
                    if *left == 0 {
                        self.phase = Phase::Requests;
                    } else {
                        // A reader that never lets us block must not keep the others waiting.
                        return Ok(if blocked { Wish::Write } else { Wish::Timer(now) });
                    }
                }
                Phase::Stream { until, next } => {
                    // A client that has closed its end is noticed by its answer to our next line.
                    if now < next {
                        return Ok(Wish::Timer(next));
                    }
                    self.stream_line(until, next, now);
                }
                Phase::Requests => {
                    let answered = self.answer_requests(now);
                    if !answered && (self.ended || self.closing) {
                        return Ok(Wish::Close);
                    }
                    if !answered && !self.readable {
                        return Ok(Wish::Read);
                    }
                    if !answered {
                        self.read()?;
                    }
                }
            }
        }
    }

    /// Sends what waits; whether all of it left.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Reads once. Events come on edges: less than was asked for means that the socket is empty (epoll(7)).
    fn read(&mut self) -> io::Result<()> {
        if self.input.len() > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => {
                self.input.extend_from_slice(&buffer[..length]);
                self.readable = length == buffer.len() || self.hung_up;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Answers the whole requests that have come; whether there was one.
    fn answer_requests(&mut self, now: Instant) -> bool {
        let mut used = 0;
        while self.output.len() < BACKLOG && matches!(self.phase, Phase::Requests) {
            match self.answer_one(used, now) {
                Some(length) => used += length,
                None => break,
            }
        }
        self.input.drain(..used);
        used > 0
    }

    fn answer_one(&mut self, from: usize, now: Instant) -> Option<usize> {
        let input = &self.input[from..];
        match self.protocol {
            Protocol::Lines => {
                let (length, text) = line::next(input)?;
                line::respond(text, &self.answer, &mut self.output);
                Some(length)
            }
            Protocol::Http if self.closing => None,
            Protocol::Http => {
                let (length, request) = Request::next(input)?;
                self.phase = match http::respond(&request, &self.answer, &mut self.output) {
                    Follow::Request => Phase::Requests,
                    Follow::Zeros(left) => Phase::Zeros { left },
                    Follow::Lines(time) => Phase::Stream { until: now + time, next: now },
                    Follow::Exit(code) => std::process::exit(code),
                };
                self.closing |= request.close;
                Some(length)
            }
        }
    }

    fn stream_line(&mut self, until: Instant, next: Instant, now: Instant) {
        if now >= until {
            self.output.extend_from_slice(http::LAST_CHUNK);
            self.phase = Phase::Requests;
        } else {
            http::chunk(&self.answer, &mut self.output);
            self.phase = Phase::Stream { until, next: next + STREAM_INTERVAL };
        }
    }
}

/// Sends zeros until none are left or it is another connection's turn; false if the socket would block.
fn send_zeros(stream: &mut TcpStream, left: &mut u64) -> io::Result<bool> {
    for _ in 0..TURN {
        if *left == 0 {
            break;
        }
        let length = usize::try_from(*left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        match stream.write(&ZEROS[..length]) {
            Ok(length) => *left -= length as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
