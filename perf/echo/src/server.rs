//! The event loop: listeners, connections and datagrams on one thread. It knows when something happened and hands it
//! on; what is answered is decided elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::datagram;
use crate::identity::Identity;
use crate::session::{Protocol, Session, Wish};

/// When a connection cannot be accepted for want of file descriptors, the next attempt is made so much later.
const RETRY: Duration = Duration::from_millis(20);

/// Connections that wait to be accepted. Where a client does nothing but connect, more come for a moment than are accepted: beyond
/// the queue the kernel drops their first segment, and they are a second late. The kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

const HTTP: Token = Token(0);
const LINES: Token = Token(1);
const WAKER: Token = Token(3);
/// Sockets of datagrams have tokens from here on.
const FIRST_DATAGRAMS: usize = 4;
/// Connections have tokens from here on: their place in the table.
const FIRST_SESSION: usize = 1024;

/// Where the server listens.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) http: u16,
    /// Lines over TCP, and datagrams.
    pub(crate) echo: u16,
    /// Where datagrams are taken. A socket for all addresses (`::`) answers from the address that the route back says:
    /// a host with several addresses names them, so that each answers for itself.
    pub(crate) datagrams: Vec<IpAddr>,
}

struct Slot {
    session: Session,
    /// The poll reports when it becomes writable.
    watches_write: bool,
    timer: Option<Instant>,
}

/// The server and all that it serves.
pub(crate) struct Server {
    poll: Poll,
    identity: Identity,
    listeners: [(Token, Protocol, TcpListener); 2],
    datagrams: Vec<UdpSocket>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    open: usize,
    /// Listeners may have more connections at this instant.
    accept_again: Option<Instant>,
}

impl Server {
    /// Listens on every address (`::` takes IPv4 as well).
    pub(crate) fn bind(places: &Places, identity: Identity) -> io::Result<Self> {
        let poll = Poll::new()?;
        let any = |port| SocketAddr::from(([0_u16; 8], port));
        let mut listeners = [
            (HTTP, Protocol::Http, TcpListener::bind(any(places.http))?),
            (LINES, Protocol::Lines, TcpListener::bind(any(places.echo))?),
        ];
        for (token, _, listener) in &mut listeners {
            // Asked again, it only changes the length of the queue.
            rustix::net::listen(&*listener, BACKLOG)?;
            poll.registry().register(listener, *token, Interest::READABLE)?;
        }
        let mut datagrams = Vec::new();
        for (token, address) in (FIRST_DATAGRAMS..FIRST_SESSION).zip(&places.datagrams) {
            let mut socket = UdpSocket::bind(SocketAddr::new(*address, places.echo))?;
            poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
            datagrams.push(socket);
        }
        Ok(Self {
            poll,
            identity,
            listeners,
            datagrams,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            accept_again: None,
        })
    }

