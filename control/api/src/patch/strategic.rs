//! Strategic merge patch: what kubectl apply, edit, rollout and `kubectl patch` send.
//!
//! Lists marked `merge` merge element by element, matched by their merge key; directives inside the patch steer it:
//! `$patch: replace|delete`, `$retainKeys`, `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`. Which lists merge by which key
//! is in [`crate::schema`]. The order of merged lists is in [`order`].

mod order;

use serde_json::{Map, Value};

use super::{does_not_apply, go_print};
use crate::schema::{self, Merge, Shape, Type};
use crate::status::{ApiError, quote};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Result<T> = std::result::Result<T, ApiError>;

/// `original`, an object of `type_name`, with `patch` merged in.
///
/// # Errors
/// 400 for a malformed patch or a list element without its merge key, 422 for an unknown directive.
pub fn strategic_merge_patch(original: &Value, patch: &Value, type_name: &str) -> Result<Value> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(ApiError::bad_request("invalid JSON document"));
    };
    let place = schema::of(type_name).map_or(Place::Any, Place::Struct);
    merge_map(original.clone(), patch.clone(), place).map(Value::Object)
}

/// What the schema knows of the object that is being merged.
#[derive(Clone, Copy)]
enum Place {
    Struct(&'static Type),
    Map(&'static Shape),
    Any,
}

impl Place {
    fn of(shape: &'static Shape) -> Self {
        match shape {
            Shape::Struct(id) => Self::Struct(id.get()),
            Shape::Map(values) => Self::Map(values),
            _ => Self::Any,
        }
    }

    /// Shape and marks of a member.
    fn member(self, key: &str) -> Result<(&'static Shape, Merge)> {
        match self {
            Self::Struct(of) => of.field(key).map(|f| (&f.shape, f.merge.clone())).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to find api field in struct {} for the json field {}",
                    of.short_name(),
                    quote(key)
                ))
            }),
            Self::Map(values) => Ok((values, Merge::default())),
            Self::Any => Ok((&Shape::Any, Merge::default())),
        }
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    place: Place,
) -> Result<Map<String, Value>> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.shift_remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, place)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM) {
            Some(list) => delete_from_primitive_list(&mut original, list, &value)?,
            None => merge_member(&mut original, key, value, place)?,
        }
    }
    Ok(original)
}

fn merge_member(original: &mut Map<String, Value>, key: String, patch: Value, place: Place) -> Result<()> {
    if patch.is_null() {
        original.shift_remove(&key);
        return Ok(());
    }
    let merged = match (original.get_mut(&key).map(Value::take), patch) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let (shape, marks) = place.member(&key)?;
            if marks.patch_replace { new.into() } else { merge_map(old, new, Place::of(shape))?.into() }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let (shape, marks) = place.member(&key)?;
            if marks.patch_merge { merge_list(old, new, shape, marks.patch_key)?.into() } else { new.into() }
        }
        (_, new) => without_directives(new),
    };
    original.insert(key, merged);
    Ok(())
}

/// Merges a list that is marked `merge`; without a key it is a set of scalars.
fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    list: &'static Shape,
    key: Option<&'static str>,
) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(does_not_apply("lists of lists are not supported"));
    }
    let Some(key) = key else {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(order::arrange(merged, &patch, &original, None));
    };
    let element = match list {
        Shape::List(element) => Place::of(element),
        _ => Place::Any,
    };
    let (original, patch) = special_elements(original, patch, key)?;
    let mut merged = original.clone();
    for item in &patch {
        let value = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        match merged.iter().position(|m| m.get(key) == Some(value)) {
            Some(at) => {
                let (Value::Object(old), Value::Object(new)) = (merged[at].take(), item.clone()) else {
                    return Err(ApiError::bad_request(format!("value for key {at} is not a map.")));
                };
                merged[at] = merge_map(old, new, element)?.into();
            }
            None => merged.push(without_directives(item.clone())),
        }
    }
    if let Some(item) = merged.iter().find(|m| m.get(key).is_none()) {
        return Err(no_merge_key(item, key));
    }
    Ok(order::arrange(merged, &patch, &original, Some(key)))
}

