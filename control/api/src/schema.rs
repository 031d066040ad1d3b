//! What objects look like: compact tables of all types that the registry's rows reach.
//!
//! Built once, on first use, from k8s-openapi's schemas (names, types, required fields) and a table of our own for how lists and maps
//! merge ([`merge`]) and for how Go writes zeros (`go`). Decoding, strategic merge and protobuf read these tables; descriptions are left out here and only made again
//! for the OpenAPI documents.

mod build;
mod go;
pub mod merge;
mod roots;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use merge::{ListType, Merge};
pub(crate) use roots::definitions;

/// What a JSON value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    String,
    /// Bytes as base64.
    Bytes,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// true or false.
    Boolean,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// A resource quantity, as a string or a number.
    Quantity,
    /// A whole number of 32 bits or a string.
    IntOrString,
    /// An object with known fields.
    Struct(TypeId),
    /// A list.
    List(Box<Shape>),
    /// An object with free keys.
    Map(Box<Shape>),
    /// Anything.
    Any,
}

/// Index of a type in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u32);

impl TypeId {
    /// The type itself.
    #[must_use]
    pub fn get(self) -> &'static Type {
        &TABLES.types[self.0 as usize]
    }
}

/// A named type: the fields of its objects.
#[derive(Debug)]
pub struct Type {
    /// `io.k8s.api.apps.v1.DeploymentSpec`
    pub name: String,
    fields: Vec<Field>,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    /// What its value must be.
    pub shape: Shape,
    /// The schema says that it must be there.
    pub required: bool,
    /// How two values of it merge.
    pub merge: Merge,
    /// A zero or empty value is the same as none and is left out.
    pub omit_zero: bool,
    /// The named Go type of the scalar, or of the list's or map's elements: `v1.RestartPolicy`.
    pub go_name: Option<&'static str>,
}

impl Type {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// All fields, sorted by name.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The last part of the name: `DeploymentSpec`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

struct Tables {
    types: Vec<Type>,
    by_name: HashMap<String, TypeId>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| build::tables(definitions()));

/// The type of that name, `io.k8s.api.core.v1.Pod`, if a row of the registry reaches it.
#[must_use]
pub fn of(type_name: &str) -> Option<&'static Type> {
    TABLES.by_name.get(type_name).map(|id| id.get())
}

/// All types, sorted by name.
#[must_use]
pub fn types() -> &'static [Type] {
    &TABLES.types
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shape(type_name: &str, field: &str) -> &'static Shape {
        &of(type_name).unwrap().field(field).unwrap().shape
    }

    #[test]
    fn every_row_of_the_registry_has_its_type() {
        for row in crate::RESOURCES {
            assert!(of(row.type_name).is_some(), "{}", row.type_name);
            for sub in row.subresources.iter().filter(|s| !s.type_name.is_empty()) {
                assert!(of(sub.type_name).is_some(), "{}", sub.type_name);
            }
        }
    }

    #[test]
    fn shapes_follow_the_schemas() {
        let text = Shape::String;
        assert_eq!(*shape("io.k8s.api.apps.v1.DeploymentSpec", "replicas"), Shape::Int32);
        assert_eq!(*shape("io.k8s.api.core.v1.Secret", "data"), Shape::Map(Box::new(Shape::Bytes)));
        assert_eq!(*shape("io.k8s.api.core.v1.Container", "command"), Shape::List(Box::new(text)));
        assert_eq!(
            *shape("io.k8s.api.core.v1.ResourceRequirements", "limits"),
            Shape::Map(Box::new(Shape::Quantity))
        );
        assert_eq!(*shape("io.k8s.api.core.v1.ServicePort", "targetPort"), Shape::IntOrString);
        assert_eq!(
            *shape("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp"),
            Shape::Time
        );
        assert_eq!(*shape("io.k8s.api.coordination.v1.LeaseSpec", "renewTime"), Shape::MicroTime);
        assert_eq!(*shape("io.k8s.api.apps.v1.ControllerRevision", "data"), Shape::Any);
        assert_eq!(*shape("io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry", "fieldsV1"), Shape::Any);
        let Shape::Struct(spec) = shape("io.k8s.api.core.v1.Pod", "spec") else { panic!("a struct") };
        assert_eq!(spec.get().short_name(), "PodSpec");
        assert!(spec.get().field("containers").unwrap().required);
    }

    #[test]
    fn ports_of_services_and_containers_merge_by_their_own_keys() {
        let merge = |name: &str, field: &str| &of(name).unwrap().field(field).unwrap().merge;
        let ports = merge("io.k8s.api.core.v1.ServiceSpec", "ports");
        assert_eq!((ports.patch_key, ports.list_type), (Some("port"), ListType::Map));
        assert_eq!(ports.list_keys, ["port", "protocol"]);
        assert_eq!(merge("io.k8s.api.core.v1.Container", "ports").patch_key, Some("containerPort"));
        let volumes = merge("io.k8s.api.core.v1.PodSpec", "volumes");
        assert!(volumes.patch_merge && volumes.retain_keys);
        assert!(!merge("io.k8s.api.core.v1.PodSpec", "tolerations").patch_merge);
    }
}