    /// Ends the wait of [`Server::run`], so that it looks at its flag.
    pub(crate) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// Serves until `drained` is set and no connection is open.
    pub(crate) fn run(&mut self, drained: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while self.open > 0 || !drained.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, self.next_timer()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    token @ (HTTP | LINES) => self.accept(token, now)?,
                    WAKER => {}
                    Token(number) if number < FIRST_SESSION => {
                        datagram::answer_all(&self.datagrams[number - FIRST_DATAGRAMS], &self.identity);
                    }
                    Token(number) => {
                        let place = number - FIRST_SESSION;
                        self.notice(place, event.is_readable(), event.is_read_closed());
                        self.advance(place, now);
                    }
                }
            }
            self.run_timers(now)?;
        }
        Ok(())
    }

    fn accept(&mut self, token: Token, now: Instant) -> io::Result<()> {
        let Some(which) = self.listeners.iter().position(|(own, ..)| *own == token) else { return Ok(()) };
        loop {
            let (_, protocol, listener) = &self.listeners[which];
            match listener.accept() {
                Ok((stream, peer)) => {
                    // It is a hint to the kernel; a connection without it is slow, not wrong.
                    drop(stream.set_nodelay(true));
                    let session = Session::new(stream, peer, *protocol, &self.identity);
                    self.add(session)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    // No descriptors: the edge is gone, so it is tried again later.
                    self.accept_again = Some(now + RETRY);
                    return Ok(());
                }
            }
        }
    }

    fn add(&mut self, session: Session) -> io::Result<()> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let mut slot = Slot { session, watches_write: false, timer: None };
        let token = Token(place + FIRST_SESSION);
        self.poll.registry().register(&mut slot.session.stream, token, Interest::READABLE)?;
        self.slots[place] = Some(slot);
        self.open += 1;
        Ok(())
    }

    fn notice(&mut self, place: usize, readable: bool, closed: bool) {
        if let Some(Some(slot)) = self.slots.get_mut(place)
            && (readable || closed)
        {
            slot.session.notice(closed);
        }
    }

    fn advance(&mut self, place: usize, now: Instant) {
        let Some(Some(slot)) = self.slots.get_mut(place) else { return };
        slot.timer = None;
        let wish = slot.session.advance(now);
        let token = Token(place + FIRST_SESSION);
        let close = match wish {
            Wish::Read => false,
            Wish::Timer(at) => {
                slot.timer = Some(at);
                false
            }
            Wish::Close => true,
            Wish::Write if slot.watches_write => false,
            Wish::Write => {
                slot.watches_write = true;
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().reregister(&mut slot.session.stream, token, both).is_err()
            }
        };
        if close {
            // Closing the socket takes it out of the poll.
            self.slots[place] = None;
            self.free.push(place);
            self.open -= 1;
        }
    }

    fn next_timer(&self) -> Option<Duration> {
        let timers = self.slots.iter().flatten().filter_map(|slot| slot.timer);
        let next = timers.chain(self.accept_again).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn run_timers(&mut self, now: Instant) -> io::Result<()> {
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.accept(HTTP, now)?;
            self.accept(LINES, now)?;
        }
        for place in 0..self.slots.len() {
            let timer = self.slots[place].as_ref().and_then(|slot| slot.timer);
            if timer.is_some_and(|at| at <= now) {
                self.advance(place, now);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream, UdpSocket};
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// A server on free ports of the loopback, until `end` is called.
    struct Running {
        http: u16,
        echo: u16,
        drained: Arc<AtomicBool>,
        waker: Waker,
        thread: thread::JoinHandle<io::Result<()>>,
    }

    fn start() -> Running {
        let identity = Identity { pod: "p".into(), node: "n".into() };
        let mut server =
            Server::bind(&Places { http: 0, echo: 0, datagrams: vec![Ipv4Addr::LOCALHOST.into()] }, identity)
                .unwrap();
        let port = |index: usize| server.listeners[index].2.local_addr().unwrap().port();
        let (http, echo) = (port(0), port(1));
        let drained = Arc::new(AtomicBool::new(false));
        let waker = server.waker().unwrap();
        let flag = drained.clone();
        Running { http, echo, drained, waker, thread: thread::spawn(move || server.run(&flag)) }
    }

    impl Running {
        fn end(self) {
            self.drained.store(true, Ordering::Release);
            self.waker.wake().unwrap();
            self.thread.join().unwrap().unwrap();
        }
    }

    fn connect(port: u16) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with(end) {
            stream.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
        }
        text
    }

    #[test]
    fn lines_are_answered_in_order_on_many_connections_at_once() {
        let server = start();
        let mut streams: Vec<_> = (0..50).map(|_| connect(server.echo)).collect();
        for stream in &mut streams {
            stream.write_all(b"one\ntw").unwrap();
        }
        for stream in &mut streams {
            stream.write_all(b"o\n").unwrap();
            let text = read_until(stream, "got=two\n");
            assert!(text.starts_with("pod=p node=n client=127.0.0.1 port="), "{text}");
            assert_eq!(text.matches("got=").count(), 2);
        }
        drop(streams);
        server.end();
    }

    #[test]
    fn http_keeps_alive_streams_and_sends_bulk() {
        let server = start();
        let mut stream = connect(server.http);
        stream.write_all(b"GET / HTTP/1.1\r\n\r\nGET /bytes?count=3000000 HTTP/1.1\r\n\r\n").unwrap();
        read_until(&mut stream, "Content-Length: 3000000\r\n\r\n");
        let mut bulk = vec![1; 3_000_000];
        stream.read_exact(&mut bulk).unwrap();
        assert!(bulk.iter().all(|byte| *byte == 0));
        stream.write_all(b"GET /stream?seconds=1 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let text = read_until(&mut stream, "\r\n0\r\n\r\n");
        assert!(text.matches("pod=p").count() >= 5, "{text}");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed as asked");
        server.end();
    }

    #[test]
    fn a_slow_reader_keeps_nobody_waiting() {
        let server = start();
        let mut slow = connect(server.http);
        slow.write_all(b"GET /bytes?count=100000000 HTTP/1.1\r\n\r\n").unwrap();
        let mut line = connect(server.echo);
        line.write_all(b"x\n").unwrap();
        read_until(&mut line, "got=x\n");
        drop((slow, line));
        server.end();
    }

    #[test]
    fn datagrams_name_their_client() {
        let socket = mio::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.send_to(b"ping\n", socket.local_addr().unwrap()).unwrap();
        let identity = Identity { pod: "p".into(), node: "n".into() };
        datagram::answer_all(&socket, &identity);
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 256];
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        let port = client.local_addr().unwrap().port();
        let expected = format!("pod=p node=n client=127.0.0.1 port={port} got=ping\n");
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
    }

    #[test]
    fn a_client_that_ends_after_its_request_still_gets_the_answer() {
        let server = start();
        let mut stream = connect(server.echo);
        stream.write_all(b"last\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("got=last\n"));
        server.end();
    }
}
