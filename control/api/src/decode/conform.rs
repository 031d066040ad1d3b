//! Walks a value along the schema: drops what is unknown, null or a zero that Go leaves out, and refuses what has the wrong type, in the words of Go's JSON decoder.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::quantity::Quantity;
use crate::schema::{Shape, Type};
use crate::status::quote;
use crate::time;

/// Go accepts stray bits in the last symbol.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Conforms a whole object. Gives the texts on unknown fields, or the first value that has the wrong type.
pub(super) fn object(object: &mut Value, root: &Type) -> Result<Vec<String>, String> {
    let mut walk = Walk::default();
    walk.fields_of(object, root);
    match walk.error {
        Some(error) => Err(error),
        None => Ok(walk.unknown),
    }
}

/// What Go calls a JSON value in its errors.
pub(super) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Free-form values may nest this deep. Readers count too: serde_json stops at 128, lists and watch events wrap objects.
const MAX_FREE_DEPTH: usize = 64;

#[derive(Default)]
struct Walk {
    /// `spec.containers[0].name`, for unknown fields.
    path: String,
    /// `spec.containers.name`, for type errors: struct fields only.
    field_path: String,
    unknown: Vec<String>,
    error: Option<String>,
}

impl Walk {
    fn fields_of(&mut self, value: &mut Value, of: &Type) {
        let Value::Object(map) = value else { return };
        let (path, field_path) = (self.path.len(), self.field_path.len());
        map.retain(|key, value| {
            let field = of.field(key);
            if field.is_some() && value.is_null() {
                return false;
            }
            for text in [&mut self.path, &mut self.field_path] {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            match field {
                Some(field) => {
                    let holder = Holder { of: of.short_name(), go_name: field.go_name };
                    self.value(value, &field.shape, &holder);
                }
                None => self.unknown.push(format!("unknown field {}", quote(&self.path))),
            }
            self.path.truncate(path);
            self.field_path.truncate(field_path);
            field.is_some_and(|field| !(field.omit_zero && is_zero(value)))
        });
    }

    /// Conforms one value of the field that `holder` tells.
    fn value(&mut self, value: &mut Value, shape: &Shape, holder: &Holder<'_>) {
        match (shape, &mut *value) {
            (Shape::Any, free) if depth(free) > MAX_FREE_DEPTH => self.fail("exceeded max depth".into()),
            (Shape::Any, _)
            | (Shape::String, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Number, Value::Number(_)) => {}
            (Shape::Struct(id), Value::Object(_)) => self.fields_of(value, id.get()),
            (Shape::List(item), Value::Array(items)) => {
                for (i, element) in items.iter_mut().enumerate() {
                    self.element(element, item, holder, &format!("[{i}]"));
                }
            }
            (Shape::Map(item), Value::Object(map)) => {
                for (key, element) in map.iter_mut() {
                    self.element(element, item, holder, &format!(".{key}"));
                }
            }
            (Shape::Int32, Value::Number(n)) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => {}
            (Shape::Int64, Value::Number(n)) if n.is_i64() => {}
            (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
                let what = format!("number {n}");
                self.wrong_type(&what, shape, holder);
            }
            (Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrString, _) => {
                match parsed(value, shape) {
                    Ok(Some(canonical)) => *value = canonical,
                    Ok(None) => {}
                    Err(Unfit::Told(message)) => self.fail(message),
                    Err(Unfit::Type) => self.wrong_type(go_kind(value), shape, holder),
                }
            }
            _ => self.wrong_type(go_kind(value), shape, holder),
        }
    }

    fn element(&mut self, element: &mut Value, shape: &Shape, holder: &Holder<'_>, step: &str) {
        if element.is_null() {
            *element = zero(shape);
            return;
        }
        let length = self.path.len();
        self.path.push_str(step);
        self.value(element, shape, holder);
        self.path.truncate(length);
    }

    fn wrong_type(&mut self, what: &str, shape: &Shape, holder: &Holder<'_>) {
        let go_type = go_type(shape, holder.go_name);
        let message = format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {go_type}",
            holder.of, self.field_path
        );
        self.fail(message);
    }

