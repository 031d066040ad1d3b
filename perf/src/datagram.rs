//! One datagram and its answer, over a connected UDP socket. No retries: a lost datagram is an error.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Sends `text` to `target` and returns the answer as text.
pub(crate) fn ask(target: SocketAddr, text: &str) -> Result<String> {
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target).with_context(|| format!("connect to {target}"))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(text.as_bytes()).with_context(|| format!("send to {target}"))?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).with_context(|| format!("no answer from {target}"))?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
