//! The one way to change a stored object: read, make the new version, check it, write it if nothing came between.
//!
//! The first attempt is made on the copy in memory. Whatever it concludes, an error or that nothing changes, is only believed
//! after a look at etcd itself, because the copy may be a moment behind.

use std::sync::Arc;

use api::ApiError;
use api::status::FieldError;
use jiff::Timestamp;
use serde_json::Value;

use super::create::{is_service, lifetime, shown};
use super::{Call, deletion, finalize};
use crate::admission::Operation;
use crate::allocate::Allocation;
use crate::object::{Object, as_stored, encode, metadata_mut, metadata_text, stored_as};
use crate::registry_access::from_store;

/// Attempts of a write that may be repeated (upstream's `maxPatchConflicts` and one).
const TRIES: usize = 6;

/// Which half of the object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Object,
    /// The status.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalizers,
    /// What the server itself decided: binding. Neither preparation nor validation of the step.
    Decided,
}

/// What became of the object.
pub(crate) enum Outcome {
    /// A new version, or the old one if nothing changed.
    Stored(Arc<Object>),
    /// The write emptied the finalizers of an object marked for deletion: it is gone. Its last state.
    Removed(Value),
    /// What would have been stored.
    DryRun(Value),
}

/// How the new version is made from the old one.
pub(crate) trait Change {
    /// The new version, decoded and complete. Called again after a conflict.
    fn make(&self, old: &Value) -> Result<Value, ApiError>;

    /// The client saw no particular version: try again on a newer one after a conflict.
    fn repeatable(&self) -> bool;
}

/// Changes the object that the call names.
pub(crate) async fn modify(
    call: &Call,
    name: &str,
    part: Part,
    change: &(dyn Change + Sync),
    warnings: &mut Vec<String>,
) -> Result<Outcome, ApiError> {
    let registry = &call.core.registry;
    // What a failed attempt allocated is given back a moment later: do not make one on a version that may be stale.
    let mut fresh = is_service(call.resource);
    for attempt in 1..=TRIES {
        let old = registry.version(call.resource, call.namespace(), name, fresh).await?;
        let mut found = Vec::new();
        let step = Step { call, part, old: &old, name };
        let result = step.attempt(change, &mut found).await;
        let believed = std::mem::replace(&mut fresh, true);
        match result {
            Ok(Attempt::Done(outcome)) => {
                warnings.append(&mut found);
                return Ok(outcome);
            }
            Ok(Attempt::Unchanged) if believed => {
                warnings.append(&mut found);
                return Ok(Outcome::Stored(old));
            }
            Err(error) if believed => return Err(error),
            Ok(Attempt::Conflict) if attempt > 1 && !change.repeatable() => break,
            Ok(Attempt::Unchanged | Attempt::Conflict) | Err(_) => {}
        }
    }
    Err(ApiError::modified(call.resource, name))
}

enum Attempt {
    Done(Outcome),
    Unchanged,
    Conflict,
}

struct Step<'a> {
    call: &'a Call,
    part: Part,
    old: &'a Arc<Object>,
    name: &'a str,
}

