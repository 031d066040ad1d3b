//! Objects as clients see them: whole, as metadata alone, or as rows of a Table.
//!
//! The whole object is the stored bytes, untouched; the other forms parse it.

use api::registry::Resource;
use api::strategy::Column;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::negotiate::Form;
use crate::object::{Object, shown_as, stored_as};

/// `includeObject`: what a Table's rows carry beside their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// PartialObjectMetadata.
    Metadata,
    /// The object.
    Object,
}

/// How objects of one resource are shown to one client.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The resource asked for.
    pub resource: &'static Resource,
    /// The form asked for.
    pub form: Form,
    /// What a Table's rows carry.
    pub include: Include,
}

/// What a list says of itself.
#[derive(Debug, Clone, Default)]
pub struct ListMeta {
    /// Revision that the list shows.
    pub revision: i64,
    /// Token of the next page, or empty.
    pub continue_token: String,
    /// Objects on later pages, if it is known.
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn to_json(&self) -> Value {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        if !self.continue_token.is_empty() {
            metadata.insert("continue".to_owned(), self.continue_token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        metadata.into()
    }
}

impl View {
    /// One object at its own revision.
    #[must_use]
    pub fn object(&self, body: &Bytes) -> Bytes {
        if self.is_verbatim() { body.clone() } else { self.convert(&parse(body), true).to_string().into() }
    }

    /// One object that is at hand as a tree.
    #[must_use]
    pub fn value(&self, object: &Value) -> Bytes {
        if self.form == Form::Whole {
            object.to_string().into()
        } else {
            self.shape(object, true).to_string().into()
        }
    }

    /// One object of a watch, shown at `revision`; only the first Table of a stream carries the columns.
    #[must_use]
    pub fn event(&self, object: &Object, revision: i64, first: bool) -> Bytes {
        let body = object.body_at(revision);
        if self.is_verbatim() { body } else { self.convert(&parse(&body), first).to_string().into() }
    }

    /// The object of a BOOKMARK: nothing but its kind and revision.
    #[must_use]
    pub fn bookmark(&self, revision: i64, end_of_initial_events: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if end_of_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.form {
            Form::Whole => {
                json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
            }
            Form::Table => {
                let object =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata});
                let rows = json!([{"cells": [], "object": object}]);
                json!({"kind": "Table", "apiVersion": META, "metadata": {"resourceVersion": revision.to_string()},
                       "columnDefinitions": null, "rows": rows})
            }
        }
    }

    /// A list, as pieces to be sent one after the other: the objects' own bytes are not copied.
    #[must_use]
    pub fn list<'a>(&self, meta: &ListMeta, objects: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
        match self.form {
            Form::Whole => {
                let head = json!({"kind": self.resource.list_kind, "apiVersion": self.resource.api_version(),
                                  "metadata": meta.to_json()});
                self.pieces(&head, objects.map(|it| self.object(it)))
            }
            Form::Metadata => {
                let head = json!({"kind": "PartialObjectMetadataList", "apiVersion": META, "metadata": meta.to_json()});
                self.pieces(&head, objects.map(|it| self.object(it)))
            }
            Form::Table => {
                let rows = objects.map(|it| self.row(&shown_as(self.resource, parse(it))));
                let table = json!({"kind": "Table", "apiVersion": META, "metadata": meta.to_json(),
                                   "columnDefinitions": self.columns(), "rows": rows.collect::<Vec<_>>()});
                vec![table.to_string().into()]
            }
        }
    }

    fn pieces(&self, head: &Value, items: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let mut head = head.to_string();
        head.pop();
        head.push_str(",\"items\":[");
        let mut pieces = vec![Bytes::from(head)];
        for (at, item) in items.enumerate() {
            if at > 0 {
                pieces.push(Bytes::from_static(b","));
            }
            pieces.push(item);
        }
        pieces.push(Bytes::from_static(b"]}"));
        pieces
    }

    fn is_verbatim(&self) -> bool {
        self.form == Form::Whole && stored_as(self.resource) == self.resource
    }

    fn convert(&self, stored: &Value, first: bool) -> Value {
        self.shape(&shown_as(self.resource, stored.clone()), first)
    }

    fn shape(&self, object: &Value, first: bool) -> Value {
        match self.form {
            Form::Whole => object.clone(),
            Form::Metadata => partial(object),
            Form::Table => {
                let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                let columns = if first { self.columns() } else { Value::Null };
                json!({"kind": "Table", "apiVersion": META, "metadata": {"resourceVersion": version},
                       "columnDefinitions": columns, "rows": [self.row(object)]})
            }
        }
    }

    fn row(&self, object: &Value) -> Value {
        let cells = self.resource.strategy.cells(object, Timestamp::now());
        match self.include {
            Include::None => json!({"cells": cells}),
            Include::Metadata => json!({"cells": cells, "object": partial(object)}),
            Include::Object => json!({"cells": cells, "object": object}),
        }
    }

    fn columns(&self) -> Value {
        self.resource.strategy.columns().iter().map(column).collect()
    }
}

