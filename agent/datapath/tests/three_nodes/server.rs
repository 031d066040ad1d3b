//! A backend: answers each line, over TCP and UDP and in both families, with its name and the client that it saw.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use crate::process::{self, Place, Process, say};
use crate::stream;

/// Where backends listen.
pub const PORT: u16 = 8080;

/// What a datagram begins with that is to come back as it is.
pub const ECHO: &[u8] = b"echo";
/// What a line begins with that announces so many blocks of a stream; as many come back.
pub const BLOCKS: &str = "blocks ";

/// A running backend; killed when dropped.
pub struct Server {
    _process: Process,
}

impl Server {
    pub fn start(place: &Place, name: &str) -> Self {
        Self { _process: Process::start(place, "server", name).ready() }
    }
}

/// The child's side.
pub fn main() {
    let name = process::arguments();
    let udp = UdpSocket::bind(("::", PORT)).unwrap();
    let tcp = TcpListener::bind(("::", PORT)).unwrap();
    say("ready");
    let udp_name = name.clone();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
            let answer = format!("{udp_name} {}", from.ip().to_canonical());
            // Asked for an echo, the answer is as long as the question.
            let answer = if buffer.starts_with(ECHO) { &buffer[..length] } else { answer.as_bytes() };
            let _ = udp.send_to(answer, from);
        }
    });
    for stream in tcp.incoming() {
        let (stream, name) = (stream.unwrap(), name.clone());
        std::thread::spawn(move || answer(stream, &name));
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        let blocks = line.strip_prefix(BLOCKS).and_then(|count| count.trim().parse().ok());
        let carried = blocks.map_or(Ok(()), |count| {
            stream::take(&mut lines, count).and_then(|()| stream::give(&mut stream, count))
        });
        if let Err(error) = carried {
            eprintln!("{name}: a stream from {peer}: {error}");
            return;
        }
        if stream.write_all(format!("{name} {}\n", peer.ip().to_canonical()).as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
