//! ICMP echo, by a raw socket: what a `ping` command would send.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};

use crate::fabric::open;

/// Asks once from a namespace; whether the address itself has answered.
pub fn answers(namespace: &str, to: IpAddr) -> bool {
    open(namespace).run(|| echo(to)).unwrap().unwrap_or(false)
}

fn echo(to: IpAddr) -> io::Result<bool> {
    let (family, protocol, request, reply, header) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(400)))?;
    // Only what comes from there.
    rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
    // Type, code, checksum, identifier, sequence number, data. The kernel fills in ICMPv6's checksum (RFC 3542, 3.1).
    let mut message = [request, 0, 0, 0, 0xbe, 0xe1, 0, 1, b'p', b'i', b'n', b'g'];
    if to.is_ipv4() {
        let words = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        message[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    }
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    loop {
        let mut buffer = [0; 256];
        let (_, length) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        let answer = buffer.get(header..length).unwrap_or_default();
        if answer.first() == Some(&reply) && answer.get(4..) == Some(&message[4..]) {
            return Ok(true);
        }
    }
}
