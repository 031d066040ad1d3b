//! NamespaceLifecycle: nothing is made in a namespace that is missing or going, and some namespaces stay.

use api::status::{ApiError, Cause};
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::bootstrap::rows;
use crate::object::ToValue as _;
use crate::registry_access::Registry;

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) async fn admit(registry: &Registry, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
    let attributes = request.attributes;
    if request.is("namespaces")
        && request.operation == Operation::Delete
        && IMMORTAL.contains(&attributes.name.as_str())
    {
        return Err(request.forbidden("this namespace may not be deleted"));
    }
    let namespace = attributes.namespace.as_str();
    let applies =
        request.resource.namespaced && !namespace.is_empty() && request.operation != Operation::Delete;
    // One may ask about permissions in a namespace that does not exist yet.
    if !applies || attributes.resource == "localsubjectaccessreviews" {
        return Ok(());
    }
    let cached = registry.cached(rows::namespaces(), "", namespace);
    let object = match cached {
        Some(object) if request.operation != Operation::Create || !object.meta.deleting => object,
        // Just created, or just created again: the store knows.
        _ => registry.get(rows::namespaces(), "", namespace).await?,
    };
    if request.operation == Operation::Create {
        check_not_terminating(request, namespace, &object.value())?;
    }
    Ok(())
}

fn check_not_terminating(
    request: &AdmissionRequest<'_>,
    name: &str,
    namespace: &Value,
) -> Result<(), ApiError> {
    let deleted = !namespace["metadata"]["deletionTimestamp"].is_null();
    if !deleted && namespace["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut error = request.forbidden(why);
    if let Some(details) = &mut error.details {
        details.causes.push(Cause {
            kind: "NamespaceTerminating".to_owned(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::testing;
    use super::*;
    use crate::attributes::UserInfo;

    #[test]
    fn a_terminating_namespace_takes_nothing_new() {
        let attributes = testing::attributes(UserInfo::named("jane", &[]), "create core/configmaps shop");
        let request = testing::request(&attributes, Some(json!({"metadata": {"name": "x"}})));
        let active = json!({"metadata": {"name": "shop"}, "status": {"phase": "Active"}});
        assert_eq!(check_not_terminating(&request, "shop", &active), Ok(()));
        for going in [
            json!({"metadata": {"deletionTimestamp": "2026-11-22T10:00:00Z"}, "status": {"phase": "Active"}}),
            json!({"metadata": {}, "status": {"phase": "Terminating"}}),
        ] {
            let error = check_not_terminating(&request, "shop", &going).unwrap_err();
            assert_eq!(
                error.message,
                r#"configmaps "x" is forbidden: unable to create new content in namespace shop because it is being terminated"#
            );
            assert_eq!(error.details.unwrap().causes[0].kind, "NamespaceTerminating");
        }
    }
}
