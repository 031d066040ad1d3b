//! Traffic that must not notice anything: long connections, short ones, and a stream of numbered datagrams, by a process of its own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::{self, Place, Process, say};
use crate::server::ECHO;

/// Pauses between the lines of all long connections, between short connections, and between datagrams.
const PAUSES: [Duration; 3] = [Duration::from_millis(40), Duration::from_millis(8), Duration::from_millis(3)];
/// After so long an answer is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the traffic.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    pub long: usize,
    /// Answers on long connections.
    pub long_answers: usize,
    pub short: usize,
    pub datagrams: usize,
    /// Connections that broke or were not made, datagrams without an answer.
    pub failures: Vec<String>,
}

/// The parent's handle.
pub struct Traffic(Process);

impl Traffic {
    /// Starts so many long connections to an address, and the other traffic to it.
    pub fn start(place: &Place, to: SocketAddr, long: usize) -> Self {
        let arguments = serde_json::to_string(&(to, long)).unwrap();
        Self(Process::start(place, "traffic", &arguments).ready())
    }

    /// Ends it.
    pub fn stop(mut self) -> Totals {
        serde_json::from_str(&self.0.ask("stop")).unwrap()
    }
}

/// What the threads of the child share.
#[derive(Clone)]
struct Shared {
    to: SocketAddr,
    over: Arc<AtomicBool>,
    totals: Arc<Mutex<Totals>>,
}

/// The child's side.
pub fn main() {
    let (to, long): (SocketAddr, usize) = serde_json::from_str(&process::arguments()).unwrap();
    let shared = Shared { to, over: Arc::default(), totals: Arc::default() };
    let connections: Vec<TcpStream> =
        (0..long).map(|_| TcpStream::connect_timeout(&to, PATIENCE).unwrap()).collect();
    shared.count(|totals| totals.long = connections.len());
    let threads: [JoinHandle<()>; 3] = [
        shared.spawn(move |shared| shared.long(connections)),
        shared.spawn(Shared::short),
        shared.spawn(Shared::datagrams),
    ];
    say("ready");
    let mut stop = String::new();
    io::stdin().read_line(&mut stop).unwrap();
    shared.over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    say(&serde_json::to_string(&*shared.totals.lock().unwrap()).unwrap());
}

impl Shared {
    fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) -> JoinHandle<()> {
        let shared = self.clone();
        std::thread::spawn(move || work(&shared))
    }

    fn count(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap());
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn fail(&self, what: &str, error: &io::Error) {
        self.count(|totals| totals.failures.push(format!("{what} to {}: {error}", self.to)));
    }

    fn long(&self, connections: Vec<TcpStream>) {
        let mut open: Vec<TcpStream> = connections;
        while !self.over() {
            open.retain_mut(|stream| match question(stream) {
                Ok(()) => {
                    self.count(|totals| totals.long_answers += 1);
                    true
                }
                Err(error) => {
                    self.fail("a long connection", &error);
                    false
                }
            });
            std::thread::sleep(PAUSES[0]);
        }
    }

    fn short(&self) {
        while !self.over() {
            match TcpStream::connect_timeout(&self.to, PATIENCE).and_then(|mut stream| question(&mut stream))
            {
                Ok(()) => self.count(|totals| totals.short += 1),
                Err(error) => self.fail("a short connection", &error),
            }
            std::thread::sleep(PAUSES[1]);
        }
    }

    /// One socket, one datagram at a time: each must come back.
    fn datagrams(&self) {
        let socket = UdpSocket::bind(if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in 0_u32.. {
            if self.over() {
                return;
            }
            match exchange(&socket, self.to, number) {
                Ok(()) => self.count(|totals| totals.datagrams += 1),
                Err(error) => self.fail(&format!("datagram {number}"), &error),
            }
            std::thread::sleep(PAUSES[2]);
        }
    }
}

/// A line there, a line back.
fn question(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"who\n")?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn exchange(socket: &UdpSocket, to: SocketAddr, number: u32) -> io::Result<()> {
    let datagram = [ECHO, &number.to_be_bytes()].concat();
    socket.send_to(&datagram, to)?;
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if from != to {
            return Err(io::Error::other(format!("answered by {from}")));
        }
        // One that was given up may still come.
        if buffer[..length] == datagram[..] {
            return Ok(());
        }
    }
}
