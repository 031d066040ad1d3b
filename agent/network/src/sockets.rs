//! Connected UDP sockets of a network namespace, by `NETLINK_SOCK_DIAG` (sock_diag(7)): listed, judged by the caller, destroyed.
//!
//! A connected UDP socket keeps its peer for ever and nothing tells it that the peer is gone. A destroyed one wakes with `ECONNABORTED`
//! and its owner connects again. Which peers are gone, and which sockets came to them through a service, is the caller's knowledge. What
//! BPF programs stored in a socket is not shown here: the kernel's answer has it for TCP alone (`inet_sk_diag_fill`, seen on 6.18).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY` (linux/sock_diag.h).
const DESTROY: u16 = 21;
/// `NLMSG_ERROR` (linux/netlink.h).
const ERROR: u16 = 2;
/// `NLMSG_DONE` (linux/netlink.h).
const DONE: u16 = 3;
/// `NLM_F_REQUEST` (linux/netlink.h).
const REQUEST: u16 = 1;
/// `NLM_F_ACK` (linux/netlink.h).
const ACK: u16 = 4;
/// `NLM_F_DUMP` (linux/netlink.h).
const DUMP: u16 = 0x300;
/// Bytes of `nlmsghdr`.
const HEADER: usize = 16;
/// Where `inet_diag_sockid` lies in `inet_diag_msg` (linux/inet_diag.h).
const ID: std::ops::Range<usize> = 4..52;
/// Where `idiag_cookie` lies in `inet_diag_sockid`: two words, the low one first.
const COOKIE: std::ops::Range<usize> = 40..48;
/// A connected UDP socket is in state `TCP_ESTABLISHED`.
const CONNECTED: u32 = 1 << 1;
/// What the kernel sends at most at a time (`netlink_dump`).
const BUFFER: usize = 32 * 1024;

/// Why sockets could not be listed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    #[error("the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)")]
    NoDestroy,
    /// The kernel was built without `CONFIG_INET_UDP_DIAG`, or cannot load it.
    #[error("the kernel cannot list UDP sockets (CONFIG_INET_UDP_DIAG)")]
    NoList,
    /// The kernel refused.
    #[error("{purpose}: {source}")]
    Refused {
        /// What was asked for.
        purpose: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The netlink socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] Errno),
}

/// A connected UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Its peer. A v4-mapped one is shown as IPv4.
    pub peer: SocketAddr,
    /// Its cookie (`SO_COOKIE`), which no other socket ever has.
    pub cookie: u64,
    family: u8,
    /// `inet_diag_sockid` as the kernel gave it: addresses, ports, device, cookie.
    id: [u8; 48],
}

/// A diagnosis socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Diagnosis {
    fd: OwnedFd,
}

impl Diagnosis {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, SocketsError> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd })
    }

    /// Lists the connected UDP sockets of both families.
    pub fn connected_udp(&self) -> Result<Vec<Connected>, SocketsError> {
        let mut found = Vec::new();
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            self.send(&message(BY_FAMILY, REQUEST | DUMP, &request_body(family.as_raw() as u8)))?;
            let mut buffer = vec![0; BUFFER];
            'dump: loop {
                let (length, _) = recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty())?;
                for (kind, payload) in messages(&buffer[..length]) {
                    match kind {
                        DONE => break 'dump,
                        ERROR => return Err(refused("list UDP sockets", payload, SocketsError::NoList)),
                        _ => found.extend(connected(payload)),
                    }
                }
            }
        }
        Ok(found)
    }

    /// Destroys a socket that was listed; `false` if it is gone already. Its owner's next call fails with `ECONNABORTED`.
    pub fn destroy(&self, socket: &Connected) -> Result<bool, SocketsError> {
        let mut body = request_body(socket.family);
        body[8..].copy_from_slice(&socket.id);
        self.send(&message(DESTROY, REQUEST | ACK, &body))?;
        let mut buffer = vec![0; 4096];
        let (length, _) = recv(&self.fd, buffer.as_mut_slice(), RecvFlags::empty())?;
        for (kind, payload) in messages(&buffer[..length]) {
            if kind == ERROR {
                return match errno(payload) {
                    0 => Ok(true),
                    code if code == Errno::NOENT.raw_os_error() => Ok(false),
                    _ => Err(refused("destroy a UDP socket", payload, SocketsError::NoDestroy)),
                };
            }
        }
        Ok(false)
    }

    /// Whether the kernel can destroy UDP sockets, asked by naming one that cannot exist.
    pub fn can_destroy(&self) -> Result<(), SocketsError> {
        let nobody = Connected {
            peer: SocketAddr::from(([0; 4], 0)),
            cookie: 0,
            family: AddressFamily::INET.as_raw() as u8,
            id: [0; 48],
        };
        self.destroy(&nobody).map(drop)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), SocketsError> {
        sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }
}

/// Destroys the connected UDP sockets of the calling thread's namespace that `doomed` names; returns how many there were.
pub fn destroy_connected_udp(doomed: &dyn Fn(&Connected) -> bool) -> Result<usize, SocketsError> {
    let diagnosis = Diagnosis::open()?;
    let mut destroyed = 0;
    for socket in diagnosis.connected_udp()?.iter().filter(|socket| doomed(socket)) {
        destroyed += usize::from(diagnosis.destroy(socket)?);
    }
    Ok(destroyed)
}

/// `inet_diag_req_v2` for UDP, without the socket's identity.
fn request_body(family: u8) -> [u8; 56] {
    let mut body = [0; 56];
    body[0] = family;
    body[1] = rustix::net::ipproto::UDP.as_raw().get() as u8;
    body[4..8].copy_from_slice(&CONNECTED.to_ne_bytes());
    body
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port: one request at a time is under way on a socket.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Type and payload of each message of a datagram. What is cut off is left out.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        let (Some(payload), Some(kind)) = (bytes.get(HEADER..length), rest.first_chunk::<2>()) else { break };
        found.push((u16::from_ne_bytes(*kind), payload));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Reads an `inet_diag_msg`.
fn connected(payload: &[u8]) -> Option<Connected> {
    let family = *payload.first()?;
    let id: [u8; 48] = payload.get(ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let destination: [u8; 16] = id[20..36].try_into().ok()?;
    let address = if u16::from(family) == AddressFamily::INET.as_raw() {
        let [a, b, c, d, ..] = destination;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(destination)).to_canonical()
    };
    let word = |at: usize| id[COOKIE].get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let cookie = u64::from(word(0)?) | u64::from(word(4)?) << 32;
    Some(Connected { peer: SocketAddr::new(address, port), cookie, family, id })
}

/// The error number of an `nlmsgerr`, zero for an acknowledgement.
fn errno(payload: &[u8]) -> i32 {
    payload.first_chunk::<4>().map_or(0, |code| -i32::from_ne_bytes(*code))
}

/// What the kernel's refusal means; `unsupported` is what a kernel without the feature says by `EOPNOTSUPP` or `ENOENT` (no handler).
fn refused(purpose: &'static str, payload: &[u8], unsupported: SocketsError) -> SocketsError {
    match errno(payload) {
        code if code == Errno::OPNOTSUPP.raw_os_error() || code == Errno::NOENT.raw_os_error() => unsupported,
        code => SocketsError::Refused { purpose, source: io::Error::from_raw_os_error(code) },
    }
}

#[cfg(test)]
mod tests;
