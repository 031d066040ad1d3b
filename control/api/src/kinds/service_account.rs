//! core/v1 ServiceAccount.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cell, field};
use crate::strategy::{Column, Strategy};

/// core/v1 ServiceAccount.
#[derive(Debug, Clone, Copy)]
pub struct ServiceAccount;

/// Of a reference to a secret only the name counts: it lies in the account's namespace.
fn keep_names_of_secrets(object: &mut Value) {
    for reference in field::list_mut(object, "/secrets") {
        *reference = json!({"name": field::text(reference, "/name")});
    }
}

impl Strategy for ServiceAccount {
    fn prepare_create(&self, object: &mut Value) {
        keep_names_of_secrets(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        super::metadata::count_generation(new, old, false);
        keep_names_of_secrets(new);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::NAME,
            Column::text("Secrets", "Number of secrets that the account may use."),
            Column::AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cell::name(object), field::list(object, "/secrets").len().into(), cell::age(object, now)]
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_secrets_are_names() {
        let mut account = json!({"secrets": [{"name": "a", "namespace": "other", "kind": "Secret"}]});
        ServiceAccount.prepare_create(&mut account);
        assert_eq!(account, json!({"secrets": [{"name": "a"}]}));
    }
}
