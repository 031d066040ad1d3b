//! A client process that asks many questions, a few at a time, and tells for each which backends answered and whom they saw.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use crate::process::{self, Place, Process, say};
use crate::server::{BLOCKS, ECHO};
use crate::stream;

/// A question. As long as what a refusal quotes: in native mode a veth leaves too little room behind a shorter packet for the refusal.
pub const QUESTION: &[u8] = b"who are you, and whom do you see?\n";
/// Questions that one client has open at a time.
const WORKERS: usize = 8;

/// The next source port of this process.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// How a question is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// A connection of its own.
    Tcp,
    /// A datagram from a socket without a peer: the answer must come from the address that was asked.
    Udp,
    /// A datagram from a connected socket, which learns of refusals.
    UdpConnected,
    /// A connection that carries so many blocks there and back ([`crate::stream`]).
    Stream(u32),
    /// Datagrams of these many bytes that must come back as they were.
    Echo(u16),
    /// No question: the client binds to the port itself, for TCP and for UDP.
    Bind,
}

/// A question, asked until `want` backends have answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    pub transport: Transport,
    pub to: SocketAddr,
    /// Backends to be seen.
    pub want: usize,
    /// Questions at most.
    pub tries: usize,
    /// How long to wait for each answer.
    pub patience_ms: u64,
    /// The source port, if it matters.
    pub from: Option<u16>,
}

/// One backend's answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sight {
    pub backend: String,
    /// The client's address as the backend saw it.
    pub seen: IpAddr,
    /// The server's address as the client's socket names it.
    pub peer: SocketAddr,
}

/// What became of an [`Ask`]: it ends with the first question that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Answered(BTreeSet<Sight>),
    /// An active refusal; of [`Transport::Bind`]: the port is taken.
    Refused,
    /// No answer in time, or no way there.
    Silent,
    Failed(String),
}

/// The parent's handle.
pub struct Client(Process);

impl Client {
    /// Its sockets get source ports from this one on, each once: a pod that uses one port towards a service on packets and soon after
    /// straight to the service's backend gets the second answer from the service.
    pub fn start(place: &Place, first_port: u16) -> Self {
        Self(Process::start(place, "client", &first_port.to_string()).ready())
    }

    /// Hands the questions over; [`Client::outcomes`] collects.
    pub fn ask(&mut self, asks: &[Ask]) {
        self.0.tell(&serde_json::to_string(asks).unwrap());
    }

    /// What became of the questions, in their order.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        serde_json::from_str(&self.0.line().unwrap()).unwrap()
    }

    /// One question, once; from this source port if it matters.
    pub fn once(&mut self, transport: Transport, to: SocketAddr, from: Option<u16>) -> Outcome {
        self.ask(&[Ask { transport, to, want: 1, tries: 1, patience_ms: 700, from }]);
        self.outcomes().remove(0)
    }
}

/// The child's side: a line of questions in, a line of outcomes out.
pub fn main() {
    NEXT_PORT.store(process::arguments().parse().unwrap(), Ordering::Relaxed);
    say("ready");
    for asks in io::stdin().lines() {
        let asks: Vec<Ask> = serde_json::from_str(&asks.unwrap()).unwrap();
        say(&serde_json::to_string(&all(asks)).unwrap());
    }
}

fn all(asks: Vec<Ask>) -> Vec<Outcome> {
    let waiting = Arc::new(Mutex::new(asks.into_iter().enumerate()));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..WORKERS {
        let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
        std::thread::spawn(move || {
            loop {
                let next = waiting.lock().unwrap().next();
                let Some((number, ask)) = next else { return };
                sender.send((number, one(&ask))).unwrap();
            }
        });
    }
    drop(sender);
    let mut outcomes: Vec<(usize, Outcome)> = receiver.iter().collect();
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn one(ask: &Ask) -> Outcome {
    let mut sights = BTreeSet::new();
    let mut backends = BTreeSet::new();
    for _ in 0..ask.tries {
        match question(ask) {
            Ok(sight) => {
                backends.insert(sight.backend.clone());
                sights.insert(sight);
            }
            Err(error) if sights.is_empty() => return outcome(&error),
            Err(error) => return Outcome::Failed(format!("{error} after answers from {sights:?}")),
        }
        if backends.len() >= ask.want {
            break;
        }
    }
    Outcome::Answered(sights)
}

fn outcome(error: &io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::AddrInUse => Outcome::Refused,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::HostUnreachable => Outcome::Silent,
        // What connect says when SO_SNDTIMEO is over (socket(7)).
        _ if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Outcome::Silent,
        _ => Outcome::Failed(error.to_string()),
    }
}

