//! Kubernetes' protobuf form to JSON: the `k8s\0` envelope (`runtime.Unknown`) and, inside, messages read along the schema.
//!
//! Decoding only. Go writes plain (non-pointer) fields even when they are zero; conforming to the schema drops them later. Groups and
//! unknown field numbers are skipped.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Target;
use super::field_numbers::{Meaning, meaning};
use crate::schema::{self, Shape, Type};
use crate::time;

const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused; Kubernetes' types nest about ten levels.
const MAX_DEPTH: usize = 64;

/// Reads a body. The answer holds `apiVersion` and `kind` as the envelope gives them.
pub(super) fn decode(bytes: &[u8], target: &Target) -> Result<Value, String> {
    let envelope = bytes
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let mut object = Map::new();
    let mut raw: &[u8] = &[];
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    if let (number @ (1 | 2), Wire::Bytes(text)) = field? {
                        object.insert(
                            if number == 1 { "apiVersion" } else { "kind" }.into(),
                            utf8(text)?.into(),
                        );
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(format!(
                    "unable to decode content encoding {}",
                    String::from_utf8_lossy(encoding)
                ));
            }
            _ => {}
        }
    }
    let root = schema::of(target.type_name).ok_or("the kind has no protobuf form")?;
    // A body of another kind must be refused by its kind, not by its bytes.
    if object.get("kind").and_then(Value::as_str).is_none_or(|kind| kind.is_empty() || kind == target.kind) {
        message(raw, root, &root.name, &mut object, 0)?;
    }
    Ok(Value::Object(object))
}

/// Reads a message whose numbers are those of `numbers` into the fields of `of`.
fn message(
    bytes: &[u8],
    of: &Type,
    numbers: &str,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("proto: message nests too deeply".into());
    }
    for field in Fields(bytes) {
        let (number, wire) = field?;
        match (meaning(numbers, number), wire) {
            (Some(Meaning::Inline(inner)), Wire::Bytes(bytes)) => message(bytes, of, inner, out, depth + 1)?,
            (Some(Meaning::Field(name)), wire) => {
                if let Some(field) = of.field(name) {
                    put(&field.shape, wire, name, out, depth)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn put(
    shape: &Shape,
    wire: Wire<'_>,
    name: &str,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    match shape {
        Shape::List(item) => {
            let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            match (&**item, wire) {
                // Numbers may come packed.
                (Shape::Int32 | Shape::Int64 | Shape::Boolean, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let (number, rest) = varint(packed)?;
                        list.push(scalar(item, Wire::Varint(number), depth)?);
                        packed = rest;
                    }
                }
                (_, wire) => list.push(scalar(item, wire, depth)?),
            }
        }
        Shape::Map(item) => {
            let Wire::Bytes(entry) = wire else { return Err(wrong_wire(name)) };
            let (key, value) = map_entry(entry, item, depth)?;
            let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
        _ => {
            let value = scalar(shape, wire, depth).map_err(|e| format!("{name}: {e}"))?;
            if !value.is_null() {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Key and value of one entry of a map. Lists as values come in a wrapper with one repeated field.
fn map_entry(bytes: &[u8], item: &Shape, depth: usize) -> Result<(String, Value), String> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?.to_owned(),
            (2, Wire::Bytes(wrapper)) if matches!(item, Shape::List(_)) => {
                let mut items = Map::new();
                for field in Fields(wrapper) {
                    put(item, field?.1, "items", &mut items, depth + 1)?;
                }
                value = items.remove("items");
            }
            (2, wire) => value = Some(scalar(item, wire, depth)?),
            _ => {}
        }
    }
    let empty = || match item {
        Shape::List(_) => serde_json::json!([]),
        Shape::Quantity => "0".into(),
        _ => "".into(),
    };
    Ok((key, value.unwrap_or_else(empty)))
}

/// One value. Null for what Go's JSON leaves out.
fn scalar(shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (shape, wire) {
        (Shape::String, Wire::Bytes(text)) => utf8(text)?.into(),
        (Shape::Bytes, Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (Shape::Boolean, Wire::Varint(n)) => (n != 0).into(),
        (Shape::Int32, Wire::Varint(n)) => (n as i32).into(),
        (Shape::Int64, Wire::Varint(n)) => (n as i64).into(),
        (Shape::Number, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Shape::Struct(id), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            message(bytes, id.get(), &id.get().name, &mut object, depth + 1)?;
            Value::Object(object)
        }
        (Shape::Quantity, Wire::Bytes(bytes)) => first_text(bytes, 1)?.into(),
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Time, Wire::Bytes(bytes)) => instant(bytes)?.map_or(Value::Null, |t| time::seconds(t).into()),
        (Shape::MicroTime, Wire::Bytes(bytes)) => {
            instant(bytes)?.map_or(Value::Null, |t| time::micros(t).into())
        }
        // RawExtension and FieldsV1 hold JSON.
        (Shape::Any, Wire::Bytes(bytes)) => {
            serde_json::from_str(first_text(bytes, 1)?).unwrap_or(Value::Null)
        }
        _ => return Err(wrong_wire("value")),
    })
}

fn wrong_wire(name: &str) -> String {
    format!("proto: wrong wireType for field {name}")
}

fn first_text(bytes: &[u8], number: u32) -> Result<&str, String> {
    for field in Fields(bytes) {
        if let (n, Wire::Bytes(text)) = field?
            && n == number
        {
            return utf8(text);
        }
    }
    Ok("")
}

/// `IntOrString { type = 1, intVal = 2, strVal = 3 }`; type 0 is the number.
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => is_text = n == 1,
            (2, Wire::Varint(n)) => number = n as i32,
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// `Time { seconds = 1, nanos = 2 }`; an empty message is no time.
fn instant(bytes: &[u8]) -> Result<Option<Timestamp>, String> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|e| e.to_string())
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "proto: invalid UTF-8".to_owned())
}

/// One encoded value.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, in order: number and value.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| truncated())?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(((tag >> 3) as u32, wire))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let (number, rest) = varint(self.0)?;
        self.0 = rest;
        Ok(number)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(head)
    }
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut number = 0_u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[i + 1..]));
        }
    }
    Err(truncated())
}

fn truncated() -> String {
    "unexpected EOF".to_owned()
}

#[cfg(test)]
mod tests;
