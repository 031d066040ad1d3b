//! What differs from one resource to the next: defaults, preparation, validation, selectable fields, table columns.
//!
//! The API server drives every resource through this one trait, in the order of a request: `default`, `prepare_*`,
//! admission (not here), `default` again, `validate_*`. Each method has a generic answer, so a kind overrides only what it
//! does differently. Strategies hold no state, read no clock and draw no random numbers.
//!
//! Not here: what is the same for every object (uid, creationTimestamp, resourceVersion, generateName, finalizers), which the
//! server's request handlers do; allocation of cluster IPs and node ports, which needs the store.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::{cell, metadata};
use crate::status::FieldError;

/// One column of a `meta.k8s.io/v1` Table: `TableColumnDefinition` as upstream prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading, as `kubectl get` upper-cases it.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `boolean`.
    pub r#type: &'static str,
    /// OpenAPI format; `name` marks the column that holds the object's name.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is always shown; 1 and above only by `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column of text that is always shown.
    #[must_use]
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 0 }
    }

    /// A column of whole numbers that is always shown.
    #[must_use]
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "integer", format: "", description, priority: 0 }
    }

    /// A column of text that only `-o wide` shows.
    #[must_use]
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self { name, r#type: "string", format: "", description, priority: 1 }
    }

    /// The column of the object's name; clients find it by its format.
    pub const NAME: Self = Self {
        name: "Name",
        r#type: "string",
        format: "name",
        description: "Name of the object.",
        priority: 0,
    };

    /// The column of the time since creation.
    pub const AGE: Self = Self::text("Age", "Time since the object was created.");

    /// The column that kinds without columns of their own show after the name.
    pub const CREATED_AT: Self = Self {
        name: "Created At",
        r#type: "date",
        format: "",
        description: "Time of the object's creation.",
        priority: 0,
    };
}

/// How the name of an object is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    DnsSubdomain,
    /// RFC 1123 label: namespaces, and services since upstream relaxed their names.
    DnsLabel,
    /// RFC 1035 label: services.
    Dns1035Label,
    /// Anything that fits one URL path segment: RBAC, whose names may hold `:`.
    PathSegment,
    /// An IP address in its canonical form: IPAddress.
    IpAddress,
}

/// The behaviour of one resource. Objects are JSON that `decode` has already checked against the schema: fields have the right types,
/// unknown fields are gone.
pub trait Strategy: Send + Sync {
    /// The kind lives in a namespace.
    fn namespaced(&self) -> bool {
        true
    }

    /// How `metadata.name` is checked.
    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    /// The kind has a `/status` subresource, whose writes and the main resource's do not touch each other's half.
    fn has_status(&self) -> bool {
        false
    }

    /// `metadata.generation` starts at 1 and grows by one with each change of `spec`.
    fn counts_generation(&self) -> bool {
        false
    }

    /// Fills in what the client left out. Must be idempotent: it runs at decoding, after admission and after patches.
    fn default(&self, _object: &mut Value) {}

    /// Brings a new object into the state in which it may be stored: no status but the kind's own first one, generation 1.
    fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            metadata::clear_status(object);
        }
        if self.counts_generation() {
            metadata::set_generation(object, 1);
        }
    }

    /// Takes back what a write of the main resource may not change (`status`), and counts the generation.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            metadata::keep(new, old, "status");
        }
        if self.counts_generation() {
            metadata::count_generation(new, old, metadata::spec_changed(new, old));
        }
    }

    /// Takes back what a write of `/status` may not change: everything but the status, and of the metadata what upstream lets pass.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        metadata::keep_all_but_status(new, old);
    }

    /// What is wrong with the kind's own fields of an object, new or updated. Metadata is checked by `validate_create` and
    /// `validate_update`.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with the step from `old` to `new`: immutable fields.
    fn validate_transition(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Everything that forbids creating `object`; empty when it may be created.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate(object, self.namespaced(), self.name_rule());
        errors.extend(self.validate(object));
        errors
    }

    /// Everything that forbids replacing `old` by `new`.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(new, old);
        errors.extend(self.validate_transition(new, old));
        // An object that was valid once must stay editable when its fields did not change: rules may have grown stricter since.
        if metadata::body_changed(new, old) {
            errors.extend(self.validate(new));
        }
        errors
    }

    /// Everything that forbids replacing the status of `old` by that of `new`.
    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        metadata::validate_update(new, old)
    }

    /// Field-selector names and values beyond `metadata.name` and `metadata.namespace`, which all kinds have.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Columns of the kind's Table.
    fn columns(&self) -> &'static [Column] {
        &[Column::NAME, Column::CREATED_AT]
    }

    /// One row of the kind's Table: a value for each of `columns`, wide ones included.
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![cell::name(object), cell::created_at(object)]
    }

    /// Seconds that an object may still live after DELETE, `None` for kinds that go at once (the common case).
    ///
    /// `requested` is `deleteOptions.gracePeriodSeconds`. The caller sets `deletionTimestamp` to now plus the answer and
    /// `deletionGracePeriodSeconds` to it, removes the object when the answer is 0, and never lengthens a deadline already set.
    fn graceful_deletion(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// PUT on a name that does not exist creates the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without `metadata.resourceVersion` overwrites whatever is there.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Warnings for the client about an object that is accepted all the same. `old` is absent at creation.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
}

/// The kind of a resource that is served but whose kinds are all alike: generic answers everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Generic;

impl Strategy for Generic {}
