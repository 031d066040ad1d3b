//! networking.k8s.io/v1 IPAddress: that a cluster IP is taken, and by whom. Its name is the address.

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field, metadata};
use crate::status::FieldError;
use crate::strategy::{Column, NameRule, Strategy};

/// networking.k8s.io/v1 IPAddress.
#[derive(Debug, Clone, Copy)]
pub struct IpAddress;

impl Strategy for IpAddress {
    fn namespaced(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::IpAddress
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        const PATH: &str = "spec.parentRef";
        if field::at(object, "/spec/parentRef").is_none() {
            return vec![FieldError::required(PATH, "")];
        }
        ["resource", "name"]
            .into_iter()
            .filter(|key| field::text(object, &format!("/spec/parentRef/{key}")).is_empty())
            .map(|key| FieldError::required(format!("{PATH}.{key}"), ""))
            .collect()
    }

    fn validate_transition(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        metadata::immutable(new, old, "/spec/parentRef", "spec.parentRef").into_iter().collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[Column::NAME, Column::text("ParentRef", "Object that has the address."), Column::AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let part = |key: &str| field::text(object, &format!("/spec/parentRef/{key}"));
        let resource = match (part("resource"), part("group")) {
            ("", _) => cell::NONE.to_owned(),
            (resource, "") => resource.to_lowercase(),
            (resource, group) => format!("{resource}.{group}").to_lowercase(),
        };
        let parent: Vec<&str> = [resource.as_str(), part("namespace"), part("name")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        vec![cell::name(object), parent.join("/").into(), cell::age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_is_the_address_and_the_parent_stays() {
        let object = json!({"metadata": {"name": "10.96.0.1"}, "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}});
        assert!(IpAddress.validate_create(&object).is_empty());
        assert_eq!(
            IpAddress.cells(&object, "2026-01-01T00:00:00Z".parse().unwrap())[1],
            "services/default/kubernetes"
        );
        let bad = IpAddress.validate_create(
            &json!({"metadata": {"name": "FD00::1"}, "spec": {"parentRef": {"resource": "services"}}}),
        );
        assert_eq!(
            bad.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                r#"metadata.name: Invalid value: "FD00::1": must be a canonical format IP address"#,
                "spec.parentRef.name: Required value"
            ]
        );
    }
}
