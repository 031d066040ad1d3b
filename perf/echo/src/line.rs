//! The line protocol: each line is answered with one line that says who answered and what it got.

/// Takes one whole line out of the front of `input`: its length with the line end, and its text without.
pub(crate) fn next(input: &[u8]) -> Option<(usize, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let line = &input[..end];
    Some((end + 1, line.strip_suffix(b"\r").unwrap_or(line)))
}

/// Appends the answer to `line`; `answer` is what the server says to this client.
pub(crate) fn respond(line: &[u8], answer: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(answer.as_bytes());
    output.extend_from_slice(b" got=");
    output.extend_from_slice(line);
    output.push(b'\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_are_taken_whole_and_one_by_one() {
        assert_eq!(next(b"a\r\nb\n"), Some((3, &b"a"[..])));
        assert_eq!(next(b"b\n"), Some((2, &b"b"[..])));
        assert_eq!(next(b"half"), None);
    }

    #[test]
    fn an_answer_says_who_and_what() {
        let mut output = Vec::new();
        respond(b"ping", "pod=p node=n client=1.2.3.4 port=5", &mut output);
        assert_eq!(String::from_utf8(output).unwrap(), "pod=p node=n client=1.2.3.4 port=5 got=ping\n");
    }
}
