//! Kinds that are created and answered but never stored: reviews, Binding, bodies of subresources.
//!
//! Their contents are checked by whoever answers them; here only the metadata rule differs: they need no name.

use serde_json::Value;

use crate::status::FieldError;
use crate::strategy::Strategy;

/// A kind without defaults and rules of its own.
#[derive(Debug, Clone, Copy)]
pub struct PassThrough {
    /// The request names a namespace.
    pub namespaced: bool,
}

impl Strategy for PassThrough {
    fn namespaced(&self) -> bool {
        self.namespaced
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        self.validate(object)
    }
}
