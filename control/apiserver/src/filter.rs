//! Which objects of a collection a LIST, WATCH or DELETE means: namespace and selectors, decided on the index alone.

use api::ApiError;
use api::registry::Resource;
use api::selector::{FieldSelector, LabelSelector};
use store::Interest;

use crate::object::{Meta, Object};
use crate::query::Query;

/// A namespace and two selectors.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Prefix of the keys.
    pub prefix: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 in upstream's words for selectors that cannot be parsed or name fields that the kind does not have.
    pub fn parse(query: &Query, resource: &'static Resource, namespace: &str) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(query.text("labelSelector"))?;
        let fields = FieldSelector::parse(query.text("fieldSelector"))?;
        fields.check(resource)?;
        Ok(Self { prefix: resource.key_prefix(Some(namespace)), labels, fields })
    }

    /// The object is meant; its key is known to start with the prefix.
    #[must_use]
    pub fn matches(&self, meta: &Meta) -> bool {
        self.labels.matches(|key| meta.label(key)) && self.fields.matches(|field| meta.field(field))
    }

    /// The object of an event is meant: key and index.
    #[must_use]
    pub fn matches_entry(&self, object: &Object) -> bool {
        object.key.starts_with(&self.prefix) && self.matches(&object.meta)
    }

    /// Selects by nothing but namespace.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The narrowest wake-up that covers everything meant.
    #[must_use]
    pub fn interest(&self, resource: &Resource, namespace: &str) -> Interest {
        if let Some(name) = self.fields.exact("metadata.name")
            && (!resource.namespaced || !namespace.is_empty())
        {
            return Interest::Key(resource.key(namespace, name));
        }
        let by_field = self.fields.terms().iter().find_map(|term| {
            let value = self.fields.exact(&term.field)?;
            (!term.field.starts_with("metadata."))
                .then(|| Interest::Field(term.field.clone(), value.to_owned()))
        });
        match by_field {
            Some(interest) => interest,
            None if resource.namespaced && !namespace.is_empty() => Interest::Directory(self.prefix.clone()),
            None => Interest::All,
        }
    }
}