fn question(ask: &Ask) -> io::Result<Sight> {
    let patience = Some(Duration::from_millis(ask.patience_ms));
    let any: IpAddr = if ask.to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
    let from = ask.from.unwrap_or_else(|| NEXT_PORT.fetch_add(1, Ordering::Relaxed));
    let any = SocketAddr::new(any, from);
    let (text, peer) = match ask.transport {
        Transport::Tcp => {
            let mut stream = connect(any, ask.to, patience)?;
            stream.set_read_timeout(patience)?;
            stream.write_all(QUESTION)?;
            let mut text = String::new();
            BufReader::new(&stream).read_line(&mut text)?;
            (text, stream.peer_addr()?)
        }
        Transport::Udp => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.send_to(QUESTION, ask.to)?;
            let mut buffer = [0; 128];
            let (length, from) = socket.recv_from(&mut buffer)?;
            (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
        }
        Transport::UdpConnected => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.connect(ask.to)?;
            socket.send(QUESTION)?;
            let mut buffer = [0; 128];
            let length = socket.recv(&mut buffer)?;
            (String::from_utf8_lossy(&buffer[..length]).into_owned(), socket.peer_addr()?)
        }
        Transport::Stream(blocks) => {
            let mut stream = connect(any, ask.to, patience)?;
            stream.set_read_timeout(patience)?;
            stream.write_all(format!("{BLOCKS}{blocks}\n").as_bytes())?;
            stream::give(&mut stream, blocks)?;
            let mut answers = BufReader::new(&stream);
            stream::take(&mut answers, blocks)?;
            let mut text = String::new();
            answers.read_line(&mut text)?;
            (text, stream.peer_addr()?)
        }
        Transport::Echo(length) => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            (format!("echo {}", any.ip()), echo(&socket, ask.to, length)?)
        }
        Transport::Bind => {
            let own = SocketAddr::new(any.ip(), ask.to.port());
            let _both = (TcpListener::bind(own)?, UdpSocket::bind(own)?);
            (format!("bound {}", any.ip()), own)
        }
    };
    let (backend, seen) = text.trim().split_once(' ').ok_or_else(|| io::Error::other("half an answer"))?;
    let seen = seen.parse().map_err(io::Error::other)?;
    Ok(Sight { backend: backend.to_owned(), seen, peer })
}

/// Sends a datagram of this length, which must come back as it was; from where it came.
fn echo(socket: &UdpSocket, to: SocketAddr, length: u16) -> io::Result<SocketAddr> {
    let mut sent = vec![b'.'; usize::from(length)];
    sent[..ECHO.len()].copy_from_slice(ECHO);
    sent.iter_mut().skip(ECHO.len()).enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
    socket.send_to(&sent, to)?;
    let mut buffer = vec![0; 1 << 16];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if buffer[..length] == sent {
        Ok(from)
    } else {
        Err(io::Error::other(format!("{length} bytes came back, not the same")))
    }
}

/// Connects; `SO_SNDTIMEO` counts for `connect`, too (socket(7)).
pub fn connect(from: SocketAddr, to: SocketAddr, patience: Option<Duration>) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    // The port's last connection may be in TIME_WAIT, to another address.
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &from)?;
    set_socket_timeout(&socket, Timeout::Send, patience)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}
