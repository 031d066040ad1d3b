//! Bulk TCP: a fixed number of bytes over HTTP on a connection that stays open.
//!
//! On a machine whose network is memory it says little: segmentation offload hides what each packet costs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{BULK_BYTES, Target, Traffic};

/// Silence for so long is a failure.
const LIMIT: Duration = Duration::from_secs(5);
/// An answer's head is shorter.
const HEAD: usize = 4096;

pub(super) struct Download {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Download {
    pub(super) fn new(target: Target) -> Self {
        Self { address: target.http(), stream: None, buffer: vec![0; 256 * 1024] }
    }

    fn receive(&mut self, stream: &mut TcpStream) -> Result<()> {
        let request = format!("GET /bytes?count={BULK_BYTES} HTTP/1.1\r\nHost: perf\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        let head = loop {
            let length = stream.read(&mut self.buffer[filled..])?;
            ensure!(length > 0, "closed in the answer's head");
            filled += length;
            if let Some(end) = self.buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if filled > HEAD {
                bail!("the answer's head does not end");
            }
        };
        ensure!(self.buffer.starts_with(b"HTTP/1.1 200"), "the answer is not 200");
        let mut left = BULK_BYTES.checked_sub((filled - head) as u64).context("more than was asked for")?;
        while left > 0 {
            let length = stream.read(&mut self.buffer)? as u64;
            ensure!(length > 0, "closed {left} bytes before the end");
            left = left.checked_sub(length).context("more than was asked for")?;
        }
        Ok(())
    }
}

impl Traffic for Download {
    fn once(&mut self) -> Result<()> {
        let address = self.address;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream
            }
        };
        self.receive(&mut stream).with_context(|| format!("bulk from {address}"))?;
        self.stream = Some(stream);
        Ok(())
    }
}