/// Obeys elements that carry `$patch` and takes them out of the patch.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut rest, mut replace) = (Vec::with_capacity(patch.len()), false);
    for item in patch {
        let Value::Object(map) = &item else {
            return Err(ApiError::bad_request(format!("expected a map, but received {}", go_print(&item))));
        };
        match map.get(PATCH) {
            None => rest.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = map.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    original.retain(|o| o.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    return Err(ApiError::bad_request("merging lists cannot yet be specified in the patch"));
                }
                _ => return Err(unknown_directive(directive, map)),
            },
        }
    }
    if replace { Ok((rest, Vec::new())) } else { Ok((original, rest)) }
}

/// `$retainKeys`: members of the original that are not listed go; the patch may hold no others.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let Some(list) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || ApiError::bad_request("invalid patch format of retainKeys");
    let keys = list.as_array().ok_or_else(malformed)?;
    let listed = |key: &str| keys.iter().any(|k| k == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !listed(key)) {
        return Err(malformed());
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// `$setElementOrder/FIELD`: merges FIELD at once and brings it into the given order.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    place: Place,
) -> Result<()> {
    let malformed = || ApiError::bad_request("invalid patch format of setElementOrder list");
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(wanted)) = patch.shift_remove(&directive) else { return Err(malformed()) };
        let field = &directive[ELEMENT_ORDER.len()..];
        let (shape, marks) = place.member(field)?;
        let list = |map: &mut Map<String, Value>| match map.get_mut(field) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(std::mem::take(items))),
            // A null in the patch deletes the list: the ordinary merge does it.
            Some(Value::Null) => Ok(None),
            Some(_) => Err(malformed()),
        };
        let is_deletion = patch.get(field).is_some_and(Value::is_null);
        if is_deletion {
            continue;
        }
        let (old, new) = (list(original)?, list(patch)?);
        if let Some(new) = &new {
            order::check(new, &wanted, marks.patch_key)?;
        }
        let before = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => merge_list(Vec::new(), new, shape, marks.patch_key)?,
            (Some(old), Some(new)) if marks.patch_merge => merge_list(old, new, shape, marks.patch_key)?,
            (Some(_), Some(new)) => new,
        };
        if let Some(key) = marks.patch_key
            && let Some(item) = merged.iter().chain(&wanted).find(|item| item.get(key).is_none())
        {
            return Err(no_merge_key(item, key));
        }
        original.insert(field.to_owned(), order::arrange(merged, &wanted, &before, marks.patch_key).into());
        patch.shift_remove(field);
    }
    Ok(())
}

fn delete_from_primitive_list(original: &mut Map<String, Value>, list: &str, gone: &Value) -> Result<()> {
    let gone =
        gone.as_array().ok_or_else(|| ApiError::bad_request("invalid patch format of primitive list"))?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// A value that is new to the object: directives and nulls have nothing to act on.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(map) if map.get(PATCH).is_some_and(|d| d == "delete") => Value::Object(Map::new()),
        Value::Object(map) => {
            let keep = |(key, value): &(String, Value)| {
                !value.is_null()
                    && key != PATCH
                    && key != RETAIN_KEYS
                    && !key.starts_with(DELETE_FROM)
                    && !key.starts_with(ELEMENT_ORDER)
            };
            map.into_iter().filter(keep).map(|(key, value)| (key, without_directives(value))).collect()
        }
        Value::Array(items) => {
            let deletes = |item: &Value| item.get(PATCH).is_some_and(|d| d == "delete");
            let bare_replace = |item: &Value| {
                item.get(PATCH).is_some_and(|d| d == "replace")
                    && item.as_object().is_some_and(|m| m.len() == 1)
            };
            items.into_iter().filter(|i| !deletes(i) && !bare_replace(i)).map(without_directives).collect()
        }
        other => other,
    }
}

fn no_merge_key(item: &Value, key: &str) -> ApiError {
    ApiError::bad_request(format!("map: {} does not contain declared merge key: {key}", go_print(item)))
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> ApiError {
    does_not_apply(format!(
        "unknown patch type: {} in map: {}",
        go_print(directive),
        go_print(&Value::Object(map.clone()))
    ))
}

#[cfg(test)]
mod tests;
