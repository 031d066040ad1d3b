//! Pairs, and whole sessions against servers on the loopback of the test's own network namespace.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::BytesMut;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;

use super::*;
use crate::server::spdy::frame::{CANCEL, Decoder, Encoder, Frame};

fn headers(kind: &str, port: &str, id: &str) -> Headers {
    Headers::new(&[("streamType", kind), ("port", port), ("requestID", id)])
}

#[test]
fn pairs_are_joined_by_request_id_in_either_order() {
    let now = Instant::now();
    let mut pairing = Pairing::default();
    let table = [
        (1, headers("error", "80", "0"), Ok(None)),
        (3, headers("error", "81", "1"), Ok(None)),
        (5, headers("data", "80", "0"), Ok(Some(Pair { data: 5, error: 1, port: 80 }))),
        (7, headers("data", "81", "1"), Ok(Some(Pair { data: 7, error: 3, port: 81 }))),
        (9, headers("data", "80", "2"), Ok(None)),
        (11, headers("data", "80", "2"), Err("requestID is in use")),
        (13, headers("error", "80", "2"), Ok(Some(Pair { data: 9, error: 13, port: 80 }))),
        (15, headers("error", "0", "3"), Err("port is not a number from 1 to 65535")),
        (17, headers("stdin", "80", "3"), Err("streamType is neither data nor error")),
        (19, Headers::new(&[("streamType", "error"), ("port", "80")]), Ok(None)),
        (
            21,
            Headers::new(&[("streamType", "data"), ("port", "80")]),
            Ok(Some(Pair { data: 21, error: 19, port: 80 })),
        ),
    ];
    for (stream, headers, expected) in table {
        assert_eq!(pairing.opened(stream, &headers, now), expected, "{stream}");
    }
}

#[test]
fn a_stream_without_its_pair_is_given_up_after_a_while() {
    let now = Instant::now();
    let mut pairing = Pairing::default();
    pairing.opened(1, &headers("error", "80", "0"), now).unwrap();
    assert_eq!(pairing.overdue(now + PAIRING / 2), Vec::<u32>::new());
    assert_eq!(pairing.overdue(now + PAIRING), [1]);
    assert_eq!(pairing.overdue(now + PAIRING), Vec::<u32>::new());
}

struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Client {
    /// A client of a session that leads into this network namespace.
    fn start() -> Self {
        let (near, far) = tokio::io::duplex(1 << 16);
        let netns = Arc::new(Netns::current().unwrap());
        tokio::spawn(forward(near, Destination { netns, pod: "shop/web".into(), uid: "u-1".into() }));
        Self {
            io: far,
            encoder: Encoder::new().unwrap(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
        }
    }

    async fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        self.encoder.encode(&frame, &mut out).unwrap();
        self.io.write_all(&out).await.unwrap();
    }

    async fn open(&mut self, port: u16) {
        for (stream, kind) in [(1, "error"), (3, "data")] {
            let headers = headers(kind, &port.to_string(), "0");
            self.send(Frame::SynStream { stream, headers, fin: false }).await;
        }
    }

    /// Reads until both streams have ended: what each said.
    async fn rest(&mut self) -> BTreeMap<u32, String> {
        let (mut said, mut ended) = (BTreeMap::<u32, String>::new(), 0);
        while ended < 2 {
            match self.decoder.decode(&mut self.buffer).unwrap() {
                Some(Frame::Data { stream, data, fin }) => {
                    said.entry(stream).or_default().push_str(std::str::from_utf8(&data).unwrap());
                    ended += u32::from(fin);
                }
                Some(_) => {}
                None => assert_ne!(self.io.read_buf(&mut self.buffer).await.unwrap(), 0, "closed early"),
            }
        }
        said
    }
}

/// Entering even the own network namespace needs CAP_SYS_ADMIN.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

#[tokio::test]
async fn bytes_reach_a_server_and_its_answer_comes_back() {
    if !is_root() {
        return;
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).await.unwrap();
            stream.write_all(format!("you said {asked}").as_bytes()).await.unwrap();
        });
        let mut client = Client::start();
        client.open(port).await;
        for (text, fin) in [("hello ", false), ("there", true)] {
            client.send(Frame::Data { stream: 3, data: Bytes::from_static(text.as_bytes()), fin }).await;
        }
        let expected = BTreeMap::from([(1, String::new()), (3, "you said hello there".to_owned())]);
        assert_eq!(client.rest().await, expected, "{address}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_told_on_the_error_stream() {
    if !is_root() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut client = Client::start();
    client.open(port).await;
    let said = client.rest().await;
    let start = format!("error forwarding port {port} to pod shop/web, uid u-1: ");
    assert!(said[&1].starts_with(&start) && said[&1].contains("connection refused"), "{}", said[&1]);
    assert_eq!(said[&3], "");
}

#[tokio::test]
async fn a_stream_given_up_or_a_client_that_leaves_closes_the_connection() {
    if !is_root() {
        return;
    }
    for resets in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::start();
        client.open(listener.local_addr().unwrap().port()).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        if resets {
            client.send(Frame::RstStream { stream: 3, status: CANCEL }).await;
        } else {
            drop(client);
        }
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "{resets}");
    }
}
