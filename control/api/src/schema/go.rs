//! How upstream's Go types write fields: which zeros mean "not set", and the named types that error messages show. A table, since schemas
//! do not say.

use std::collections::HashMap;
use std::sync::LazyLock;

static TABLE: &str = include_str!("go.tsv");

static ROWS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t')).collect()
});

/// Whether a zero value is left out, and the named Go type, of a field.
pub(super) fn of(type_name: &str, field: &str) -> (bool, Option<&'static str>) {
    let mut entries = ROWS.get(type_name).copied().unwrap_or_default().split(' ').map(entry);
    entries.find(|(name, ..)| *name == field).map(|(_, omit, go_name)| (omit, go_name)).unwrap_or_default()
}

/// `~name:v1.Name`
fn entry(text: &'static str) -> (&'static str, bool, Option<&'static str>) {
    let (name, go_name) = text.split_once(':').map_or((text, None), |(name, go_name)| (name, Some(go_name)));
    name.strip_prefix('~').map_or((name, false, go_name), |name| (name, true, go_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{self, Shape};

    #[test]
    fn each_entry_is_of_a_field_that_is_reached_and_can_be_zero() {
        for (type_name, entries) in ROWS.iter() {
            for (name, omit, _) in entries.split(' ').map(entry) {
                let field = schema::of(type_name).and_then(|t| t.field(name));
                let Some(field) = field else { panic!("{type_name}.{name} is not reached") };
                assert!(
                    !omit || !matches!(field.shape, Shape::Struct(_) | Shape::Time | Shape::Any),
                    "{type_name}.{name}"
                );
            }
        }
    }

    #[test]
    fn pointers_keep_their_zeros() {
        assert_eq!(of("io.k8s.api.core.v1.PodSpec", "hostNetwork"), (true, None));
        assert_eq!(of("io.k8s.api.core.v1.PodSpec", "terminationGracePeriodSeconds"), (false, None));
        assert_eq!(of("io.k8s.api.core.v1.PodSpec", "restartPolicy"), (true, Some("v1.RestartPolicy")));
        assert_eq!(of("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity"), (false, None));
    }
}
