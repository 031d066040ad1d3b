//! UDP: each datagram is answered with one datagram that says who answered and what it got. Nothing is kept.

use std::io::{ErrorKind, Write};

use mio::net::UdpSocket;

use crate::identity::Identity;

/// The longest datagram that is answered in full.
const LONGEST: usize = 2048;

/// Answers everything that has arrived. An answer that cannot be sent is lost, as datagrams are.
pub(crate) fn answer_all(socket: &UdpSocket, identity: &Identity) {
    let mut buffer = [0; LONGEST];
    let mut answer = Vec::with_capacity(2 * LONGEST);
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                answer.clear();
                let got = String::from_utf8_lossy(&buffer[..length]);
                // Writing to memory cannot fail.
                drop(writeln!(answer, "{} got={}", identity.answer(peer), got.trim_end()));
                drop(socket.send_to(&answer, peer));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // An ICMP error about an earlier answer: it belongs to no datagram that waits here.
            Err(_) => {}
        }
    }
}
