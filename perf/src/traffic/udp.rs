//! UDP: a datagram and its answer, on one socket or on a new one each time. Nothing is sent twice: a lost datagram is
//! a failure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Target, Traffic};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(1);

fn connect(address: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn ask(socket: &UdpSocket, address: SocketAddr) -> Result<()> {
    let mut buffer = [0; 512];
    socket.send(b"x").with_context(|| format!("send to {address}"))?;
    socket.recv(&mut buffer).with_context(|| format!("no answer from {address}"))?;
    Ok(())
}

/// A datagram and its answer on one socket.
pub(super) struct SameSocket {
    address: SocketAddr,
    socket: Option<UdpSocket>,
}

impl SameSocket {
    pub(super) fn new(target: Target) -> Self {
        Self { address: target.echo(), socket: None }
    }
}

impl Traffic for SameSocket {
    fn once(&mut self) -> Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(self.address)?,
        };
        // After a failure a late answer must not be taken for the next one's: the socket goes.
        ask(&socket, self.address)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// A datagram and its answer on a socket of its own.
pub(super) struct NewSocket(SocketAddr);

impl NewSocket {
    pub(super) fn new(target: Target) -> Self {
        Self(target.echo())
    }
}

impl Traffic for NewSocket {
    fn once(&mut self) -> Result<()> {
        ask(&connect(self.0)?, self.0)
    }
}
