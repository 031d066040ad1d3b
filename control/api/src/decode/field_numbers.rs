//! Which field a protobuf number means: a table, because schemas do not say.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a number of a message stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The field of that JSON name.
    Field(&'static str),
    /// A message of that type, whose fields belong to the object itself in JSON.
    Inline(&'static str),
}

static TABLE: &str = include_str!("field_numbers.tsv");

static NUMBERS: LazyLock<HashMap<&'static str, Vec<(u32, Meaning)>>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.split_once('\t'))
        .map(|(name, fields)| (name, fields.split(' ').filter_map(entry).collect()))
        .collect()
});

/// `name=1` or `*name=1:TYPE`.
fn entry(text: &'static str) -> Option<(u32, Meaning)> {
    let (name, rest) = text.split_once('=')?;
    match rest.split_once(':') {
        Some((number, of)) => Some((number.parse().ok()?, Meaning::Inline(of))),
        None => Some((rest.parse().ok()?, Meaning::Field(name))),
    }
}

/// What `number` means in messages of `type_name`; `None` for numbers that came later than the table.
pub(super) fn meaning(type_name: &str, number: u32) -> Option<Meaning> {
    NUMBERS.get(type_name)?.iter().find(|(n, _)| *n == number).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    fn names(type_name: &str) -> Vec<&'static str> {
        NUMBERS.get(type_name).into_iter().flatten().fold(Vec::new(), |mut out, (_, meaning)| {
            match meaning {
                Meaning::Field(name) => out.push(name),
                Meaning::Inline(of) => out.extend(names(of)),
            }
            out
        })
    }

    #[test]
    fn numbers_and_schemas_name_the_same_fields() {
        for of in schema::types() {
            let mut numbered = names(&of.name);
            numbered.sort_unstable();
            // The envelope carries these two.
            let expected: Vec<&str> = of.fields().iter().map(|f| f.name.as_str()).collect();
            let missing: Vec<_> = expected
                .iter()
                .filter(|f| !numbered.contains(f) && !["apiVersion", "kind"].contains(f))
                .collect();
            let extra: Vec<_> = numbered.iter().filter(|f| !expected.contains(f)).collect();
            assert!(
                missing.is_empty() && extra.is_empty(),
                "{}: missing {missing:?}, extra {extra:?}",
                of.name
            );
        }
    }
}
