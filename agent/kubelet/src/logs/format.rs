//! The CRI log line: RFC 3339 time with nanoseconds, stream, `P` (part) or `F` (full), bytes, newline. Pure.
//!
//! Output is written as it is read: a piece without newline becomes a `P` record at once, so that an agent that
//! dies holds no output back, and readers join the pieces again.

use jiff::Timestamp;

/// Longest payload of one record, as containerd's CRI plugin splits lines.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Which output of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; everything of a container with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As written in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One parsed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The time as written.
    pub time: &'a str,
    /// Where it was written.
    pub stream: Stream,
    /// Whether a line ends here.
    pub full: bool,
    /// The bytes, without newline.
    pub payload: &'a [u8],
}

/// Appends the records for `chunk` to `out`.
pub fn encode(out: &mut Vec<u8>, now: Timestamp, stream: Stream, chunk: &[u8]) {
    let time = format!("{now:.9}");
    for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
        let (line, full) = match piece.split_last() {
            Some((b'\n', line)) => (line, true),
            _ => (piece, false),
        };
        let mut rest = line;
        loop {
            let (payload, after) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let tag = if full && after.is_empty() { "F" } else { "P" };
            out.extend_from_slice(time.as_bytes());
            out.extend_from_slice(format!(" {} {tag} ", stream.as_str()).as_bytes());
            out.extend_from_slice(payload);
            out.push(b'\n');
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
}

/// Reads one record (with or without its newline); `None` when it is none.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = fields.next()?.first() == Some(&b'F');
    Some(Record { time, stream, full, payload: fields.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoded(chunk: &[u8]) -> String {
        let mut out = Vec::new();
        encode(&mut out, Timestamp::UNIX_EPOCH, Stream::Stdout, chunk);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_full_and_pieces_are_parts() {
        let t = "1970-01-01T00:00:00.000000000Z";
        assert_eq!(encoded(b"a\n\nb"), format!("{t} stdout F a\n{t} stdout F \n{t} stdout P b\n"));
        assert_eq!(encoded(b"\n"), format!("{t} stdout F \n"), "the end of a line begun before");
        assert_eq!(encoded(b""), "");
    }

    #[test]
    fn long_lines_are_split_and_the_last_piece_ends_them() {
        let text = encoded(&[vec![b'x'; MAX_PAYLOAD + 5], vec![b'\n']].concat());
        let tags: Vec<_> = text.lines().map(|line| parse(line.as_bytes()).unwrap()).collect();
        assert_eq!(
            tags.iter().map(|r| (r.full, r.payload.len())).collect::<Vec<_>>(),
            [(false, MAX_PAYLOAD), (true, 5)]
        );
    }

    #[test]
    fn records_parse_and_others_do_not() {
        let record = parse(b"2026-01-01T00:00:00.5Z stderr F two words\n").unwrap();
        assert_eq!((record.stream, record.full, record.payload), (Stream::Stderr, true, &b"two words"[..]));
        for bad in [&b"nonsense"[..], b"", b"t stdin F x"] {
            assert_eq!(parse(bad), None);
        }
    }
}