    fn fail(&mut self, message: String) {
        self.error.get_or_insert(message);
    }
}

/// The Go struct field that a value belongs to.
struct Holder<'a> {
    /// The struct's name.
    of: &'a str,
    /// The named type of the field's scalars.
    go_name: Option<&'static str>,
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or_default()
}

/// What Go leaves out under `omitempty`.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

enum Unfit {
    /// The JSON type is wrong.
    Type,
    /// The text says what is wrong.
    Told(String),
}

/// Checks scalars that have a text form of their own. `Some` replaces the value by its normal form.
fn parsed(value: &Value, shape: &Shape) -> Result<Option<Value>, Unfit> {
    let told = |e: &dyn std::fmt::Display| Unfit::Told(e.to_string());
    let go_value = |go_type: &str| {
        Unfit::Told(format!("json: cannot unmarshal {} into Go value of type {go_type}", go_kind(value)))
    };
    match (shape, value) {
        (Shape::Bytes, Value::String(text)) => base64_error(text).map_or(Ok(None), |e| Err(Unfit::Told(e))),
        (Shape::Time, Value::String(text)) => {
            time::parse(text).map(|t| Some(time::seconds(t).into())).map_err(|e| told(&e))
        }
        (Shape::MicroTime, Value::String(text)) => {
            time::parse(text).map(|t| Some(time::micros(t).into())).map_err(|e| told(&e))
        }
        (Shape::Time | Shape::MicroTime, _) => Err(go_value("string")),
        (Shape::Quantity, Value::String(text)) => Quantity::parse(text).map(|_| None).map_err(|e| told(&e)),
        (Shape::Quantity, other) => {
            Quantity::parse(&other.to_string()).map(|q| Some(q.to_string().into())).map_err(|e| told(&e))
        }
        (Shape::IntOrString, Value::String(_)) => Ok(None),
        (Shape::IntOrString, Value::Number(n)) if n.as_i64().is_some_and(|i| i32::try_from(i).is_ok()) => {
            Ok(None)
        }
        (Shape::IntOrString, Value::Number(n)) => {
            Err(Unfit::Told(format!("json: cannot unmarshal number {n} into Go value of type int32")))
        }
        (Shape::IntOrString, _) => Err(go_value("int32")),
        _ => Err(Unfit::Type),
    }
}

fn base64_error(text: &str) -> Option<String> {
    let lines: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let at = match BASE64.decode(&lines).err()? {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => lines.len() / 4 * 4,
    };
    Some(format!("illegal base64 data at input byte {at}"))
}

/// What Go makes of a null in a list or map.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => "".into(),
        Shape::Boolean => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Number | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Struct(_) | Shape::Map(_) => serde_json::json!({}),
        Shape::List(_) => serde_json::json!([]),
        Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
    }
}

/// How Go prints the type; `name` is that of its scalars, if they have one.
fn go_type(shape: &Shape, name: Option<&str>) -> String {
    match (shape, name) {
        (Shape::List(item), _) => format!("[]{}", go_type(item, name)),
        (Shape::Map(item), _) if **item == Shape::Quantity => "v1.ResourceList".into(),
        (Shape::Map(item), _) => format!("map[string]{}", go_type(item, name)),
        (Shape::Struct(id), _) => format!("v1.{}", id.get().short_name()),
        (_, Some(name)) => name.into(),
        (Shape::String, _) => "string".into(),
        (Shape::Bytes, _) => "[]uint8".into(),
        (Shape::Time, _) => "v1.Time".into(),
        (Shape::MicroTime, _) => "v1.MicroTime".into(),
        (Shape::Boolean, _) => "bool".into(),
        (Shape::Int32, _) => "int32".into(),
        (Shape::Int64, _) => "int64".into(),
        (Shape::Number, _) => "float64".into(),
        (Shape::Quantity, _) => "resource.Quantity".into(),
        (Shape::IntOrString, _) => "intstr.IntOrString".into(),
        (Shape::Any, _) => "runtime.RawExtension".into(),
    }
}
