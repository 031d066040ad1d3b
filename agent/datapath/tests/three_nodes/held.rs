//! Connections and UDP sockets that stay: a process that asks by each of them once more whenever it is told to.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::client::{QUESTION, Transport, connect};
use crate::process::{self, Place, Process, say};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The next source port: each once, and none that a client process or the kernel would choose.
static NEXT_PORT: AtomicU16 = AtomicU16::new(9_000);

/// Names of the backends that answered, or what went wrong; in the order of the sockets.
pub type Answers = Vec<Result<String, String>>;

/// The parent's handle.
pub struct Held(Process);

impl Held {
    /// Opens a socket to each of these addresses: [`Transport::Tcp`] or [`Transport::Udp`].
    pub fn start(place: &Place, transport: Transport, to: &[SocketAddr]) -> Self {
        let ports = to.iter().map(|to| (*to, NEXT_PORT.fetch_add(1, Ordering::Relaxed)));
        let arguments = (transport, ports.collect::<Vec<_>>());
        Self(Process::start(place, "held", &serde_json::to_string(&arguments).unwrap()).ready())
    }

    /// Asks once more by each.
    pub fn ask(&mut self) -> Answers {
        serde_json::from_str(&self.0.ask("ask")).unwrap()
    }
}

enum Socket {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket, SocketAddr),
}

/// The child's side.
pub fn main() {
    let (transport, to): (Transport, Vec<(SocketAddr, u16)>) =
        serde_json::from_str(&process::arguments()).unwrap();
    let mut sockets: Vec<Socket> =
        to.into_iter().map(|(to, from)| Socket::open(transport, to, from).unwrap()).collect();
    say("ready");
    for _ in io::stdin().lines() {
        let answers = sockets.iter_mut().map(|socket| socket.ask().map_err(|error| error.to_string()));
        say(&serde_json::to_string(&answers.collect::<Answers>()).unwrap());
    }
}

impl Socket {
    fn open(transport: Transport, to: SocketAddr, port: u16) -> io::Result<Self> {
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let from = SocketAddr::new(any, port);
        if transport == Transport::Tcp {
            let stream = connect(from, to, Some(PATIENCE))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Self::Tcp(BufReader::new(stream)))
        } else {
            let socket = UdpSocket::bind(from)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Self::Udp(socket, to))
        }
    }

    fn ask(&mut self) -> io::Result<String> {
        let mut answer = String::new();
        match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(QUESTION)?;
                stream.read_line(&mut answer)?;
            }
            Self::Udp(socket, to) => {
                socket.send_to(QUESTION, *to)?;
                let mut buffer = [0; 128];
                let (length, from) = socket.recv_from(&mut buffer)?;
                if from != *to {
                    return Err(io::Error::other(format!("asked {to}, answered by {from}")));
                }
                answer.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        }
        let name = answer.split_once(' ').map(|(name, _)| name.to_owned());
        name.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }
}
