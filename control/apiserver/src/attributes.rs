//! Who asks for what: the facts of a request that authorization, admission and audit decide on.
//!
//! Filled by the handler from the URL and the authenticated user; nothing here reads a body.

use std::collections::BTreeMap;

/// An authenticated user, as upstream's `user.Info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserInfo {
    /// Unique name: `system:node:n1`, `kubernetes-admin`, `system:serviceaccount:ns:name`.
    pub name: String,
    /// Identity that survives a rename; empty if the authenticator knows none.
    pub uid: String,
    /// Groups, among them `system:authenticated` once authentication succeeded.
    pub groups: Vec<String>,
    /// What else the authenticator knows, by key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of the given name and groups, with `system:authenticated` added.
    #[must_use]
    pub fn named(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// Whoever presents no credentials: `system:anonymous`.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }
}

/// What is asked, as upstream's `authorizer.Attributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who asks.
    pub user: UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` for resources; the lower-case HTTP
    /// method for other paths.
    pub verb: String,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty. A list or watch by `fieldSelector=metadata.name=x` carries the name too.
    pub name: String,
    /// URL path.
    pub path: String,
    /// The path names an API resource; otherwise only `verb` and `path` count.
    pub resource_request: bool,
}

impl Attributes {
    /// `pods`, `pods.metrics.k8s.io`, as messages name a resource.
    #[must_use]
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// Only looks: get, list, watch.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}
