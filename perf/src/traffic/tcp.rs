//! TCP: connect + request + close, connect alone, and requests on an open connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Target, Traffic};

/// An answer that takes longer is a failure, not a sample.
const LIMIT: Duration = Duration::from_secs(5);

fn connect(address: SocketAddr, reset: bool) -> Result<TcpStream> {
    // Not TcpStream::connect_timeout, which waits in poll(2): a limit on sending holds for connect(2), too (socket(7)).
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(LIMIT))?;
    if reset {
        set_socket_linger(&socket, Some(Duration::ZERO))?;
    }
    rustix::net::connect(&socket, &address).with_context(|| format!("connect to {address}"))?;
    Ok(TcpStream::from(socket))
}

/// One line and its answer.
fn ask(stream: &mut TcpStream, address: SocketAddr) -> Result<()> {
    stream.write_all(b"x\n").with_context(|| format!("send to {address}"))?;
    let mut buffer = [0; 512];
    loop {
        let length = stream.read(&mut buffer).with_context(|| format!("receive from {address}"))?;
        ensure!(length > 0, "{address} closed before its line ended");
        if buffer[..length].ends_with(b"\n") {
            return Ok(());
        }
    }
}

/// Connect, one line, its answer, close.
pub(super) struct Crr(SocketAddr, bool);

impl Crr {
    pub(super) fn new(target: Target) -> Self {
        Self(target.echo(), target.reset)
    }
}

impl Traffic for Crr {
    fn once(&mut self) -> Result<()> {
        let mut stream = connect(self.0, self.1)?;
        stream.set_read_timeout(Some(LIMIT))?;
        ask(&mut stream, self.0)
    }
}

/// Connect, close.
pub(super) struct Connect(SocketAddr, bool);

impl Connect {
    pub(super) fn new(target: Target) -> Self {
        Self(target.echo(), target.reset)
    }
}

impl Traffic for Connect {
    fn once(&mut self) -> Result<()> {
        connect(self.0, self.1).map(drop)
    }
}

/// One line and its answer on a connection that stays.
pub(super) struct Rr {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Rr {
    pub(super) fn new(target: Target) -> Self {
        Self { address: target.echo(), stream: None }
    }
}

impl Traffic for Rr {
    fn once(&mut self) -> Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = connect(self.address, false)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream
            }
        };
        ask(&mut stream, self.address)?;
        self.stream = Some(stream);
        Ok(())
    }
}
