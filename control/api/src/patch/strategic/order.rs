//! The order of merged lists: what the patch names comes in the patch's order, what only the server has keeps its place among it as far as
//! the live list tells.

use serde_json::Value;

use crate::patch::go_print;
use crate::status::ApiError;

/// Two elements are the same: equal keys, or equal scalars without a key.
fn same(left: &Value, right: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => left.get(key).is_some() && left.get(key) == right.get(key),
        None => left == right,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Brings `merged` into order: elements named by `wanted` in its order, the others interleaved by their order in `live`.
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(wanted, item, key).is_some());
    named.sort_by_key(|item| position(wanted, item, key));
    others.sort_by_key(|item| position(live, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(name), Some(other)) = (named.peek(), others.peek()) {
        let goes_first = match (position(live, other, key), position(live, name, key)) {
            (Some(other), Some(name)) => other < name,
            _ => false,
        };
        out.extend(if goes_first { others.next() } else { named.next() });
    }
    out.extend(named);
    out.extend(others);
    out
}

/// The patch list must be a part of the `$setElementOrder` list, in its order; deletions do not count.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), ApiError> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut rest = wanted.iter();
    for item in patch.iter().filter(|item| item.get(super::PATCH).is_none()) {
        if !rest.any(|other| same(other, item, key)) {
            let (patch, wanted) = (go_print(&Value::from(patch)), go_print(&Value::from(wanted)));
            return Err(ApiError::bad_request(format!(
                "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{wanted}\n"
            )));
        }
    }
    Ok(())
}
