//! Typed access to stored objects by resource, for the parts of the server that look at or keep objects of their own:
//! admission, allocators, bootstrap, the RBAC index. Below authorization and admission, so for trusted callers alone.
//!
//! Client requests go through [`crate::rest`], which adds those.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::registry::Resource;
use api::status::{Details, Reason};
use jiff::Timestamp;
use serde_json::Value;
use store::{Interest, Store};

use crate::object::{self, Meta, Object, ToValue as _, encode, metadata_mut, metadata_text, stored_as};

/// How often a write is tried against newer versions of its object before it gives up.
const TRIES: usize = 5;

/// The stored objects. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Store<Meta>,
}

impl Registry {
    /// A registry over `store`.
    #[must_use]
    pub fn new(store: Store<Meta>) -> Self {
        Self { store }
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store<Meta> {
        &self.store
    }

    /// One object, as new as any write acknowledged before the call. `namespace` is ignored for cluster-scoped resources.
    ///
    /// # Errors
    /// 404 in upstream's words; errors of etcd.
    pub async fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, ApiError> {
        self.store.sync().await.map_err(|it| from_store(it, resource, name))?;
        self.cached(resource, namespace, name).ok_or_else(|| ApiError::not_found(resource, name))
    }

    /// One object as the copy in memory has it; never waits.
    #[must_use]
    pub fn cached(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.store.cached(&resource.key(namespace, name))
    }

    /// The objects of a namespace, of all for `""`, as the copy in memory has them; never waits. Empty before the first load.
    #[must_use]
    pub fn list_cached(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Object>> {
        let prefix = resource.key_prefix(Some(namespace));
        let listing = self.store.current(&resource.key_prefix(None));
        listing.map(|it| it.entries.range(&prefix, "").cloned().collect()).unwrap_or_default()
    }

    /// The objects of a namespace, of all for `""`, as new as any write acknowledged before the call.
    ///
    /// # Errors
    /// Errors of etcd.
    pub async fn list(
        &self,
        resource: &'static Resource,
        namespace: &str,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        self.store.sync().await.map_err(|it| from_store(it, resource, ""))?;
        Ok(self.list_cached(resource, namespace))
    }

    /// Stores a new object, with defaults, uid and creation time filled in. Neither admission nor validation is run.
    ///
    /// # Errors
    /// 409 `already exists`; errors of etcd.
    pub async fn create(&self, resource: &'static Resource, mut object: Value) -> Result<Value, ApiError> {
        stamp(&mut object, Timestamp::now());
        resource.strategy.default(&mut object);
        resource.strategy.prepare_create(&mut object);
        Ok(self.insert(resource, &object, None).await?.value())
    }

    /// Replaces an object; optimistically if it carries a resourceVersion, else over whatever is there. Neither admission nor
    /// validation is run.
    ///
    /// # Errors
    /// 404; 409 if the object has another resourceVersion; errors of etcd.
    pub async fn update(&self, resource: &'static Resource, mut object: Value) -> Result<Value, ApiError> {
        let (namespace, name) =
            (metadata_text(&object, "namespace").to_owned(), metadata_text(&object, "name").to_owned());
        resource.strategy.default(&mut object);
        for attempt in 0..TRIES {
            let old = self.version(resource, &namespace, &name, attempt > 0).await?;
            let wanted = metadata_text(&object, "resourceVersion");
            if !wanted.is_empty() && wanted != old.revision.to_string() {
                if attempt == 0 {
                    continue;
                }
                return Err(ApiError::modified(resource, &name));
            }
            let bytes = encode(&object, stored_as(resource));
            if old.holds(&bytes) {
                return Ok(old.value());
            }
            match self.store.update(&old, &bytes, None).await {
                Ok(entry) => return Ok(entry.value()),
                Err(store::Error::Conflict) => {}
                Err(error) => return Err(from_store(error, resource, &name)),
            }
        }
        Err(ApiError::modified(resource, &name))
    }

    /// Removes an object at once, finalizers or not.
    ///
    /// # Errors
    /// 404; errors of etcd.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        for attempt in 0..TRIES {
            let old = self.version(resource, namespace, name, attempt > 0).await?;
            match self.store.delete(&old).await {
                Ok(_) => return Ok(()),
                Err(store::Error::Conflict) => {}
                Err(error) => return Err(from_store(error, resource, name)),
            }
        }
        Err(ApiError::modified(resource, name))
    }

