//! The short hash that names ReplicaSets and revisions after their template. FNV-1a over the template's JSON, written in
//! upstream's safe alphabet (no vowels, so no words). Upstream hashes a Go dump instead: values differ, nothing compares them.

use std::fmt::Write;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of `template`; another `salt` gives another one, for when two templates collide.
pub fn of<T: serde::Serialize>(template: &T, salt: i32) -> String {
    let text = crate::plan::to_value(template).to_string();
    let salted = if salt == 0 { Vec::new() } else { salt.to_le_bytes().to_vec() };
    let hash = text
        .bytes()
        .chain(salted)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    safe(&hash.to_string())
}

fn safe(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = out.write_char(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salt_and_content_change_the_hash_and_nothing_else_does() {
        assert_eq!(of(&"a", 0), of(&"a", 0));
        assert_ne!(of(&"a", 0), of(&"b", 0));
        assert_ne!(of(&"a", 0), of(&"a", 1));
        assert!(of(&"a", 0).bytes().all(|it| ALPHABET.contains(&it)));
    }
}
