//! Acting as somebody else: the `Impersonate-*` headers, each of which needs the right to `impersonate`.

use std::collections::BTreeMap;

use api::status::ApiError;
use http::HeaderMap;

use super::denial::forbidden;
use super::policy::Decision;
use super::tokens::{account_groups, parse_account_user};
use crate::attributes::{Attributes, UserInfo};
use crate::request_info::percent_decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user that a request acts as: `user` himself, or whom its headers name if `authorize` permits it.
pub fn apply(
    headers: &HeaderMap,
    user: UserInfo,
    authorize: impl Fn(&Attributes) -> Decision,
) -> Result<UserInfo, ApiError> {
    let Some(wanted) = requested(headers)? else { return Ok(user) };
    for asked in permissions(&wanted, &user) {
        if let Decision::Deny { reason } = authorize(&asked) {
            return Err(forbidden(&asked, &reason));
        }
    }
    Ok(completed(wanted))
}

/// The user that the headers name.
fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let name = headers.get(USER).map(text).unwrap_or_default();
    let groups: Vec<String> = headers.get_all(GROUP).iter().map(text).collect();
    let uid = headers.get(UID).map(text).unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        // Header names cannot hold every character of a key: clients escape the others.
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(percent_decode(key)).or_default().push(text(value));
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::internal(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    Ok(Some(UserInfo { name, uid, groups, extra }))
}

/// What `user` must be permitted in order to act as `wanted`.
fn permissions(wanted: &UserInfo, user: &UserInfo) -> Vec<Attributes> {
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        user: user.clone(),
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        resource_request: true,
        ..Attributes::default()
    };
    let mut asked = vec![match parse_account_user(&wanted.name) {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name),
        None => ask("", "users", "", "", &wanted.name),
    }];
    asked.extend(wanted.groups.iter().map(|group| ask("", "groups", "", "", group)));
    for (key, values) in &wanted.extra {
        asked.extend(values.iter().map(|value| ask(AUTHENTICATION, "userextras", key, "", value)));
    }
    if !wanted.uid.is_empty() {
        asked.push(ask(AUTHENTICATION, "uids", "", "", &wanted.uid));
    }
    asked
}

/// Adds the groups that follow from the name.
fn completed(mut user: UserInfo) -> UserInfo {
    if user.name == "system:anonymous" {
        push_once(&mut user.groups, "system:unauthenticated");
        return user;
    }
    if let (true, Some((namespace, _))) = (user.groups.is_empty(), parse_account_user(&user.name)) {
        user.groups = account_groups(namespace);
    }
    push_once(&mut user.groups, "system:authenticated");
    user
}

fn push_once(groups: &mut Vec<String>, group: &str) {
    if !groups.iter().any(|held| held == group) {
        groups.push(group.to_owned());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    /// Acts with `list` where only the targets in `permitted` (`resource[/sub]=[ns/]name`) may be impersonated.
    fn act(list: &[(&'static str, &'static str)], permitted: &[&str]) -> Result<UserInfo, String> {
        apply(&headers(list), UserInfo::named("boss", &[]), |asked| {
            assert_eq!((asked.verb.as_str(), asked.user.name.as_str()), ("impersonate", "boss"));
            let slash = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { format!("{a}/{b}") };
            let resource = match asked.subresource.as_str() {
                "" => asked.resource.clone(),
                sub => format!("{}/{sub}", asked.resource),
            };
            let target = format!("{resource}={}", slash(&asked.namespace, &asked.name));
            if permitted.contains(&target.as_str()) {
                Decision::Allow
            } else {
                Decision::Deny { reason: String::new() }
            }
        })
        .map_err(|error| error.message)
    }

    #[test]
    fn without_headers_one_stays_oneself() {
        assert_eq!(act(&[], &[]).unwrap(), UserInfo::named("boss", &[]));
    }

    #[test]
    fn every_part_of_the_identity_needs_its_own_permission() {
        let all = [
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-scopes%2fx", "view"),
        ];
        let permitted = ["users=jane", "groups=dev", "uids=7", "userextras/scopes/x=view"];
        let jane = act(&all, &permitted).unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "system:authenticated"]);
        assert_eq!(jane.extra["scopes/x"], ["view"]);
        for missing in 0..permitted.len() {
            let mut fewer = permitted.to_vec();
            fewer.remove(missing);
            assert!(act(&all, &fewer).is_err(), "without {}", permitted[missing]);
        }
        assert_eq!(
            act(&all, &[]).unwrap_err(),
            r#"users "jane" is forbidden: User "boss" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
    }

    #[test]
    fn a_service_account_comes_with_its_groups() {
        let account =
            act(&[("impersonate-user", "system:serviceaccount:shop:web")], &["serviceaccounts=shop/web"]);
        assert_eq!(
            account.unwrap().groups,
            ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
        );
    }

    #[test]
    fn anonymous_is_not_authenticated() {
        let anonymous =
            act(&[("impersonate-user", "system:anonymous")], &["users=system:anonymous"]).unwrap();
        assert_eq!(anonymous, UserInfo::anonymous());
    }

    #[test]
    fn groups_without_a_user_are_an_error() {
        assert!(act(&[("impersonate-group", "dev")], &["groups=dev"]).is_err());
    }
}
