//! How two values of one field merge: the marks of upstream's OpenAPI document (`x-kubernetes-list-type` and its kin), as a table.
//!
//! `merge.tsv` holds a row for each marked field of the types that the registry reaches. Strategic merge patch reads `patch_*`,
//! server-side apply `list_*` and `map_atomic`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// One value; also what an unmarked list is.
    #[default]
    Atomic,
    /// Scalars, each owned alone.
    Set,
    /// Objects known by the values of `list_keys`.
    Map,
}

/// The marks of one field. The default is an unmarked field: lists are replaced, maps and objects merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// `x-kubernetes-list-type`
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub list_keys: Vec<&'static str>,
    /// `x-kubernetes-patch-strategy` holds `merge`: strategic merge goes into the list.
    pub patch_merge: bool,
    /// `x-kubernetes-patch-strategy` holds `retainKeys`: a patch may name the members that stay.
    pub retain_keys: bool,
    /// `x-kubernetes-patch-strategy` is `replace`: a patch replaces the whole object.
    pub patch_replace: bool,
    /// `x-kubernetes-patch-merge-key`; absent for lists of scalars.
    pub patch_key: Option<&'static str>,
    /// `x-kubernetes-map-type: atomic`
    pub map_atomic: bool,
}

static TABLE: &str = include_str!("merge.tsv");

static ROWS: LazyLock<HashMap<(&'static str, &'static str), [&'static str; 5]>> =
    LazyLock::new(|| rows().collect());

fn rows() -> impl Iterator<Item = ((&'static str, &'static str), [&'static str; 5])> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        ((cell(), cell()), [cell(), cell(), cell(), cell(), cell()])
    })
}

/// The marks of a field.
#[must_use]
pub fn of(type_name: &str, field: &str) -> Merge {
    ROWS.get(&(type_name, field)).map(|cells| parse(*cells)).unwrap_or_default()
}

/// The raw marks of a field, as OpenAPI writes them: pairs of extension name and value.
pub(crate) fn extensions(type_name: &str, field: &str) -> Vec<(&'static str, serde_json::Value)> {
    let Some([list_type, keys, strategy, key, map_type]) = ROWS.get(&(type_name, field)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (name, text) in [
        ("x-kubernetes-list-type", list_type),
        ("x-kubernetes-patch-strategy", strategy),
        ("x-kubernetes-patch-merge-key", key),
        ("x-kubernetes-map-type", map_type),
    ] {
        if !text.is_empty() {
            out.push((name, (*text).into()));
        }
    }
    if !keys.is_empty() {
        out.push(("x-kubernetes-list-map-keys", keys.split(',').collect()));
    }
    out
}

fn parse([list_type, keys, strategy, key, map_type]: [&'static str; 5]) -> Merge {
    let strategies: Vec<&str> = strategy.split(',').collect();
    Merge {
        list_type: match list_type {
            "map" => ListType::Map,
            "set" => ListType::Set,
            _ => ListType::Atomic,
        },
        list_keys: keys.split(',').filter(|k| !k.is_empty()).collect(),
        patch_merge: strategies.contains(&"merge"),
        retain_keys: strategies.contains(&"retainKeys"),
        patch_replace: strategies.contains(&"replace"),
        patch_key: Some(key).filter(|k| !k.is_empty()),
        map_atomic: map_type == "atomic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{self, Shape};

    #[test]
    fn each_row_is_of_a_field_that_is_reached_and_has_the_shape_it_says() {
        for ((type_name, field), cells) in rows() {
            let reached = schema::of(type_name).and_then(|t| t.field(field));
            let Some(reached) = reached else { panic!("{type_name}.{field} is not reached") };
            let merge = parse(cells);
            let is_list = matches!(reached.shape, Shape::List(_));
            assert_eq!(!cells[0].is_empty() || merge.patch_merge, is_list, "{type_name}.{field}");
            if merge.patch_key.is_some() || merge.list_type == ListType::Map {
                assert!(
                    matches!(&reached.shape, Shape::List(item) if matches!(**item, Shape::Struct(_))),
                    "{type_name}.{field}"
                );
            }
        }
    }

    #[test]
    fn rows_are_sorted_and_unique() {
        let keys: Vec<_> = rows().map(|(key, _)| key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}
