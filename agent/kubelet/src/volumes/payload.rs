//! Which files a ConfigMap, Secret, downward API or projected volume holds. Pure: objects come in as maps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod};

use super::atomic_writer::{File, Files};
use crate::environment::NodeFacts;
use crate::environment::fields::{pod_field, resource_field};
use crate::pods::state::{container, namespace};

const DEFAULT_MODE: u32 = 0o644;

/// Why a volume cannot be filled; shown in a FailedMount event.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PayloadError {
    /// A required object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A required key is not in the object.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A downward API item that cannot be resolved.
    #[error("downward API file \"{path}\": {message}")]
    Field {
        /// Path of the item.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A path that would leave the volume.
    #[error("path \"{0}\" must be relative and must not contain \"..\"")]
    Path(String),
}

/// A source of files.
pub struct Source<'a> {
    /// `configmap` or `secret`.
    pub kind: &'static str,
    /// Object name.
    pub name: &'a str,
    /// Keys to show and where; none: all.
    pub items: Option<&'a [KeyToPath]>,
    /// Whether the object and its keys may be missing.
    pub optional: bool,
}

/// Adds the files of an object; `data` is `None` when it does not exist.
pub fn object_files(
    files: &mut Files,
    source: &Source<'_>,
    data: Option<&BTreeMap<String, Vec<u8>>>,
    default_mode: Option<i32>,
) -> Result<(), PayloadError> {
    let Some(data) = data else {
        let missing = PayloadError::NotFound { kind: source.kind, name: source.name.to_owned() };
        return if source.optional { Ok(()) } else { Err(missing) };
    };
    let Some(items) = source.items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            insert(files, key, bytes.clone(), default_mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => insert(files, &item.path, bytes.clone(), item.mode.or(default_mode))?,
            None if source.optional => {}
            None => {
                let kind = if source.kind == "secret" { "secret" } else { "config" };
                return Err(PayloadError::NoKey { kind, key: item.key.clone() });
            }
        }
    }
    Ok(())
}

/// Adds downward API files.
pub fn downward_files(
    files: &mut Files,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    node: &NodeFacts,
    default_mode: Option<i32>,
) -> Result<(), PayloadError> {
    for item in items {
        let wrong = |message: String| PayloadError::Field { path: item.path.clone(), message };
        let text = if let Some(field) = &item.field_ref {
            pod_field(pod, &field.field_path, node).map_err(wrong)?
        } else if let Some(resource) = &item.resource_field_ref {
            let name = resource.container_name.as_deref().unwrap_or_default();
            let own: &Container =
                container(pod, name).ok_or_else(|| wrong(format!("container {name} not found")))?;
            resource_field(pod, own, resource, node).map_err(wrong)?
        } else {
            return Err(wrong("neither fieldRef nor resourceFieldRef".into()));
        };
        insert(files, &item.path, text.into_bytes(), item.mode.or(default_mode))?;
    }
    Ok(())
}

/// Adds one file.
pub fn insert(files: &mut Files, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), PayloadError> {
    if path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part == "..")
        || path.starts_with("..")
    {
        return Err(PayloadError::Path(path.to_owned()));
    }
    let mode = mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE);
    files.insert(path.to_owned(), File { bytes, mode });
    Ok(())
}

/// The namespace of a pod's objects, for messages.
pub fn qualified(pod: &Pod, name: &str) -> String {
    format!("{}/{name}", namespace(pod))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(items: &[(&str, &str)], optional: bool, exists: bool, expected: Result<&[&str], PayloadError>) {
        let data: BTreeMap<String, Vec<u8>> =
            [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
        let items: Vec<_> = items
            .iter()
            .map(|(key, path)| KeyToPath { key: (*key).into(), path: (*path).into(), mode: None })
            .collect();
        let source = Source { kind: "configmap", name: "cm", items: Some(&items), optional };
        let mut files = Files::new();
        let outcome = object_files(&mut files, &source, exists.then_some(&data), Some(0o400));
        match expected {
            Ok(names) => {
                outcome.unwrap();
                assert_eq!(files.keys().collect::<Vec<_>>(), names);
                assert!(files.values().all(|file| file.mode == 0o400));
            }
            Err(error) => assert_eq!(outcome, Err(error)),
        }
    }

    #[test]
    fn items_choose_keys_and_paths() {
        check(&[], false, true, Ok(&["a", "b"]));
        check(&[("a", "x/y")], false, true, Ok(&["x/y"]));
        check(&[("c", "x")], true, true, Ok(&[]));
        check(&[("c", "x")], false, true, Err(PayloadError::NoKey { kind: "config", key: "c".into() }));
        check(&[], true, false, Ok(&[]));
        check(&[], false, false, Err(PayloadError::NotFound { kind: "configmap", name: "cm".into() }));
        for path in ["../x", "/etc/x", "a/../../x", "..data"] {
            check(&[("a", path)], false, true, Err(PayloadError::Path(path.into())));
        }
    }
}
