//! `$(VAR)` in commands, arguments, values and subPathExpr. `$$` is a dollar sign; a name that is not known stays
//! as it was written. Pure.

/// Replaces each `$(NAME)` that `lookup` knows.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
            match lookup(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&rest[at..rest.len() - after.len()]),
            }
            rest = after;
        } else {
            result.push('$');
            rest = tail;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references_are_replaced_escapes_kept_and_unknown_names_left() {
        let table = [
            ("$(A)-$(B)", "1-2"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$A $ $(A", "$A $ $(A"),
            ("$$$(A)", "$1"),
            ("", ""),
        ];
        for (text, expected) in table {
            let lookup = |name: &str| match name {
                "A" => Some("1".to_owned()),
                "B" => Some("2".to_owned()),
                _ => None,
            };
            assert_eq!(expand(text, lookup), expected, "{text:?}");
        }
    }
}
