//! Which resources the API serves, in the preferred version of each group, with what can be done to them.

use controllers::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

/// A resource that the API serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where it lives.
    pub resource: Resource,
    /// What can be done: `list`, `watch`, `delete`, ..
    pub verbs: Vec<String>,
}

impl Served {
    /// Whether all of `verbs` can be done.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|known| known == verb))
    }
}

/// Everything that the API serves, without subresources.
///
/// # Errors
/// When a discovery document cannot be had; a part of the picture would be worse than none.
pub async fn served(client: &Client) -> Result<Vec<Served>, kube::Error> {
    let mut all = Vec::new();
    for version in client.list_core_api_versions().await?.versions {
        all.extend(resources("", &version, client.list_core_api_resources(&version).await?));
    }
    for group in client.list_api_groups().await?.groups {
        let Some(version) = group.preferred_version.as_ref().or(group.versions.first()) else { continue };
        let list = client.list_api_group_resources(&version.group_version).await?;
        all.extend(resources(&group.name, &version.version, list));
    }
    Ok(all)
}

fn resources(group: &str, version: &str, list: APIResourceList) -> Vec<Served> {
    let whole = list.resources.into_iter().filter(|it| !it.name.contains('/'));
    whole
        .map(|it| Served {
            resource: Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                kind: it.kind.into(),
                plural: it.name.into(),
                namespaced: it.namespaced,
            },
            verbs: it.verbs,
        })
        .collect()
}
