//! What kubectl looks for in the documents.
#![allow(clippy::unwrap_used)]

use super::*;

fn document(path: &str) -> Value {
    serde_json::from_slice(&v3_document(path).unwrap().bytes).unwrap()
}

#[test]
fn the_index_links_every_group_version_by_hash() {
    let index: Value = serde_json::from_slice(&v3_index().bytes).unwrap();
    for (group, version) in registry::group_versions() {
        let path = root(group, version);
        let url = index["paths"][&path]["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", v3_document(&path).unwrap().hash));
    }
    assert!(v3_document("apis/nope/v1").is_none());
}

/// client-go's query parameter verifier wants exactly this.
#[test]
fn each_patchable_kind_has_a_patch_operation_with_field_validation() {
    for row in crate::RESOURCES.iter().filter(|row| row.serves("patch")) {
        let document = document(&root(row.group, row.version));
        let kind = json!({ "group": row.group, "kind": row.kind, "version": row.version });
        let found = document["paths"].as_object().unwrap().values().any(|item| {
            let patch = &item["patch"];
            patch["x-kubernetes-group-version-kind"] == kind
                && patch["x-kubernetes-action"] == "patch"
                && patch["parameters"]
                    .as_array()
                    .is_some_and(|ps| ps.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"))
        });
        assert!(found, "{row:?}");
    }
}

#[test]
fn every_reference_resolves_inside_its_document() {
    for (group, version) in registry::group_versions() {
        let text = String::from_utf8(v3_document(&root(group, version)).unwrap().bytes.clone()).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{group}/{version}: {name}");
        }
    }
}

/// kubectl explain finds the kind by the path of the resource, then its schema by the kind.
#[test]
fn explain_finds_kinds_and_fields() {
    let apps = document("apis/apps/v1");
    let list = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
    assert_eq!(
        list["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "kind": "Deployment", "version": "v1"})
    );
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    assert_eq!(
        deployment["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(deployment["properties"]["spec"]["description"].as_str().unwrap().contains("desired behavior"));
    assert!(deployment.get("required").is_none());
    let core = document("api/v1");
    assert_eq!(
        core["paths"]["/api/v1/namespaces/{name}"]["get"]["x-kubernetes-group-version-kind"]["kind"],
        "Namespace"
    );
    assert_eq!(
        core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]["x-kubernetes-group-version-kind"]
            ["group"],
        "policy"
    );
    assert_eq!(core["paths"]["/api/v1/pods"]["get"]["operationId"], "listCoreV1PodForAllNamespaces");
}

#[test]
fn apply_finds_how_lists_merge() {
    let core = document("api/v1");
    let schemas = &core["components"]["schemas"];
    let ports = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(
        (&ports["x-kubernetes-patch-merge-key"], &ports["x-kubernetes-patch-strategy"]),
        (&json!("port"), &json!("merge"))
    );
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
}

#[test]
fn the_v2_document_has_definitions_and_body_parameters() {
    let text = String::from_utf8(v2_document().bytes.clone()).unwrap();
    assert!(!text.contains("#/components/"));
    let v2: Value = serde_json::from_str(&text).unwrap();
    let create = &v2["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert!(
        create["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["in"] == "body" && p["schema"]["$ref"] == "#/definitions/io.k8s.api.core.v1.Pod")
    );
    assert_eq!(
        v2["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodSpec"
    );
}
