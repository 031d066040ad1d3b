//! `echo`: the server that examples, tests and benchmarks talk to. It says which pod and node answered and which
//! client address it saw, over HTTP (port 8080), raw TCP lines (9090) and UDP datagrams (9090).
//!
//! It is one static binary without dependencies on an image, and one event loop on one thread, so that what a
//! benchmark sees of it is the same for every connection. It parses no more of HTTP/1.1 than its clients send.
//!
//! After SIGTERM it keeps serving for [`DRAIN`], so that no client meets a closed port while the cluster still learns
//! that the pod goes; then it exits as soon as the last connection has ended. A stream that never ends keeps it
//! alive until the kubelet's SIGKILL.

mod datagram;
mod http;
mod identity;
mod line;
mod server;
mod session;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use identity::Identity;
use mio::Waker;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long new connections are still served after SIGTERM.
const DRAIN: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let identity = Identity::from_env();
    allow_many_connections();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let mut server = server::Server::bind(
        &server::Places {
            http: port("HTTP_PORT", 8080),
            echo: port("ECHO_PORT", 9090),
            datagrams: datagram_addresses(),
        },
        identity.clone(),
    )?;
    let drained = Arc::new(AtomicBool::new(false));
    let waker = server.waker()?;
    thread::spawn({
        let drained = drained.clone();
        let identity = identity.clone();
        move || wait_for_the_end(&mut signals, &identity, &drained, &waker)
    });
    println!("{identity} serving");
    server.run(&drained)
}

/// Sleeps until the first signal, then for [`DRAIN`], and tells the server.
fn wait_for_the_end(signals: &mut Signals, identity: &Identity, drained: &AtomicBool, waker: &Waker) {
    signals.forever().next();
    println!("{identity} draining");
    thread::sleep(DRAIN);
    drained.store(true, Ordering::Release);
    // It can fail only when the server's poll is gone, and then the process ends anyway.
    drop(waker.wake());
}

/// Takes as many file descriptors as the hard limit gives. What cannot be raised stays as it is.
fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap_or_default();
}

/// The addresses in `ECHO_UDP_ADDRESSES` (with commas between them), or all.
fn datagram_addresses() -> Vec<IpAddr> {
    let named = std::env::var("ECHO_UDP_ADDRESSES").unwrap_or_default();
    let addresses: Vec<_> = named.split(',').filter_map(|address| address.trim().parse().ok()).collect();
    if addresses.is_empty() { vec![Ipv6Addr::UNSPECIFIED.into()] } else { addresses }
}

/// The port in environment variable `name`, or `default`.
fn port(name: &str, default: u16) -> u16 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
