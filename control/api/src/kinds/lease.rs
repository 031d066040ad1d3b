//! coordination.k8s.io/v1 Lease.

use jiff::Timestamp;
use serde_json::Value;

use super::{cell, field};
use crate::status::FieldError;
use crate::strategy::{Column, Strategy};

/// coordination.k8s.io/v1 Lease.
#[derive(Debug, Clone, Copy)]
pub struct Lease;

impl Strategy for Lease {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let refuse = |key: &str, refused: fn(i64) -> bool, message: &str| {
            let number = field::integer(object, &format!("/spec/{key}")).filter(|&number| refused(number))?;
            Some(FieldError::invalid(format!("spec.{key}"), number, message))
        };
        errors.extend(refuse("leaseDurationSeconds", |number| number <= 0, "must be greater than 0"));
        errors.extend(refuse("leaseTransitions", |number| number < 0, "must be greater than or equal to 0"));
        let empty = |key: &str| object.pointer(&format!("/spec/{key}")).is_some_and(|value| value == "");
        if empty("preferredHolder") {
            errors.push(FieldError::required("spec.preferredHolder", ""));
        }
        if field::at(object, "/spec/preferredHolder").is_some()
            && field::text(object, "/spec/strategy").is_empty()
        {
            errors.push(FieldError::forbidden(
                "spec.preferredHolder",
                "may only be specified when `strategy` is defined",
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[Column::NAME, Column::text("Holder", "Who holds the lease."), Column::AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cell::name(object), field::text(object, "/spec/holderIdentity").into(), cell::age(object, now)]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_a_lease_are_positive() {
        let errors = Lease.validate(&json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}));
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
        assert!(
            Lease.validate(&json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 40}})).is_empty()
        );
    }
}