    /// Tells whenever something of `resource` changes.
    #[must_use]
    pub fn changes(&self, resource: &'static Resource) -> Changes {
        Changes { registry: self.clone(), prefix: resource.key_prefix(None), watch: None }
    }

    /// Stores a prepared object under its name.
    pub(crate) async fn insert(
        &self,
        resource: &'static Resource,
        object: &Value,
        ttl: Option<Duration>,
    ) -> Result<Object, ApiError> {
        let name = metadata_text(object, "name");
        let key = resource.key(metadata_text(object, "namespace"), name);
        let bytes = encode(object, stored_as(resource));
        self.store.create(&key, &bytes, ttl).await.map_err(|it| from_store(it, resource, name))
    }

    /// The version to base a write on: the copy's, or etcd's own when the copy proved stale or has none.
    pub(crate) async fn version(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Arc<Object>, ApiError> {
        if !fresh && let Some(there) = self.cached(resource, namespace, name) {
            return Ok(there);
        }
        let key = resource.key(namespace, name);
        self.store.read_through(&key).await.map(Arc::new).map_err(|it| from_store(it, resource, name))
    }
}

/// The changes of one resource, merged: who wakes looks at the current state.
pub struct Changes {
    registry: Registry,
    prefix: String,
    watch: Option<store::Watch<Meta>>,
}

impl Changes {
    /// Returns when something changed since the last call, and at once the first time.
    pub async fn next(&mut self) {
        if let Some(watch) = &mut self.watch {
            if watch.next().await.is_ok() {
                return;
            }
        } else {
            self.registry.store.ready().await;
        }
        let revision = self.registry.store.revision();
        // Fails only if the log was cut between the two lines; the next call tries again.
        self.watch = self.registry.store.watch(&self.prefix, Interest::All, revision).ok();
    }
}

/// Gives an object what every new one has: a uid, the time of its creation, the group's form of empty metadata.
pub(crate) fn stamp(object: &mut Value, now: Timestamp) {
    let Some(metadata) = metadata_mut(object) else { return };
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"]
    {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), api::time::seconds(now).into());
}

/// What a failure of the store means to a client.
pub(crate) fn from_store(error: store::Error, resource: &'static Resource, name: &str) -> ApiError {
    let retry = |seconds| Details { retry_after_seconds: seconds, ..Details::default() };
    match error {
        store::Error::Exists => ApiError::already_exists(resource, name),
        store::Error::Conflict => ApiError::modified(resource, name),
        store::Error::NotFound => ApiError::not_found(resource, name),
        store::Error::Expired { wanted, oldest } => {
            ApiError::expired(format!("too old resource version: {wanted} ({oldest})"))
        }
        store::Error::Future { wanted, current } => {
            ApiError::too_large_resource_version(wanted.unsigned_abs(), current.unsigned_abs())
        }
        // Nothing was done: the client may try again at once.
        store::Error::Unavailable(why) => {
            ApiError::new(Reason::ServiceUnavailable, format!("etcd is unavailable: {why}"))
                .with_details(retry(1))
        }
        // etcd's own limit, 1.5 MiB unless it is set otherwise, lies below that of request bodies.
        store::Error::Refused(why) if why.contains("request is too large") => {
            ApiError::new(Reason::RequestEntityTooLarge, "etcdserver: request is too large")
        }
        store::Error::Timeout(_) => ApiError::new(Reason::Timeout, "etcdserver: request timed out"),
        error @ (store::Error::UnknownCollection(_) | store::Error::Refused(_)) => ApiError::internal(error),
    }
}

/// Opens a store for every registered resource.
///
/// # Errors
/// See [`Store::open`].
pub async fn open(mut config: store::Config) -> Result<Store<Meta>, store::Error> {
    config.prefixes = object::prefixes();
    Store::open(config).await
}
