//! `echo`: the server that examples, tests and benchmarks talk to. It says which pod and node answered and which
//! client address it saw, over HTTP (port 8080), raw TCP lines (9090) and UDP datagrams (9090).
//!
//! It is one static binary without dependencies on an image. It is not a benchmark of HTTP: it answers a thread a
//! connection, and parses no more of HTTP/1.1 than its clients send.
//!
//! After SIGTERM it keeps serving for [`DRAIN`], so that no client meets a closed port while the cluster still learns
//! that the pod goes; then it exits as soon as the last connection has ended. A stream that never ends keeps it
//! alive until the kubelet's SIGKILL.

mod http;
mod identity;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use identity::Identity;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long new connections are still served after SIGTERM.
const DRAIN: Duration = Duration::from_secs(2);

/// Connections being served; the process ends at zero once SIGTERM came and [`DRAIN`] passed.
static OPEN: AtomicUsize = AtomicUsize::new(0);

fn main() -> std::io::Result<()> {
    let identity = Arc::new(Identity::from_env());
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let udp = UdpSocket::bind(("::", port("ECHO_PORT", 9090)))?;
    serve_tcp(port("HTTP_PORT", 8080), http::serve, &identity)?;
    serve_tcp(port("ECHO_PORT", 9090), serve_lines, &identity)?;
    thread::spawn({
        let identity = identity.clone();
        move || serve_datagrams(&udp, &identity)
    });
    println!("{identity} serving");

    signals.forever().next();
    println!("{identity} draining");
    thread::sleep(DRAIN);
    while OPEN.load(Ordering::Acquire) > 0 {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The port in environment variable `name`, or `default`.
fn port(name: &str, default: u16) -> u16 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

type Session = fn(TcpStream, &Identity) -> std::io::Result<()>;

/// Accepts on `port` of every address (`::` takes IPv4 as well) and runs `session` in a thread a connection.
fn serve_tcp(port: u16, session: Session, identity: &Arc<Identity>) -> std::io::Result<()> {
    let listener = TcpListener::bind(("::", port))?;
    let identity = identity.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let identity = identity.clone();
            OPEN.fetch_add(1, Ordering::AcqRel);
            thread::spawn(move || {
                // A client that goes away ends its own session only.
                drop(session(stream, &identity));
                OPEN.fetch_sub(1, Ordering::AcqRel);
            });
        }
    });
    Ok(())
}

/// Answers each line with one line that says who answered and what it got.
fn serve_lines(mut stream: TcpStream, identity: &Identity) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        // One write, so that the answer leaves in one segment.
        stream.write_all(format!("{} got={}\n", identity.answer(peer), line?).as_bytes())?;
    }
    Ok(())
}

/// Answers each datagram with one datagram that says who answered and what it got.
fn serve_datagrams(socket: &UdpSocket, identity: &Identity) {
    let mut buffer = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let got = String::from_utf8_lossy(&buffer[..length]);
        drop(socket.send_to(format!("{} got={}\n", identity.answer(peer), got.trim_end()).as_bytes(), peer));
    }
}
