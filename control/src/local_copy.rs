//! A local, always current copy of one kind: what an informer brings goes into a table, and what changed there is told.
//! Reads go to the copy; nothing is ever asked of the server for a look-up.

use std::fmt::Debug;
use std::sync::Arc;

use controllers::{Change, Table};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher;
use runtime::{Arrival, Informer};
use serde::de::DeserializeOwned;

/// Keeps `table` as `api` is. `on_change` is called for each change after the table has it, in order; it must not block.
pub fn keep<K>(
    table: Arc<Table<K>>,
    api: Api<K>,
    config: watcher::Config,
    on_change: impl Fn(&Change<K>) + Send + 'static,
) -> Informer
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>
        + kube::Resource
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    Informer::start(api, config, move |arrival| match arrival {
        Arrival::Listed(objects) => table.replace(objects).iter().for_each(&on_change),
        Arrival::Applied(object) => on_change(&table.apply(object)),
        Arrival::Deleted(object) => on_change(&table.remove(&object)),
    })
}
