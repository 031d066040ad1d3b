//! Requests for the plugins' tests.

use api::registry::lookup;

use super::*;
use crate::attributes::UserInfo;

/// Attributes of `verb group/plural[/sub] namespace name` by `user`.
pub(super) fn attributes(user: UserInfo, text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').collect();
    let mut resource = words[1].splitn(3, '/');
    Attributes {
        user,
        verb: words[0].to_owned(),
        group: resource.next().unwrap_or_default().replace("core", ""),
        version: "v1".to_owned(),
        resource: resource.next().unwrap_or_default().to_owned(),
        subresource: resource.next().unwrap_or_default().to_owned(),
        namespace: words.get(2).unwrap_or(&"").replace('-', ""),
        name: words.get(3).unwrap_or(&"").to_string(),
        path: String::new(),
        resource_request: true,
    }
}

/// A request with these attributes; the operation follows from the verb.
pub(super) fn request(attributes: &Attributes, object: Option<Value>) -> AdmissionRequest<'_> {
    let operation = match attributes.verb.as_str() {
        "create" => Operation::Create,
        "delete" => Operation::Delete,
        _ => Operation::Update,
    };
    let Some(resource) = lookup(&attributes.group, "v1", &attributes.resource) else {
        panic!("no resource {}", attributes.resource)
    };
    let (old, dry_run, options, warnings) = (None, false, &Value::Null, Vec::new());
    AdmissionRequest { attributes, resource, operation, object, old, dry_run, options, warnings }
}
