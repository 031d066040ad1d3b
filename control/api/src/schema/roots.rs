//! The Rust types from which all definitions are reached.

use k8s_openapi::api::{
    apps, authentication, authorization, autoscaling, coordination, core, discovery, events, networking,
    policy, rbac,
};
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

macro_rules! add {
    ($generator:ident: $($root:ty),+ $(,)?) => { $( $generator.subschema_for::<$root>(); )+ };
}

/// JSON schemas of everything that the registry reaches, by definition name, with descriptions; references are
/// `#/components/schemas/NAME`. About half a megabyte: not to be kept.
pub(crate) fn definitions() -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    add!(generator:
        core::v1::Binding, core::v1::ConfigMap, core::v1::Endpoints, core::v1::Event, core::v1::Namespace, core::v1::Node,
        core::v1::Pod, core::v1::Secret, core::v1::Service, core::v1::ServiceAccount,
        apps::v1::ControllerRevision, apps::v1::DaemonSet, apps::v1::Deployment, apps::v1::ReplicaSet,
        authentication::v1::SelfSubjectReview, authentication::v1::TokenRequest, authentication::v1::TokenReview,
        authorization::v1::LocalSubjectAccessReview, authorization::v1::SelfSubjectAccessReview,
        authorization::v1::SelfSubjectRulesReview, authorization::v1::SubjectAccessReview,
        autoscaling::v1::Scale,
        coordination::v1::Lease,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        networking::v1::IPAddress, networking::v1::ServiceCIDR,
        policy::v1::Eviction,
        rbac::v1::ClusterRole, rbac::v1::ClusterRoleBinding, rbac::v1::Role, rbac::v1::RoleBinding,
        meta::v1::DeleteOptions, meta::v1::ListMeta, meta::v1::Status, meta::v1::WatchEvent<k8s_openapi::apimachinery::pkg::runtime::RawExtension>,
        meta::v1::APIResourceList, meta::v1::APIGroup, meta::v1::APIGroupList, meta::v1::APIVersions,
    );
    let mut definitions = generator.take_definitions(true);
    for schema in definitions.values_mut() {
        relax_metadata(schema);
    }
    definitions
}

/// k8s-openapi's structs make `metadata` mandatory in objects; the API does not.
fn relax_metadata(schema: &mut Value) {
    let is_object =
        schema.pointer("/properties/apiVersion").is_some() && schema.pointer("/properties/kind").is_some();
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut).filter(|_| is_object) {
        required.retain(|name| name != "metadata");
    }
    if let Some(object) = schema.as_object_mut()
        && object.get("required").is_some_and(|required| required.as_array().is_some_and(Vec::is_empty))
    {
        object.remove("required");
    }
}
