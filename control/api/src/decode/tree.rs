//! Builds a JSON value from any serde format and notes duplicate keys, which `serde_json::Value` swallows. The last one wins, as in Go.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Where the builder stands, and the duplicates that it has met.
#[derive(Default)]
pub(super) struct Tree {
    path: String,
    /// `duplicate field "spec.replicas"`, in document order.
    pub(super) duplicates: Vec<String>,
    /// Floats without a fraction become whole numbers, as they do when YAML is turned into JSON.
    pub(super) whole_floats: bool,
}

pub(super) struct Node<'a>(pub(super) &'a mut Tree);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // 2^53: every whole float below is exact.
        if self.0.whole_floats && value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            return Ok((value as i64).into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot hold"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (tree, mut out) = (self.0, Vec::new());
        let length = tree.path.len();
        loop {
            tree.path.push_str(&format!("[{}]", out.len()));
            let item = items.next_element_seed(Node(tree))?;
            tree.path.truncate(length);
            match item {
                Some(item) => out.push(item),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (tree, mut out) = (self.0, Map::new());
        let length = tree.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if length > 0 {
                tree.path.push('.');
            }
            tree.path.push_str(&key);
            let value = entries.next_value_seed(Node(tree))?;
            if out.contains_key(&key) {
                let text = format!("duplicate field {}", crate::status::quote(&tree.path));
                tree.duplicates.push(text);
            }
            out.insert(key, value);
            tree.path.truncate(length);
        }
        Ok(Value::Object(out))
    }
}
