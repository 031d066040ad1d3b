//! The HTTP face of `echo`: a keep-alive HTTP/1.1 session over four paths. Bodies of requests are not read.
//!
//! | path | answer |
//! |---|---|
//! | `/stream?seconds=N` | a chunked line every 100 ms for N seconds (default 3600): a long connection |
//! | `/exit?code=N` | ends the process: for restart tests |
//! | `/fail` | 500: for probe tests |
//! | any other | one line that says who answered |

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::identity::Identity;

/// Time between two lines of a stream.
const STREAM_INTERVAL: Duration = Duration::from_millis(100);

/// Serves requests until the client closes or asks for `Connection: close`.
pub(crate) fn serve(mut stream: TcpStream, identity: &Identity) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        respond(&mut stream, &request, peer, identity)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

fn respond(
    stream: &mut TcpStream,
    request: &Request,
    peer: SocketAddr,
    identity: &Identity,
) -> std::io::Result<()> {
    let answer = format!("{}\n", identity.answer(peer));
    match request.path.as_str() {
        "/stream" => stream_lines(stream, request.number("seconds").unwrap_or(3600), &answer),
        "/exit" => std::process::exit(i32::try_from(request.number("code").unwrap_or(0)).unwrap_or(1)),
        "/fail" => write_response(stream, "500 Internal Server Error", &answer),
        _ => write_response(stream, "200 OK", &answer),
    }
}

fn write_response(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    // One write, so that the answer leaves in one segment.
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())
}

fn stream_lines(stream: &mut TcpStream, seconds: u64, line: &str) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?;
        thread::sleep(STREAM_INTERVAL);
    }
    stream.write_all(b"0\r\n\r\n")
}

/// What is used of a request's head.
struct Request {
    path: String,
    query: String,
    close: bool,
}

impl Request {
    /// Reads one head; `None` when the client has closed between requests.
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let target = line.split_whitespace().nth(1).unwrap_or("/");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            path: path.to_owned(),
            query: query.to_owned(),
            close: line.trim_end().ends_with("HTTP/1.0"),
        };
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim_end().is_empty() {
                return Ok(Some(request));
            }
            request.close |= header.trim_end().eq_ignore_ascii_case("connection: close");
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_up_to_its_empty_line() {
        let head = "GET /stream?seconds=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /next HTTP/1.1\r\n\r\n";
        let mut reader = std::io::Cursor::new(head);
        let first = Request::read(&mut reader).expect("readable").expect("a request");
        assert_eq!((first.path.as_str(), first.number("seconds"), first.close), ("/stream", Some(7), true));
        let second = Request::read(&mut reader).expect("readable").expect("a request");
        assert_eq!((second.path.as_str(), second.close), ("/next", false));
        assert!(Request::read(&mut reader).expect("readable").is_none());
    }
}
