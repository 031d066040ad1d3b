//! JSON and YAML texts to values, with errors that say where: Go's words for JSON, the line for YAML.

use serde::de::DeserializeSeed as _;
use serde_json::Value;
use serde_json::error::Category;

use super::tree::{Node, Tree};

/// The value of a JSON text and the texts on its duplicate fields.
pub(super) fn json(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut tree = Tree::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        Node(&mut tree).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map(|value| (value, tree.duplicates)).map_err(|e| go_syntax_error(&e, bytes))
}

/// The value of the first document of a YAML text and the texts on its duplicate fields.
pub(super) fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut tree = Tree::default();
    tree.whole_floats = true;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |deserializer| {
        Node(&mut tree).deserialize(deserializer)
    })
    .map(|value| (value, tree.duplicates))
    .map_err(|e| match e.location() {
        Some(at) => format!("error converting YAML to JSON: yaml: line {}: {e}", at.line()),
        None => format!("error converting YAML to JSON: yaml: {e}"),
    })
}

/// What follows `invalid character 'x' ` in Go, by what serde_json says.
const CONTEXTS: [(&str, &str); 12] = [
    ("expected value", "looking for beginning of value"),
    ("key must be a string", "looking for beginning of object key string"),
    ("expected `:`", "after object key"),
    ("expected `,` or `}`", "after object key:value pair"),
    ("expected `,` or `]`", "after array element"),
    ("trailing characters", "after top-level value"),
    ("expected ident", "in literal"),
    ("invalid number", "in numeric literal"),
    ("control character", "in string literal"),
    ("invalid escape", "in string escape code"),
    ("lone", "in \\u hexadecimal character escape"),
    ("unexpected end of hex escape", "in \\u hexadecimal character escape"),
];

fn go_syntax_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    let text = error.to_string();
    let place = format!("(line {}, column {})", error.line(), error.column());
    if error.classify() == Category::Eof {
        return format!("unexpected end of JSON input {place}");
    }
    let offending = offending_byte(error, bytes);
    if text.starts_with("trailing comma") {
        let context = if offending == Some(b'}') {
            "looking for beginning of object key string"
        } else {
            "looking for beginning of value"
        };
        return format!("invalid character {} {context} {place}", go_char(offending));
    }
    match CONTEXTS.iter().find(|(start, _)| text.starts_with(start)) {
        Some((_, context)) => format!("invalid character {} {context} {place}", go_char(offending)),
        None => text,
    }
}

fn offending_byte(error: &serde_json::Error, bytes: &[u8]) -> Option<u8> {
    let line = bytes.split(|b| *b == b'\n').nth(error.line().checked_sub(1)?)?;
    line.get(error.column().checked_sub(1)?).copied()
}

fn go_char(byte: Option<u8>) -> String {
    match byte {
        Some(b'\'') => r"'\''".to_owned(),
        Some(b'"') => "'\"'".to_owned(),
        Some(byte) if byte.is_ascii_graphic() || byte == b' ' => format!("'{}'", char::from(byte)),
        Some(byte) => format!("'\\x{byte:02x}'"),
        None => "'\\n'".to_owned(),
    }
}
