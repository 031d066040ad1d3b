//! Names that the server makes up from `metadata.generateName`. The rules for names are in [`crate::kinds::names`].

use crate::kinds::names::LABEL_MAX;

/// Letters and digits of generated names: no vowels and no look-alikes (upstream's `util/rand`).
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;
/// Generated names stay valid DNS labels.
const MAX_GENERATED_BASE: usize = LABEL_MAX - SUFFIX_CHARS;

/// `metadata.generateName` with a suffix of five characters drawn from `random`. A long base is cut.
#[must_use]
pub fn generate_name(base: &str, random: [u8; 8]) -> String {
    let mut end = base.len().min(MAX_GENERATED_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut number = u64::from_le_bytes(random);
    let mut name = base[..end].to_owned();
    for _ in 0..SUFFIX_CHARS {
        name.push(char::from(SUFFIX_ALPHABET[(number % SUFFIX_ALPHABET.len() as u64) as usize]));
        number /= SUFFIX_ALPHABET.len() as u64;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_labels_and_follow_the_random_bytes() {
        assert_eq!(generate_name("web-", [0; 8]), "web-bbbbb");
        assert_ne!(
            generate_name("web-", [1, 2, 3, 4, 5, 6, 7, 8]),
            generate_name("web-", [8, 7, 6, 5, 4, 3, 2, 1])
        );
        let long = generate_name(&"a".repeat(100), [255; 8]);
        assert!(crate::kinds::names::dns_label(&long).is_empty());
        assert_eq!(long.len(), 63);
    }
}
