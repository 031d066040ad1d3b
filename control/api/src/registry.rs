//! The table of all resources, and its look-ups.
//!
//! A resource is a row; routing, discovery, OpenAPI, storage keys, decoding and garbage collection are loops over the rows. What a kind
//! does differently from the others is behind its row's `strategy`. Rows are in [`rows`]; nothing here knows HTTP.

mod rows;

use crate::strategy::Strategy;
pub use rows::RESOURCES;

/// One resource: a plural under a group and version.
#[derive(Clone, Copy)]
pub struct Resource {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version, `v1`.
    pub version: &'static str,
    /// Kind of one object, `Deployment`.
    pub kind: &'static str,
    /// Kind of a list of them, `DeploymentList`; empty for resources that are never listed.
    pub list_kind: &'static str,
    /// The word in URLs, `deployments`.
    pub plural: &'static str,
    /// The word in messages and on kubectl's command line, `deployment`.
    pub singular: &'static str,
    /// kubectl's abbreviations, `deploy`.
    pub short_names: &'static [&'static str],
    /// Named sets that kubectl expands, `all`.
    pub categories: &'static [&'static str],
    /// Objects live in a namespace.
    pub namespaced: bool,
    /// Where objects are stored, in upstream's layout: `/registry/deployments`, keys are `{prefix}/[{namespace}/]{name}`. Empty for
    /// resources that store nothing (reviews, bindings). Two resources may share a prefix (events).
    pub storage_prefix: &'static str,
    /// Name of the object's definition, `io.k8s.api.apps.v1.Deployment`; see [`crate::schema::of`].
    pub type_name: &'static str,
    /// Verbs of the resource itself, in alphabetical order as discovery gives them.
    pub verbs: &'static [&'static str],
    /// Its subresources, in alphabetical order.
    pub subresources: &'static [Subresource],
    /// Defaults, validation, columns.
    pub strategy: &'static dyn Strategy,
}

/// A path below one object: `pods/x/log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The last path segment, `status`.
    pub name: &'static str,
    /// Group of the kind that it takes and gives.
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// The kind that it takes and gives; for streams the kind of their options, `PodExecOptions`.
    pub kind: &'static str,
    /// Definition of that kind; empty for the options of streams, which come as query parameters.
    pub type_name: &'static str,
    /// Verbs, in alphabetical order.
    pub verbs: &'static [&'static str],
}

impl Resource {
    /// `apps/v1`, or `v1` for core: the value of `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// The subresource of that name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The resource itself serves `verb`.
    #[must_use]
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Objects are stored, as opposed to answered at once.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !self.storage_prefix.is_empty()
    }

    /// The store's key of one object. `namespace` is ignored by cluster-scoped resources.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}/{namespace}/{name}", self.storage_prefix)
        } else {
            format!("{}/{name}", self.storage_prefix)
        }
    }

    /// The prefix of the keys of all objects, or of those in one namespace. Ends in `/`.
    #[must_use]
    pub fn key_prefix(&self, namespace: Option<&str>) -> String {
        match namespace.filter(|n| self.namespaced && !n.is_empty()) {
            Some(namespace) => format!("{}/{namespace}/", self.storage_prefix),
            None => format!("{}/", self.storage_prefix),
        }
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Eq for Resource {}

impl std::hash::Hash for Resource {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.group, self.version, self.plural).hash(state);
    }
}

/// `apps/v1`, or `v1` for core.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits `apps/v1` into group and version; `v1` is core's.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The row that serves `plural`.
#[must_use]
pub fn lookup(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The row whose objects are of `kind`.
#[must_use]
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// Group and version pairs in the order in which discovery gives them, each once.
#[must_use]
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for row in RESOURCES {
        if !out.contains(&(row.group, row.version)) {
            out.push((row.group, row.version));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_row_is_consistent() {
        let mut seen = HashSet::new();
        for row in RESOURCES {
            assert!(seen.insert((row.group, row.version, row.plural)), "{row:?} twice");
            assert!(row.type_name.ends_with(&format!(".{}", row.kind)), "{row:?}: {}", row.type_name);
            assert_eq!(row.is_stored(), !row.list_kind.is_empty(), "{row:?}");
            assert!(!row.is_stored() || row.strategy.namespaced() == row.namespaced, "{row:?}: scope");
            assert!(row.verbs.is_sorted(), "{row:?}: verbs {:?}", row.verbs);
            assert!(row.subresources.is_sorted_by_key(|s| s.name), "{row:?}: subresources");
            if row.is_stored() {
                assert_eq!(row.list_kind, format!("{}List", row.kind));
                assert_eq!(row.strategy.has_status(), row.subresource("status").is_some(), "{row:?}: status");
            }
        }
    }

    #[test]
    fn rows_of_one_group_version_stand_together() {
        let in_order: Vec<_> = RESOURCES.iter().map(|r| (r.group, r.version)).collect();
        let runs = 1 + in_order.windows(2).filter(|w| w[0] != w[1]).count();
        assert_eq!(runs, group_versions().len());
    }

    #[test]
    fn keys_follow_upstreams_layout() {
        for (row, namespace, name, key) in [
            (("", "v1", "nodes"), "", "n", "/registry/minions/n"),
            (("", "v1", "services"), "a", "s", "/registry/services/specs/a/s"),
            (("", "v1", "endpoints"), "a", "s", "/registry/services/endpoints/a/s"),
            (("apps", "v1", "deployments"), "a", "d", "/registry/deployments/a/d"),
            (("events.k8s.io", "v1", "events"), "a", "e", "/registry/events/a/e"),
        ] {
            let row = lookup(row.0, row.1, row.2).unwrap();
            assert_eq!(row.key(namespace, name), key);
        }
        let pods = lookup("", "v1", "pods").unwrap();
        assert_eq!(pods.key_prefix(None), "/registry/pods/");
        assert_eq!(pods.key_prefix(Some("a")), "/registry/pods/a/");
    }
}
