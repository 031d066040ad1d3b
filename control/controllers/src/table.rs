//! One kind's objects as last seen, with the look-ups that controllers ask for. Pure data behind a lock: it does not know
//! how objects arrive (`runtime::Informer` brings them) nor what they mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Names an object within its kind. `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `metadata.namespace`, or empty.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// The key of the object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to one object: created (`old` is none), deleted (`new` is none), or changed.
#[derive(Clone, Debug)]
pub struct Change<K> {
    /// The object before, as it stood in the table.
    pub old: Option<Arc<K>>,
    /// The object now.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest state known: the object now, or the last one before its deletion.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both states that exist, old first.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// The owner of objects that have none, for [`Table::owned_by`].
pub const NOBODY: &str = "";

/// The value by which [`Table::indexed`] finds objects, e.g. a pod's node.
pub type Index<K> = fn(&K) -> Option<&str>;

/// Objects of one kind, by key, owner uid, and one index of the kind's own.
pub struct Table<K> {
    rows: RwLock<Rows<K>>,
    index: Index<K>,
}

struct Rows<K> {
    by_key: BTreeMap<Key, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    by_index: HashMap<String, BTreeSet<Key>>,
    seen: u64,
}

impl<K> Default for Rows<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_owner: HashMap::new(), by_index: HashMap::new(), seen: 0 }
    }
}

/// A resourceVersion as a number, 0 when absent. API servers promise since v1.35 that it can be compared so.
pub fn resource_version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<K: Metadata<Ty = ObjectMeta>> Default for Table<K> {
    fn default() -> Self {
        Self::with_index(|_| None)
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Table<K> {
    /// An empty table whose [`indexed`](Self::indexed) look-up uses `index`.
    pub fn with_index(index: Index<K>) -> Self {
        Self { rows: RwLock::default(), index }
    }

    /// The object of this name, if there is one. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.at(&Key::new(namespace, name))
    }

    /// The object under `key`.
    pub fn at(&self, key: &Key) -> Option<Arc<K>> {
        self.read().by_key.get(key).cloned()
    }

    /// Every object, in order of key.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().by_key.values().cloned().collect()
    }

    /// The objects of one namespace, in order of name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let rows = self.read();
        rows.by_key
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, it)| it.clone())
            .collect()
    }

    /// The objects that name `uid` among their owners; those without any owner for [`NOBODY`].
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let rows = self.read();
        rows.by_owner.get(uid).into_iter().flatten().filter_map(|key| rows.by_key.get(key).cloned()).collect()
    }

    /// The objects whose index value is `value`.
    pub fn indexed(&self, value: &str) -> Vec<Arc<K>> {
        let rows = self.read();
        rows.by_index
            .get(value)
            .into_iter()
            .flatten()
            .filter_map(|key| rows.by_key.get(key).cloned())
            .collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest resourceVersion that arrived so far: the table is at least as new as that write.
    pub fn seen(&self) -> u64 {
        self.read().seen
    }

    /// Takes in an object that was added or changed.
    pub fn apply(&self, object: K) -> Change<K> {
        self.write().put(Arc::new(object), self.index)
    }

    /// Takes in a deletion; `last` is the object as the deletion event carried it.
    pub fn remove(&self, last: &K) -> Change<K> {
        let mut rows = self.write();
        rows.seen = rows.seen.max(resource_version(last.metadata()));
        let old = rows.take(&Key::of(last.metadata()), self.index);
        Change { old, new: None }
    }

    /// Takes in a complete list: what it does not hold is gone.
    pub fn replace(&self, objects: Vec<K>) -> Vec<Change<K>> {
        let mut rows = self.write();
        let kept: BTreeSet<Key> = objects.iter().map(|it| Key::of(it.metadata())).collect();
        let gone: Vec<Key> = rows.by_key.keys().filter(|key| !kept.contains(key)).cloned().collect();
        let mut changes: Vec<Change<K>> =
            gone.iter().map(|key| Change { old: rows.take(key, self.index), new: None }).collect();
        changes.extend(objects.into_iter().map(|it| rows.put(Arc::new(it), self.index)));
        changes
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows<K>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Rows<K>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Rows<K> {
    fn put(&mut self, object: Arc<K>, index: Index<K>) -> Change<K> {
        let key = Key::of(object.metadata());
        let old = self.take(&key, index);
        self.seen = self.seen.max(resource_version(object.metadata()));
        for uid in owners(object.metadata()) {
            self.by_owner.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        if let Some(value) = index(&object) {
            self.by_index.entry(value.to_owned()).or_default().insert(key.clone());
        }
        self.by_key.insert(key, object.clone());
        Change { old, new: Some(object) }
    }

    fn take(&mut self, key: &Key, index: Index<K>) -> Option<Arc<K>> {
        let object = self.by_key.remove(key)?;
        for uid in owners(object.metadata()) {
            forget(&mut self.by_owner, uid, key);
        }
        if let Some(value) = index(&object) {
            forget(&mut self.by_index, value, key);
        }
        Some(object)
    }
}

/// The uids under which an object is found by owner; [`NOBODY`] for one without owners.
fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    let listed = meta.owner_references.as_deref().unwrap_or_default();
    let nobody = listed.is_empty().then_some(NOBODY);
    listed.iter().map(|it| it.uid.as_str()).chain(nobody)
}

fn forget(index: &mut HashMap<String, BTreeSet<Key>>, value: &str, key: &Key) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn pod(name: &str, owner: &str, node: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.resource_version = Some(version.to_string());
        pod.metadata.owner_references =
            Some(vec![OwnerReference { uid: owner.into(), ..OwnerReference::default() }]);
        pod.spec =
            Some(k8s_openapi::api::core::v1::PodSpec { node_name: Some(node.into()), ..Default::default() });
        pod
    }

    fn by_node(pod: &Pod) -> Option<&str> {
        pod.spec.as_ref()?.node_name.as_deref()
    }

    fn names(pods: &[Arc<Pod>]) -> String {
        pods.iter().map(|it| it.metadata.name.clone().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn indexes_follow_an_object_that_moves() {
        let table = Table::with_index(by_node);
        table.apply(pod("a", "o1", "n1", 3));
        table.apply(pod("b", "o1", "n2", 4));
        assert_eq!(names(&table.owned_by("o1")), "a b");
        let change = table.apply(pod("a", "o2", "n2", 5));
        assert!(change.old.is_some());
        assert_eq!(
            (names(&table.owned_by("o1")).as_str(), names(&table.indexed("n2")).as_str()),
            ("b", "a b")
        );
        table.remove(&pod("b", "o1", "n2", 9));
        assert_eq!((names(&table.all()).as_str(), table.seen()), ("a", 9));
        assert!(table.owned_by("o1").is_empty());
    }

    #[test]
    fn a_relist_reports_what_went_away() {
        let table = Table::with_index(by_node);
        table.apply(pod("a", "o", "n", 1));
        table.apply(pod("b", "o", "n", 2));
        let changes = table.replace(vec![pod("b", "o", "n", 2), pod("c", "o", "n", 7)]);
        let told: Vec<_> = changes.iter().map(|it| (it.old.is_some(), it.new.is_some())).collect();
        assert_eq!(told, [(true, false), (true, true), (false, true)]);
        assert_eq!(names(&table.in_namespace("ns")), "b c");
        assert!(table.in_namespace("n").is_empty());
    }
}
