//! Who a container's first process is: the container's security context, else the pod's, else the image's USER,
//! looked up in the image's own passwd and group files. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

pub use crate::pods::state::RunAs;
use crate::pods::state::{name, namespace, spec, uid};

/// Account files of an image; empty when it has none.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// /etc/passwd.
    pub passwd: String,
    /// /etc/group.
    pub group: String,
}

/// Why no user can be worked out; shown as CreateContainerConfigError.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// runAsNonRoot forbids uid 0.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    Root {
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// runAsNonRoot and a runAsUser of 0.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsRoot {
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// runAsNonRoot cannot be checked against a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NonNumeric {
        /// The image's user.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// Container name.
        container: String,
    },
    /// The image names a user that its passwd does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// The image names a group that its group file does not have.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
}

/// (runAsUser, runAsGroup, runAsNonRoot), the container's before the pod's.
fn requested(pod: &Pod, container: &Container) -> (Option<i64>, Option<i64>, bool) {
    let own = container.security_context.as_ref();
    let pods = spec(pod).security_context.as_ref();
    (
        own.and_then(|c| c.run_as_user).or_else(|| pods?.run_as_user),
        own.and_then(|c| c.run_as_group).or_else(|| pods?.run_as_group),
        own.and_then(|c| c.run_as_non_root).or_else(|| pods?.run_as_non_root).unwrap_or(false),
    )
}

/// The identity of the container's first process.
pub fn run_as(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    accounts: &Accounts,
) -> Result<RunAs, UserError> {
    let (user, group, non_root) = requested(pod, container);
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let who = || (format!("{}_{}({})", name(pod), namespace(pod), uid(pod)), container.name.clone());
    if non_root {
        let (pod, container) = who();
        match (user, image_name.parse::<i64>()) {
            (Some(0), _) => return Err(UserError::RunAsRoot { pod, container }),
            (Some(_), _) => {}
            (None, Ok(0)) => return Err(UserError::Root { pod, container }),
            (None, Ok(_)) => {}
            (None, Err(_)) if image_name.is_empty() => return Err(UserError::Root { pod, container }),
            (None, Err(_)) => {
                return Err(UserError::NonNumeric { user: image_name.into(), pod, container });
            }
        }
    }
    let entry = match user {
        Some(number) => passwd_by_uid(&accounts.passwd, number as u32).unwrap_or(Entry::bare(number as u32)),
        None if image_name.is_empty() => passwd_by_uid(&accounts.passwd, 0).unwrap_or(Entry::bare(0)),
        None => match image_name.parse::<u32>() {
            Ok(number) => passwd_by_uid(&accounts.passwd, number).unwrap_or(Entry::bare(number)),
            Err(_) => passwd_by_name(&accounts.passwd, image_name)
                .ok_or_else(|| UserError::UnknownUser(image_name.into()))?,
        },
    };
    let gid = match group {
        Some(gid) => gid as u32,
        None if user.is_none() && !image_group.is_empty() => match image_group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => group_by_name(&accounts.group, image_group)
                .ok_or_else(|| UserError::UnknownGroup(image_group.into()))?,
        },
        None => entry.gid,
    };
    Ok(RunAs { uid: entry.uid, gid, groups: supplementary(pod, gid, &entry.name, accounts) })
}

/// The primary group, the image's memberships (unless the policy is Strict), supplementalGroups and fsGroup.
fn supplementary(pod: &Pod, gid: u32, user: &str, accounts: &Accounts) -> Vec<u32> {
    let context = spec(pod).security_context.as_ref();
    let strict = context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    let mut groups = vec![gid];
    if !strict && !user.is_empty() {
        groups.extend(memberships(&accounts.group, user));
    }
    if let Some(context) = context {
        groups.extend(context.supplemental_groups.iter().flatten().map(|gid| *gid as u32));
        groups.extend(context.fs_group.map(|gid| gid as u32));
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
}

impl Entry {
    fn bare(uid: u32) -> Self {
        Self { name: String::new(), uid, gid: 0 }
    }
}

fn passwd(text: &str) -> impl Iterator<Item = Entry> + '_ {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Entry { name, uid, gid })
    })
}

fn passwd_by_uid(text: &str, uid: u32) -> Option<Entry> {
    passwd(text).find(|entry| entry.uid == uid)
}

fn passwd_by_name(text: &str, name: &str) -> Option<Entry> {
    passwd(text).find(|entry| entry.name == name)
}

/// (name, gid, members) of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_by_name(text: &str, wanted: &str) -> Option<u32> {
    groups(text).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
}

fn memberships<'a>(text: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(text)
        .filter(move |(.., members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(
        pod_context: &Value,
        context: &Value,
        image_user: &str,
        expected: Result<(u32, u32, &[u32]), &str>,
    ) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": context}]}}))
        .unwrap();
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/false\n".into(),
            group: "root:x:0:\nweb:x:102:\nlogs:x:50:web,other\nops:x:60:root\n".into(),
        };
        let found = run_as(&pod, &spec(&pod).containers[0], image_user, &accounts);
        let expected = expected
            .map(|(uid, gid, groups)| RunAs { uid, gid, groups: groups.to_vec() })
            .map_err(str::to_owned);
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected,
            "{pod_context} {context} {image_user:?}"
        );
    }

    #[test]
    fn container_before_pod_before_image() {
        let none = json!({});
        check(&none, &none, "", Ok((0, 0, &[0, 60])));
        check(&none, &none, "web", Ok((101, 102, &[50, 102])));
        check(&none, &none, "101:logs", Ok((101, 50, &[50])));
        check(&none, &none, "7", Ok((7, 0, &[0])));
        check(&json!({"runAsUser": 5}), &json!({"runAsUser": 6, "runAsGroup": 9}), "web", Ok((6, 9, &[9])));
        check(
            &json!({"runAsUser": 101, "fsGroup": 2000, "supplementalGroups": [3000]}),
            &none,
            "",
            Ok((101, 102, &[50, 102, 2000, 3000])),
        );
        check(
            &json!({"runAsUser": 101, "supplementalGroupsPolicy": "Strict"}),
            &none,
            "",
            Ok((101, 102, &[102])),
        );
        check(&none, &none, "nobody", Err("unable to find user nobody: no matching entries in passwd file"));
    }

    #[test]
    fn run_as_non_root_refuses_root_and_names() {
        let non_root = json!({"runAsNonRoot": true});
        check(&non_root, &json!({}), "101", Ok((101, 102, &[50, 102])));
        for (context, user, message) in [
            (
                json!({}),
                "",
                "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)",
            ),
            (
                json!({"runAsUser": 0}),
                "web",
                "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)",
            ),
            (
                json!({}),
                "web",
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \"p_n(u)\", container: c)",
            ),
        ] {
            check(&non_root, &context, user, Err(message));
        }
    }
}