const META: &str = "meta.k8s.io/v1";

fn column(column: &Column) -> Value {
    json!({"name": column.name, "type": column.r#type, "format": column.format,
           "description": column.description, "priority": column.priority})
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object.get("metadata").cloned().unwrap_or_default()})
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn view(plural: &str, form: Form, include: Include) -> View {
        View { resource: api::registry::lookup("", "v1", plural).unwrap(), form, include }
    }

    fn list(view: View, bodies: &[&'static str]) -> Value {
        let meta = ListMeta { revision: 7, continue_token: "t".to_owned(), remaining: Some(3) };
        let bodies: Vec<Bytes> = bodies.iter().map(|it| Bytes::from_static(it.as_bytes())).collect();
        serde_json::from_slice(&view.list(&meta, bodies.iter()).concat()).unwrap()
    }

    const MAP: &str = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"5","name":"a"},"data":{"k":"v"}}"#;

    #[test]
    fn a_list_is_its_head_and_its_objects_own_bytes() {
        let whole = list(view("configmaps", Form::Whole, Include::Metadata), &[MAP, MAP]);
        let meta = json!({"resourceVersion": "7", "continue": "t", "remainingItemCount": 3});
        assert_eq!((&whole["kind"], &whole["metadata"]), (&json!("ConfigMapList"), &meta));
        assert_eq!(whole["items"][1]["data"]["k"], "v");
        let empty = list(view("configmaps", Form::Whole, Include::Metadata), &[]);
        assert_eq!(empty["items"], json!([]));
        let partial = list(view("configmaps", Form::Metadata, Include::Metadata), &[MAP]);
        assert_eq!(
            (&partial["kind"], &partial["items"][0]["data"]),
            (&json!("PartialObjectMetadataList"), &Value::Null)
        );
    }

    #[test]
    fn a_table_has_a_cell_for_each_column_and_carries_what_is_asked_for() {
        for (include, kind) in [
            (Include::None, Value::Null),
            (Include::Metadata, json!("PartialObjectMetadata")),
            (Include::Object, json!("ConfigMap")),
        ] {
            let table = list(view("configmaps", Form::Table, include), &[MAP]);
            let (columns, row) = (table["columnDefinitions"].as_array().unwrap(), &table["rows"][0]);
            assert_eq!(row["cells"].as_array().unwrap().len(), columns.len());
            assert_eq!((&row["cells"][0], &row["object"]["kind"]), (&json!("a"), &kind));
        }
    }

    #[test]
    fn only_the_first_table_of_a_watch_carries_the_columns() {
        let object =
            Object::new("/registry/configmaps/b/a", br#"{"kind":"ConfigMap","metadata":{"name":"a"}}"#, 5, 5);
        let view = view("configmaps", Form::Table, Include::Metadata);
        let event = |first| -> Value { serde_json::from_slice(&view.event(&object, 9, first)).unwrap() };
        assert!(event(true)["columnDefinitions"].is_array() && event(false)["columnDefinitions"].is_null());
        assert_eq!(
            event(true)["metadata"]["resourceVersion"],
            "9",
            "a deleted object is shown at the revision of its deletion"
        );
    }

    #[test]
    fn a_second_version_of_the_same_objects_is_converted() {
        let resource = api::registry::lookup("events.k8s.io", "v1", "events").unwrap();
        let view = View { resource, form: Form::Whole, include: Include::None };
        let stored = br#"{"kind":"Event","apiVersion":"v1","metadata":{"name":"a"},"involvedObject":{"kind":"Pod"},"message":"m"}"#;
        let shown: Value = serde_json::from_slice(&view.object(&Bytes::from_static(stored))).unwrap();
        assert_eq!(
            (&shown["apiVersion"], &shown["note"], &shown["regarding"]["kind"]),
            (&json!("events.k8s.io/v1"), &json!("m"), &json!("Pod"))
        );
    }
}
