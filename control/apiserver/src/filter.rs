//! Which objects of a collection a LIST, WATCH or DELETE means: namespace and selectors, decided on the index alone.

use api::ApiError;
use api::registry::Resource;
use api::selector::{FieldSelector, LabelSelector};
use store::Interest;

use crate::object::{Meta, Object, stored_as};
use crate::query::Query;

/// A namespace and two selectors.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Prefix of the keys.
    pub prefix: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

/// Fields of events.k8s.io/v1 and what they are called in the core/v1 events that are stored.
const RENAMED: &[(&str, &str)] =
    &[("regarding.", "involvedObject."), ("reportingController", "reportingComponent")];

impl Filter {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 in upstream's words for selectors that cannot be parsed or name fields that the kind does not have.
    pub fn parse(query: &Query, resource: &'static Resource, namespace: &str) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(query.text("labelSelector"))?;
        let text = query.text("fieldSelector");
        let mut fields = FieldSelector::parse(text)?;
        fields.check(resource)?;
        if stored_as(resource) != resource {
            // The index is of the stored form.
            let renamed =
                RENAMED.iter().fold(text.to_owned(), |text, (shown, stored)| text.replace(shown, stored));
            fields = FieldSelector::parse(&renamed)?;
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(plural: &str, namespace: &str, query: &str, expected: Interest) {
        let resource = api::registry::lookup("", "v1", plural).unwrap();
        let filter = Filter::parse(&Query::parse(query), resource, namespace).unwrap();
        assert_eq!(filter.interest(resource, namespace), expected, "{plural} {namespace} {query}");
    }

    #[test]
    fn a_watcher_is_woken_by_as_little_as_covers_it() {
        let field = |name: &str, value: &str| Interest::Field(name.to_owned(), value.to_owned());
        check("pods", "", "", Interest::All);
        check("pods", "a", "", Interest::Directory("/registry/pods/a/".to_owned()));
        check("pods", "", "fieldSelector=spec.nodeName%3Dn1", field("spec.nodeName", "n1"));
        check("pods", "a", "fieldSelector=metadata.name%3Dx", Interest::Key("/registry/pods/a/x".to_owned()));
        check("pods", "", "fieldSelector=metadata.name%3Dx", Interest::All);
        check(
            "nodes",
            "",
            "fieldSelector=metadata.name%3Dn1",
            Interest::Key("/registry/minions/n1".to_owned()),
        );
        check("pods", "", "fieldSelector=status.phase%21%3DRunning", Interest::All);
        check("pods", "", "labelSelector=a%3Db", Interest::All);
    }

    #[test]
    fn selectors_are_decided_on_the_index() {
        let pods = api::registry::lookup("", "v1", "pods").unwrap();
        let body =
            br#"{"metadata":{"name":"x","namespace":"a","labels":{"app":"web"}},"spec":{"nodeName":"n1"}}"#;
        let pod = Object::new("/registry/pods/a/x", body, 1, 1);
        for (query, matches) in [
            ("", true),
            ("labelSelector=app%3Dweb", true),
            ("labelSelector=app%3Dweb,%21tier", true),
            ("labelSelector=app+in+(db)", false),
            ("fieldSelector=spec.nodeName%3Dn1,metadata.namespace%3Da", true),
            ("fieldSelector=spec.nodeName%21%3Dn1", false),
            ("fieldSelector=metadata.name%3Dy", false),
        ] {
            let filter = Filter::parse(&Query::parse(query), pods, "").unwrap();
            assert_eq!(filter.matches_entry(&pod), matches, "{query}");
        }
        let elsewhere = Filter::parse(&Query::default(), pods, "b").unwrap();
        assert!(!elsewhere.matches_entry(&pod));
    }

    #[test]
    fn selectors_of_another_version_find_the_stored_objects() {
        let events = api::registry::lookup("events.k8s.io", "v1", "events").unwrap();
        let body = br#"{"metadata":{"name":"e","namespace":"a"},"involvedObject":{"kind":"Pod","name":"p"},"reportingComponent":"k"}"#;
        let event = Object::new("/registry/events/a/e", body, 1, 1);
        for (query, matches) in
            [("regarding.name%3Dp", true), ("regarding.name%3Dq", false), ("reportingController%3Dk", true)]
        {
            let filter = Filter::parse(&Query::parse(&format!("fieldSelector={query}")), events, "").unwrap();
            assert_eq!(filter.matches_entry(&event), matches, "{query}");
        }
    }
}
