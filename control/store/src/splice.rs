//! `metadata.resourceVersion` inside JSON bytes: put in when a value is read from etcd, never parsed out again.
//!
//! etcd values lack it, because the revision is known only after the write. Works on bytes; does not check that they are
//! well-formed JSON beyond finding the top-level `metadata` object.

use bytes::Bytes;

const OPEN: &[u8] = b"\"resourceVersion\":\"";

/// Where the revision stands in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Offset of the inserted text.
    start: usize,
    /// Its length, comma included.
    len: usize,
    /// A comma follows, because `metadata` has other fields.
    comma: bool,
}

/// `value` with `"resourceVersion":"revision"` as the first field of `metadata`, in an allocation of the exact size.
pub(crate) fn insert(value: &[u8], revision: i64) -> (Bytes, Option<Spot>) {
    let Some(start) = metadata_fields(value) else {
        return (Bytes::copy_from_slice(value), None);
    };
    let comma = value[start..].iter().find(|it| !it.is_ascii_whitespace()) != Some(&b'}');
    let (body, len) = write(&value[..start], &value[start..], revision, comma);
    (body, Some(Spot { start, len, comma }))
}

/// `body` with its revision replaced by another.
pub(crate) fn replace(body: &[u8], spot: Spot, revision: i64) -> Bytes {
    write(&body[..spot.start], &body[spot.start + spot.len..], revision, spot.comma).0
}

/// `body` is `value` with the revision inserted at `spot`.
pub(crate) fn is_insertion_into(body: &[u8], spot: Option<Spot>, value: &[u8]) -> bool {
    let Some(spot) = spot else { return body == value };
    body.len() == value.len() + spot.len
        && body[..spot.start] == value[..spot.start]
        && body[spot.start + spot.len..] == value[spot.start..]
}

fn write(head: &[u8], tail: &[u8], revision: i64, comma: bool) -> (Bytes, usize) {
    let digits = revision.to_string();
    let len = OPEN.len() + digits.len() + 1 + usize::from(comma);
    let mut body = Vec::with_capacity(head.len() + len + tail.len());
    body.extend_from_slice(head);
    body.extend_from_slice(OPEN);
    body.extend_from_slice(digits.as_bytes());
    body.push(b'"');
    if comma {
        body.push(b',');
    }
    body.extend_from_slice(tail);
    (Bytes::from(body), len)
}

/// Offset just behind the `{` of the top-level `metadata` object.
fn metadata_fields(value: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < value.len() {
        match value[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = string_end(value, at)?;
                if depth == 1 && &value[at..=end] == b"\"metadata\"" {
                    return opening_brace(value, end + 1);
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn opening_brace(value: &[u8], mut at: usize) -> Option<usize> {
    let mut colon = false;
    while at < value.len() {
        match value[at] {
            b':' if !colon => colon = true,
            b'{' if colon => return Some(at + 1),
            it if it.is_ascii_whitespace() => {}
            _ => return None,
        }
        at += 1;
    }
    None
}

/// Offset of the quote that closes the string opened at `at`.
fn string_end(value: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match *value.get(at)? {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        let (body, spot) = insert(value.as_bytes(), 42);
        assert_eq!(body, expected.as_bytes());
        assert!(is_insertion_into(&body, spot, value.as_bytes()));
        assert!(!is_insertion_into(&body, spot, format!("{value} ").as_bytes()));
        if let Some(spot) = spot {
            assert_eq!(replace(&body, spot, 1000), expected.replace("42", "1000").as_bytes());
        }
    }

    #[test]
    fn revision_becomes_the_first_field_of_metadata() {
        check(
            r#"{"kind":"Pod","metadata":{"name":"a"}}"#,
            r#"{"kind":"Pod","metadata":{"resourceVersion":"42","name":"a"}}"#,
        );
        check(r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"42"}}"#);
        check(r#"{"metadata" : { }}"#, r#"{"metadata" : {"resourceVersion":"42" }}"#);
    }

    #[test]
    fn only_the_top_level_metadata_counts() {
        check(
            r#"{"spec":{"metadata":{"x":1}},"a":"\"metadata\":{","metadata":{"name":"a"}}"#,
            r#"{"spec":{"metadata":{"x":1}},"a":"\"metadata\":{","metadata":{"resourceVersion":"42","name":"a"}}"#,
        );
        check(r#"{"data":"metadata"}"#, r#"{"data":"metadata"}"#);
        check(r#"["metadata"]"#, r#"["metadata"]"#);
    }
}
