//! The HTTP face of `echo`: keep-alive HTTP/1.1 over five paths, as pure functions of bytes. Bodies of requests are
//! not read.
//!
//! | path | answer |
//! |---|---|
//! | `/stream?seconds=N` | a chunked line every 100 ms for N seconds (default 3600): a long connection |
//! | `/bytes?count=N` | N zero bytes (default 1 MiB): a bulk transfer |
//! | `/exit?code=N` | ends the process: for restart tests |
//! | `/fail` | 500: for probe tests |
//! | any other | one line that says who answered |

use std::time::Duration;

/// What follows the bytes that [`respond`] wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// The next request.
    Request,
    /// So many zero bytes, then the next request.
    Zeros(u64),
    /// A chunk with a line in every interval for so long, then the last chunk and the next request.
    Lines(Duration),
    /// The process ends with this code.
    Exit(i32),
}

/// What is used of a request's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    path: String,
    query: String,
    /// The client wants the connection closed after the answer.
    pub(crate) close: bool,
}

impl Request {
    /// Takes one head out of the front of `input`: its length and the request. `None` until its empty line is there.
    pub(crate) fn next(input: &[u8]) -> Option<(usize, Self)> {
        let mut lines = 0;
        let mut start = 0;
        let mut request = Self { path: String::new(), query: String::new(), close: false };
        while let Some(end) = input[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&input[start..start + end]);
            let line = line.trim_end();
            start += end + 1;
            if lines == 0 {
                request.start_line(line);
            } else if line.is_empty() {
                return Some((start, request));
            } else {
                request.close |= line.eq_ignore_ascii_case("connection: close");
            }
            lines += 1;
        }
        None
    }

    fn start_line(&mut self, line: &str) {
        let target = line.split_whitespace().nth(1).unwrap_or("/");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        path.clone_into(&mut self.path);
        query.clone_into(&mut self.query);
        self.close = line.ends_with("HTTP/1.0");
    }

    fn number(&self, name: &str) -> Option<u64> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name)?.1.parse().ok()
    }
}

/// Appends the answer's head (and body, if it is short) to `output`; `answer` is what the server says to this client.
pub(crate) fn respond(request: &Request, answer: &str, output: &mut Vec<u8>) -> Follow {
    let head = |output: &mut Vec<u8>, status: &str, framing: &str| {
        let text = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n");
        output.extend_from_slice(text.as_bytes());
    };
    match request.path.as_str() {
        "/stream" => {
            head(output, "200 OK", "Transfer-Encoding: chunked");
            Follow::Lines(Duration::from_secs(request.number("seconds").unwrap_or(3600)))
        }
        "/bytes" => {
            let count = request.number("count").unwrap_or(1 << 20);
            head(output, "200 OK", &format!("Content-Length: {count}"));
            Follow::Zeros(count)
        }
        "/exit" => Follow::Exit(i32::try_from(request.number("code").unwrap_or(0)).unwrap_or(1)),
        path => {
            let status = if path == "/fail" { "500 Internal Server Error" } else { "200 OK" };
            head(output, status, &format!("Content-Length: {}", answer.len() + 1));
            output.extend_from_slice(answer.as_bytes());
            output.push(b'\n');
            Follow::Request
        }
    }
}

/// Appends one chunk that holds `answer` and a line end.
pub(crate) fn chunk(answer: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(format!("{:x}\r\n{answer}\n\r\n", answer.len() + 1).as_bytes());
}

/// What ends a chunked answer.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_is_read_up_to_its_empty_line() {
        let text: &[u8] =
            b"GET /stream?seconds=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /next HTTP/1.1\r\n\r\n";
        let (length, first) = Request::next(text).unwrap();
        assert_eq!((first.path.as_str(), first.number("seconds"), first.close), ("/stream", Some(7), true));
        let (second_length, second) = Request::next(&text[length..]).unwrap();
        assert_eq!((second.path.as_str(), second.close), ("/next", false));
        assert_eq!(length + second_length, text.len());
        assert_eq!(Request::next(&text[..length - 1]), None);
    }

    #[test]
    fn paths_decide_what_follows() {
        for (target, starts, follow) in [
            (
                "/",
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nwho\n",
                Follow::Request,
            ),
            ("/fail", "HTTP/1.1 500 Internal Server Error\r\n", Follow::Request),
            (
                "/bytes?count=7",
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n",
                Follow::Zeros(7),
            ),
            ("/stream?seconds=2", "HTTP/1.1 200 OK\r\n", Follow::Lines(Duration::from_secs(2))),
            ("/exit?code=3", "", Follow::Exit(3)),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            let (_, request) = Request::next(head.as_bytes()).unwrap();
            let mut output = Vec::new();
            assert_eq!(respond(&request, "who", &mut output), follow, "{target}");
            assert!(output.starts_with(starts.as_bytes()), "{target}: {}", String::from_utf8_lossy(&output));
        }
    }

    #[test]
    fn a_chunk_names_its_length() {
        let mut output = Vec::new();
        chunk("hello", &mut output);
        assert_eq!(output, b"6\r\nhello\n\r\n");
    }
}
