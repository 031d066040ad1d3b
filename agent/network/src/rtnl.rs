//! A blocking rtnetlink socket: a batch of requests goes out as one send, and each answer is matched to its request.
//!
//! Pod setup runs on short-lived threads inside other namespaces, where an asynchronous connection would cost more than the work.
//! Messages are built with `rtnetlink`'s builders; watching for changes is in [`crate::neighbours`].

use std::io;
use std::os::fd::OwnedFd;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

/// rustix names protocol number 0 by absence.
pub(crate) const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;

/// What a request does when the object is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Create; existing is an error (`EEXIST`).
    Create,
    /// Create or replace.
    Replace,
    /// Change or delete what exists.
    Existing,
    /// As `Existing`, but not existing is fine.
    IfExists,
}

impl Mode {
    fn flags(self) -> u16 {
        match self {
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Existing | Self::IfExists => 0,
        }
    }

    fn tolerates(self, errno: i32) -> bool {
        // The last one: a link attribute of a protocol that the kernel does not have.
        let absent = [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
        self == Self::IfExists && absent.iter().any(|error| error.raw_os_error() == errno)
    }
}

/// One request of a batch: what it is for (for the error), how, and the message.
#[derive(Debug)]
pub struct Request {
    purpose: String,
    mode: Mode,
    message: RouteNetlinkMessage,
}

impl Request {
    /// A request; `purpose` reads like "add route to 10.0.0.1".
    pub fn new(purpose: impl Into<String>, mode: Mode, message: RouteNetlinkMessage) -> Self {
        Self { purpose: purpose.into(), mode, message }
    }
}

/// Why a netlink exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum RtnlError {
    /// The kernel refused a request.
    #[error("{purpose}: {source}")]
    Refused {
        /// What was asked for.
        purpose: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] Errno),
    /// An answer that the parser does not understand.
    #[error("netlink answer: {0}")]
    Decode(String),
}

impl RtnlError {
    /// Whether the kernel said that it has no route.
    pub fn is_unreachable(&self) -> bool {
        let unreachable = [Errno::NETUNREACH, Errno::HOSTUNREACH];
        self.raw_os_error().is_some_and(|code| unreachable.iter().any(|errno| errno.raw_os_error() == code))
    }

    /// The kernel's error number, if the kernel refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A route socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, RtnlError> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends all requests in one message and waits for every answer. The kernel works them off in order and does not stop at a
    /// failure; the first failure is returned.
    pub fn execute(&mut self, requests: Vec<Request>) -> Result<(), RtnlError> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let mut buffer = Vec::new();
        let mut pending = Vec::with_capacity(requests.len());
        for request in requests {
            self.append(&mut buffer, request.message, NLM_F_REQUEST | NLM_F_ACK | request.mode.flags());
            pending.push((request.purpose, request.mode));
        }
        self.send(&buffer)?;
        let mut answered = 0;
        let mut failure = None;
        while answered < pending.len() {
            for message in self.receive()? {
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                let (NetlinkPayload::Error(error), Some((purpose, mode))) =
                    (message.payload, pending.get(index))
                else {
                    continue;
                };
                answered += 1;
                let errno = error.code.map_or(0, |code| -code.get());
                if errno != 0 && !mode.tolerates(errno) && failure.is_none() {
                    let source = io::Error::from_raw_os_error(errno);
                    failure = Some(RtnlError::Refused { purpose: purpose.clone(), source });
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Asks for one object; `None` when it does not exist.
    pub fn get(
        &mut self,
        purpose: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, RtnlError> {
        let mut buffer = Vec::new();
        self.append(&mut buffer, message, NLM_F_REQUEST);
        self.send(&buffer)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(Some(inner)),
                    NetlinkPayload::Error(error) => {
                        let errno = error.code.map_or(0, |code| -code.get());
                        return if Mode::IfExists.tolerates(errno) {
                            Ok(None)
                        } else {
                            Err(RtnlError::Refused {
                                purpose: purpose.to_owned(),
                                source: io::Error::from_raw_os_error(errno),
                            })
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Lists the objects that `message` asks for.
    pub fn dump(
        &mut self,
        purpose: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, RtnlError> {
        let mut buffer = Vec::new();
        self.append(&mut buffer, message, NLM_F_REQUEST | NLM_F_DUMP);
        self.send(&buffer)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => {
                        let errno = error.code.map_or(0, |code| -code.get());
                        return Err(RtnlError::Refused {
                            purpose: purpose.to_owned(),
                            source: io::Error::from_raw_os_error(errno),
                        });
                    }
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = buffer.len();
        // Messages of a batch start at multiples of four (NLMSG_ALIGN).
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        let end = start + message.buffer_len();
        message.serialize(&mut buffer[start..end]);
    }

    fn send(&self, buffer: &[u8]) -> Result<(), RtnlError> {
        sendto(&self.fd, buffer, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, RtnlError> {
        receive(&self.fd)
    }
}

/// Waits for one datagram and splits it into its messages.
pub(crate) fn receive(fd: &OwnedFd) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, RtnlError> {
    // The kernel sends dumps in pieces of at most 32 KiB (netlink_dump).
    let mut buffer = vec![0u8; 32 * 1024];
    let (length, _) = recv(fd, buffer.as_mut_slice(), RecvFlags::empty())?;
    parse(&buffer[..length])
}

/// Splits a datagram into its messages.
fn parse(mut bytes: &[u8]) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, RtnlError> {
    let mut messages = Vec::new();
    while bytes.len() >= 16 {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|error| RtnlError::Decode(error.to_string()))?;
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        messages.push(message);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(messages)
}
