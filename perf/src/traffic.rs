//! The kinds of traffic: what one operation is. A kind is a row of a table; how often it is done, and against what it
//! is compared, is decided elsewhere. Operations block, and are made of the fewest system calls that do the thing.

mod bulk;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A server that speaks echo's protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    /// TCP lines and datagrams.
    pub(crate) echo: u16,
    /// HTTP: for bulk transfers.
    pub(crate) http: u16,
    /// Connections are ended by a reset instead of a FIN: nothing waits in TIME_WAIT.
    pub(crate) reset: bool,
}

impl Target {
    /// Where lines and datagrams go.
    pub(crate) fn echo(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.echo)
    }

    /// Where HTTP is spoken.
    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.http)
    }
}

/// One operation after another, on sockets that may stay open between them.
pub(crate) trait Traffic {
    /// Does one operation. After an error the next operation starts afresh.
    fn once(&mut self) -> Result<()>;
}

/// What one operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// TCP connect, one line, its answer, close.
    Crr,
    /// TCP connect and close.
    Connect,
    /// One line and its answer on a TCP connection that stays open.
    Rr,
    /// One datagram and its answer on a socket that stays open.
    Udp,
    /// One datagram and its answer on a new socket: a new flow each time.
    UdpFlow,
    /// One MiB received on a TCP connection that stays open.
    Bulk,
}

/// A row: name, whether each operation opens a socket of its own.
struct Row {
    kind: Kind,
    name: &'static str,
    /// Each operation leaves a used pair of ports behind.
    uses_ports: bool,
    open: fn(Target) -> Box<dyn Traffic>,
}

const ROWS: &[Row] = &[
    Row { kind: Kind::Crr, name: "crr", uses_ports: true, open: |target| Box::new(tcp::Crr::new(target)) },
    Row {
        kind: Kind::Connect,
        name: "connect",
        uses_ports: true,
        open: |target| Box::new(tcp::Connect::new(target)),
    },
    Row { kind: Kind::Rr, name: "rr", uses_ports: false, open: |target| Box::new(tcp::Rr::new(target)) },
    Row {
        kind: Kind::Udp,
        name: "udp",
        uses_ports: false,
        open: |target| Box::new(udp::SameSocket::new(target)),
    },
    Row {
        kind: Kind::UdpFlow,
        name: "udp-flow",
        uses_ports: false,
        open: |target| Box::new(udp::NewSocket::new(target)),
    },
    Row {
        kind: Kind::Bulk,
        name: "bulk",
        uses_ports: false,
        open: |target| Box::new(bulk::Download::new(target)),
    },
];

/// Bytes of one bulk operation.
pub(crate) const BULK_BYTES: u64 = 1 << 20;

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.kind)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).expect("a test holds a row for every kind")
    }

    /// As on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether the client's ports are used up for a while: each connection that it closes first.
    pub(crate) fn uses_ports(self) -> bool {
        self.row().uses_ports
    }

    /// Ready for operations; sockets are made by the first one, in the namespace that its thread is in then.
    pub(crate) fn open(self, target: Target) -> Box<dyn Traffic> {
        (self.row().open)(target)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
    use std::thread;

    use super::*;

    /// Answers as echo does, as little of it as the traffic needs.
    pub(crate) fn server() -> Target {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let lines = TcpListener::bind((address, 0)).unwrap();
        let http = TcpListener::bind((address, 0)).unwrap();
        let target = Target {
            address,
            echo: lines.local_addr().unwrap().port(),
            http: http.local_addr().unwrap().port(),
            reset: false,
        };
        let datagrams = UdpSocket::bind((address, target.echo)).unwrap();
        serve(lines, |mut stream, line| stream.write_all(format!("got={line}\n").as_bytes()));
        serve(http, |mut stream, line| {
            if line.starts_with("GET") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BULK_BYTES}\r\n\r\n");
                stream.write_all(head.as_bytes())?;
                std::io::copy(&mut std::io::repeat(0).take(BULK_BYTES), &mut stream)?;
            }
            Ok(())
        });
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = datagrams.recv_from(&mut buffer) {
                datagrams.send_to(&buffer[..length], peer).unwrap();
            }
        });
        target
    }

    fn serve(listener: TcpListener, answer: fn(&TcpStream, &str) -> std::io::Result<()>) {
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    lines.map_while(Result::ok).try_for_each(|line| answer(&stream, &line))
                });
            }
        });
    }

    #[test]
    fn every_kind_has_a_row_and_works() {
        let target = server();
        for (value, reset) in Kind::value_variants().iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            let mut traffic = value.open(Target { reset, ..target });
            for _ in 0..3 {
                traffic.once().unwrap_or_else(|error| panic!("{}: {error:#}", value.name()));
            }
            assert_eq!(value.to_possible_value().unwrap().get_name(), value.name());
            assert_eq!(serde_json::to_value(value).unwrap(), value.name());
        }
        assert_eq!(Kind::all().count(), Kind::value_variants().len());
    }

    #[test]
    fn a_closed_port_is_an_error_that_names_it() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = Target { address: closed.ip(), echo: closed.port(), http: closed.port(), reset: false };
        for kind in Kind::all() {
            let error = kind.open(target).once().unwrap_err();
            assert!(format!("{error:#}").contains(&closed.to_string()), "{}: {error:#}", kind.name());
        }
    }
}
