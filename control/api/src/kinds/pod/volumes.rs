//! Rules for the volumes of a pod (kubernetes `ValidateVolumes`). Sources that the node agent does not mount are only counted.

use std::collections::HashMap;

use serde_json::Value;

use super::containers::{FILE_FIELDS, field_ref};
use crate::kinds::at::At;
use crate::kinds::names;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Checks all volumes of a pod's spec and returns them by name.
pub fn validate<'a>(spec: &At<'a>, errors: &mut Vec<FieldError>) -> HashMap<&'a str, &'a Value> {
    let mut by_name = HashMap::new();
    for volume in spec.items("volumes") {
        source(&volume, errors);
        let name = volume.text("name");
        if volume.demand("name", errors) {
            volume.check_text("name", names::dns_label, errors);
            if by_name.contains_key(name) {
                errors.push(FieldError::duplicate(volume.path_of("name"), name));
            }
            by_name.insert(name, volume.value);
        }
    }
    by_name
}

fn source(volume: &At<'_>, errors: &mut Vec<FieldError>) {
    let mut given = 0;
    let keys = volume
        .value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, source)| *key != "name" && !source.is_null());
    for (key, _) in keys {
        given += 1;
        if given > 1 {
            errors.push(volume.forbidden(key, "may not specify more than 1 volume type"));
            continue;
        }
        let source = volume.child(key);
        match key.as_str() {
            "emptyDir" => empty_dir(&source, errors),
            "hostPath" => host_path(&source, errors),
            "configMap" => key_files(&source, "name", errors),
            "secret" => key_files(&source, "secretName", errors),
            "downwardAPI" => {
                mode(&source, "defaultMode", errors);
                downward_files(&source, errors);
            }
            "projected" => projected(&source, errors),
            "persistentVolumeClaim" => {
                source.demand("claimName", errors);
            }
            _ => {}
        }
    }
    if given == 0 {
        errors.push(FieldError::required(volume.path.clone(), "must specify a volume type"));
    }
}

fn empty_dir(source: &At<'_>, errors: &mut Vec<FieldError>) {
    if Quantity::parse(source.text("sizeLimit")).is_ok_and(Quantity::is_negative) {
        errors.push(source.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity"));
    }
}

fn host_path(source: &At<'_>, errors: &mut Vec<FieldError>) {
    if source.demand("path", errors) {
        no_backsteps(source, "path", errors);
    }
    let types =
        ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
    source.check_choice("type", &types, errors);
}

fn no_backsteps(at: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    if at.text(key).split('/').any(|part| part == "..") {
        errors.push(at.invalid(key, "must not contain '..'"));
    }
}

/// Checks that the path of the field `key`, when set, stays below where it starts.
pub fn local_path(at: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    if at.text(key).starts_with('/') {
        errors.push(at.invalid(key, "must be a relative path"));
    }
    no_backsteps(at, key, errors);
}

fn mode(at: &At<'_>, key: &str, errors: &mut Vec<FieldError>) {
    if at.integer(key).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        errors.push(at.invalid(key, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

/// A ConfigMap's or Secret's keys as files.
fn key_files(source: &At<'_>, name: &str, errors: &mut Vec<FieldError>) {
    source.demand(name, errors);
    mode(source, "defaultMode", errors);
    for item in source.items("items") {
        item.demand("key", errors);
        if item.demand("path", errors) {
            local_path(&item, "path", errors);
        }
        mode(&item, "mode", errors);
    }
}

fn downward_files(source: &At<'_>, errors: &mut Vec<FieldError>) {
    for item in source.items("items") {
        if item.demand("path", errors) {
            local_path(&item, "path", errors);
        }
        match (item.present("fieldRef"), item.present("resourceFieldRef")) {
            (Some(_), Some(_)) => {
                errors.push(FieldError::invalid(
                    item.path.clone(),
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
            (Some(reference), None) => field_ref(&reference, FILE_FIELDS, errors),
            (None, Some(reference)) => {
                reference.demand("containerName", errors);
                reference.demand("resource", errors);
            }
            (None, None) => {
                errors.push(item.required("fieldRef", "one of fieldRef and resourceFieldRef is required"));
            }
        }
        mode(&item, "mode", errors);
    }
}

fn projected(source: &At<'_>, errors: &mut Vec<FieldError>) {
    const TEN_MINUTES: i64 = 600;
    mode(source, "defaultMode", errors);
    for projection in source.items("sources") {
        let given = [
            "configMap",
            "secret",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ]
        .into_iter()
        .filter_map(|key| projection.present(key).map(|part| (key, part)));
        for (index, (key, part)) in given.enumerate() {
            if index > 0 {
                errors.push(projection.forbidden(key, "may not specify more than 1 volume type per source"));
                continue;
            }
            match key {
                "configMap" | "secret" => key_files(&part, "name", errors),
                "downwardAPI" => downward_files(&part, errors),
                "serviceAccountToken" => {
                    if part.integer("expirationSeconds").is_some_and(|seconds| seconds < TEN_MINUTES) {
                        errors.push(
                            part.invalid(
                                "expirationSeconds",
                                "may not specify a duration less than 10 minutes",
                            ),
                        );
                    }
                    if part.integer("expirationSeconds").is_some_and(|seconds| seconds > 1 << 32) {
                        errors.push(part.invalid(
                            "expirationSeconds",
                            "may not specify a duration larger than 2^32 seconds",
                        ));
                    }
                    if part.demand("path", errors) {
                        local_path(&part, "path", errors);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(volumes: Value, expected: &[&str]) {
        let spec = json!({ "volumes": volumes });
        let mut errors = Vec::new();
        validate(&At::new(&spec, "spec"), &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_volume_has_a_name_and_one_source() {
        check(
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/x", "type": ""}}]),
            &[],
        );
        check(
            json!([{"name": "a", "emptyDir": {}, "configMap": {"name": "c"}}, {"name": "a", "secret": {}}, {"name": "A"}]),
            &[
                "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].secret.secretName: Required value",
                "spec.volumes[1].name: Duplicate value: \"a\"",
                "spec.volumes[2]: Required value: must specify a volume type",
                "spec.volumes[2].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
    }

    #[test]
    fn files_stay_inside_their_volume() {
        check(
            json!([
                {"name": "a", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "../x"}, {"key": "k", "path": "/x"}]}},
                {"name": "b", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}, {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}]}}]}},
            ]),
            &[
                "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
                "spec.volumes[0].configMap.items[1].path: Invalid value: \"/x\": must be a relative path",
                "spec.volumes[1].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "spec.volumes[1].projected.sources[1].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            ],
        );
    }
}