impl Step<'_> {
    async fn attempt(
        &self,
        change: &(dyn Change + Sync),
        warnings: &mut Vec<String>,
    ) -> Result<Attempt, ApiError> {
        let call = self.call;
        let old = shown(call, self.old);
        let mut new = change.make(&old)?;
        self.identify(&mut new, &old)?;
        self.prepare(&mut new, &old);
        let (new, allocation) = self.admit(new, &old, warnings).await?;

        if deletion::is_finished(call.resource, &new) {
            return self.remove(new).await;
        }
        // As trees: another order of the fields is no change.
        if new == old {
            return Ok(Attempt::Unchanged);
        }
        let bytes = encode(&as_stored(call.resource, &new), stored_as(call.resource));
        if call.write.dry_run {
            return Ok(Attempt::Done(Outcome::DryRun(new)));
        }
        match call.core.registry.store().update(self.old, &bytes, lifetime(call)).await {
            Ok(stored) => {
                if let Some(allocation) = allocation {
                    allocation.commit();
                }
                Ok(Attempt::Done(Outcome::Stored(Arc::new(stored))))
            }
            Err(store::Error::Conflict) => Ok(Attempt::Conflict),
            Err(error) => Err(from_store(error, call.resource, self.name)),
        }
    }

    /// Checks that the new version is of the same object and based on this version of it, and carries over what no client sets.
    fn identify(&self, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        let resource = self.call.resource;
        let (uid, old_uid) = (metadata_text(new, "uid").to_owned(), metadata_text(old, "uid"));
        if !uid.is_empty() && uid != old_uid {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
            return Err(ApiError::conflict(resource, self.name, why));
        }
        let version = metadata_text(new, "resourceVersion");
        if version.is_empty() && !resource.strategy.allow_unconditional_update() {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(ApiError::invalid(resource, self.name, vec![error]));
        }
        if !version.is_empty() && version != self.old.revision.to_string() {
            return Err(ApiError::modified(resource, self.name));
        }
        let kept = [
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
        ];
        for field in kept {
            let value = old.get("metadata").and_then(|it| it.get(field)).cloned();
            let Some(metadata) = metadata_mut(new) else { continue };
            match value {
                Some(value) => {
                    metadata.insert(field.to_owned(), value);
                }
                None => {
                    metadata.shift_remove(field);
                }
            }
        }
        Ok(())
    }

    fn prepare(&self, new: &mut Value, old: &Value) {
        let strategy = self.call.resource.strategy;
        match self.part {
            Part::Object => {
                strategy.default(new);
                strategy.prepare_update(new, old);
            }
            Part::Status => {
                strategy.prepare_status_update(new, old);
                strategy.default(new);
            }
            Part::Finalizers => finalize::prepare(new, old),
            Part::Decided => {}
        }
    }

    /// Admission, validation, allocation.
    async fn admit(
        &self,
        new: Value,
        old: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(Value, Option<Allocation>), ApiError> {
        let call = self.call;
        if self.part == Part::Decided {
            return Ok((new, None));
        }
        let strategy = call.resource.strategy;
        let mut admission = call.admission(Operation::Update, Some(new), Some(self.old.clone()));
        call.core.admission.admit(&mut admission).await?;
        let mut allocation = None;
        if let Some(object) = &mut admission.object {
            strategy.default(object);
            if self.part == Part::Object && is_service(call.resource) {
                allocation = Some(call.core.allocator.before_update(object, old, call.write.dry_run).await?);
            }
            let errors = match self.part {
                Part::Status => strategy.validate_status_update(object, old),
                Part::Object => strategy.validate_update(object, old),
                Part::Finalizers | Part::Decided => Vec::new(),
            };
            if !errors.is_empty() {
                return Err(ApiError::invalid(call.resource, self.name, errors));
            }
        }
        call.core.admission.validate(&admission)?;
        let new = admission.object.take().unwrap_or_default();
        warnings.append(&mut admission.warnings);
        if self.part == Part::Object {
            warnings.extend(strategy.warnings(&new, Some(old)));
        }
        Ok((new, allocation))
    }

    async fn remove(&self, new: Value) -> Result<Attempt, ApiError> {
        let call = self.call;
        if call.write.dry_run {
            return Ok(Attempt::Done(Outcome::DryRun(new)));
        }
        match call.core.registry.store().delete(self.old).await {
            Ok(_) => {
                if is_service(call.resource) {
                    call.core.allocator.after_delete(&new).await;
                }
                Ok(Attempt::Done(Outcome::Removed(new)))
            }
            Err(store::Error::Conflict) => Ok(Attempt::Conflict),
            Err(error) => Err(from_store(error, call.resource, self.name)),
        }
    }
}

/// `now` where a change of the server's own needs it.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
