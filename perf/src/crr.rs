//! One connect + request + close over TCP. It is closed loop: the next starts when the last has ended.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// An answer that takes longer is a failure of the measurement, not a sample.
const LIMIT: Duration = Duration::from_secs(5);

/// Connects, sends one line, reads until the answer's line end, closes.
pub(crate) fn once(address: SocketAddr) -> Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"x\n")?;
    let mut buffer = [0; 512];
    loop {
        let length = stream.read(&mut buffer).with_context(|| format!("read from {address}"))?;
        ensure!(length > 0, "{address} closed before its line ended");
        if buffer[..length].ends_with(b"\n") {
            return Ok(());
        }
    }
}
