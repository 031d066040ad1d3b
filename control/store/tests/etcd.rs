//! The store against the real etcd: conflicts, order, restarts, compaction, leases. Each test has an etcd of its own; without an
//! `etcd` program they are skipped aloud.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use store::{Config, Error, Index, Interest, Store};

/// The object called `poison` has been looked at.
static POISONED: AtomicBool = AtomicBool::new(false);

/// Labels of a test object: every member of `metadata.labels`.
#[derive(Debug)]
struct Labels(BTreeMap<String, String>);

impl Index for Labels {
    fn of(key: &str, body: &[u8]) -> Self {
        assert!(
            !key.ends_with("/poison") || POISONED.swap(true, Ordering::SeqCst),
            "the first look at it fails"
        );
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let labels = value["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        Self(
            labels
                .into_iter()
                .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()))
                .collect(),
        )
    }

    fn fields(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.0.iter().for_each(|(key, value)| visit(key, value));
    }
}

/// An etcd on ports of its own, killed at the end.
struct Etcd {
    process: Child,
    folder: tempfile::TempDir,
    ports: (u16, u16),
}

impl Etcd {
    fn start() -> Option<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (client, peer) = (free(), free());
        let ports = (client.local_addr().unwrap().port(), peer.local_addr().unwrap().port());
        drop((client, peer));
        let folder = tempfile::tempdir().unwrap();
        match Self::spawn(folder.path(), ports) {
            Ok(process) => Some(Self { process, folder, ports }),
            Err(error) => {
                println!("skipped: needs the etcd program ({error})");
                None
            }
        }
    }

    fn spawn(folder: &std::path::Path, (client, peer): (u16, u16)) -> std::io::Result<Child> {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Command::new("etcd")
            .arg(format!("--data-dir={}", folder.display()))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--log-level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = Self::spawn(self.folder.path(), self.ports).unwrap();
    }

    async fn store(&self) -> Store<Labels> {
        let config = Config {
            compaction_interval: None,
            ..Config::new(vec![self.url()], vec!["/r/pods/".into(), "/r/nodes/".into()])
        };
        let store = Store::open(config).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), store.ready()).await.expect("etcd serves within 20 s");
        // The first load may come before the watch stands.
        while !store.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store
    }

    async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.url()], None).await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn value(n: usize) -> Vec<u8> {
    format!(r#"{{"kind":"Pod","metadata":{{"name":"p","labels":{{"n":"{n}"}}}}}}"#).into_bytes()
}

fn names(listing: &store::Listing<Labels>, prefix: &str) -> Vec<String> {
    listing.entries.range(prefix, "").map(|it| it.key.trim_start_matches(prefix).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_meet_conflicts_and_readers_see_what_was_written() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let first = store.create("/r/pods/a/x", &value(1), None).await.unwrap();
    assert!(
        std::str::from_utf8(&first.body)
            .unwrap()
            .contains(&format!("\"resourceVersion\":\"{}\"", first.revision))
    );
    assert!(matches!(store.create("/r/pods/a/x", &value(1), None).await, Err(Error::Exists)));
    store.sync().await.unwrap();
    assert_eq!(store.cached("/r/pods/a/x").unwrap().body, first.body);

    let second = store.update(&first, &value(2), None).await.unwrap();
    assert!(second.holds(&value(2)) && !second.holds(&value(1)));
    assert!(matches!(store.update(&first, &value(3), None).await, Err(Error::Conflict)));
    assert!(matches!(store.delete(&first).await, Err(Error::Conflict)));
    assert_eq!(store.read_through("/r/pods/a/x").await.unwrap().revision, second.revision);
    assert_eq!(second.created, first.revision);

    store.delete(&second).await.unwrap();
    assert!(matches!(store.read_through("/r/pods/a/x").await, Err(Error::NotFound)));
    store.sync().await.unwrap();
    assert!(store.cached("/r/pods/a/x").is_none());
    assert!(matches!(store.reach(store.revision() + 1_000).await, Err(Error::Future { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_one_revision_hold_while_others_write() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    for name in ["a/1", "a/2", "b/1"] {
        store.create(&format!("/r/pods/{name}"), &value(1), None).await.unwrap();
    }
    store.sync().await.unwrap();
    let before = store.current("/r/pods/").unwrap();
    let gone = store.cached("/r/pods/a/2").unwrap();
    store.delete(&gone).await.unwrap();
    store.create("/r/pods/a/3", &value(1), None).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(names(&store.current("/r/pods/").unwrap(), "/r/pods/"), ["a/1", "a/3", "b/1"]);
    let again = store.exactly("/r/pods/", before.revision).await.unwrap();
    assert_eq!(names(&again, "/r/pods/"), ["a/1", "a/2", "b/1"]);
    assert_eq!(names(&again, "/r/pods/a/"), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_every_event_across_a_killed_etcd() {
    let Some(mut etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let mut watch =
        store.watch("/r/pods/", Interest::Directory("/r/pods/a/".into()), store.revision()).unwrap();
    let mut by_label =
        store.watch("/r/pods/", Interest::Field("n".into(), "7".into()), store.revision()).unwrap();
    let mut wanted = Vec::new();
    for n in 0..5 {
        wanted.push(store.create(&format!("/r/pods/a/{n}"), &value(n), None).await.unwrap().revision);
    }
    etcd.kill();
    let refused = store.create("/r/pods/a/x", &value(1), None).await;
    assert!(matches!(refused, Err(Error::Unavailable(_) | Error::Timeout(_))), "{:?}", refused.err());
    assert!(store.sync().await.is_err(), "a linearizable read must not be answered from memory");
    assert!(store.cached("/r/pods/a/4").is_some() || store.revision() < wanted[4]);
    etcd.restart();
    // Written behind the store's back, before it has reconnected.
    let mut client = etcd.client().await;
    let response = loop {
        match client.put("/r/pods/a/y", value(7), None).await {
            Ok(response) => break response,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    wanted.push(response.header().unwrap().revision());
    let mut seen = Vec::new();
    while seen.len() < wanted.len() {
        let batch = tokio::time::timeout(Duration::from_secs(10), watch.next())
            .await
            .expect("the watch resumes")
            .unwrap();
        seen.extend(batch.iter().map(|it| it.revision));
    }
    assert_eq!(seen, wanted);
    let batch = tokio::time::timeout(Duration::from_secs(5), by_label.next())
        .await
        .expect("the label rings")
        .unwrap();
    assert!(batch.iter().any(|it| it.key() == "/r/pods/a/y"));
    loop {
        match store.sync().await {
            Ok(()) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    assert_eq!(store.current("/r/pods/").unwrap().entries.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_knows_the_recent_past_and_a_compacted_one_says_so() {
    let Some(etcd) = Etcd::start() else { return };
    let first = etcd.store().await;
    let start = first.revision();
    for n in 0..5 {
        first.create(&format!("/r/pods/a/{n}"), &value(n), None).await.unwrap();
    }
    drop(first);
    // A watcher that had seen `start` resumes at a server that has just come up.
    let second = etcd.store().await;
    let mut watch = second.watch("/r/pods/", Interest::All, start).unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 5);
    assert_eq!(second.exactly("/r/pods/", start + 2).await.unwrap().entries.len(), 2);

    etcd.client().await.compact(second.revision(), None).await.unwrap();
    let third = etcd.store().await;
    assert_eq!(third.current("/r/pods/").unwrap().entries.len(), 5);
    assert!(matches!(third.watch("/r/pods/", Interest::All, start), Err(Error::Expired { .. })));
    assert!(matches!(third.exactly("/r/pods/", start + 2).await, Err(Error::Expired { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_missed_compacted_events_loads_again_and_ends_its_watches() {
    let Some(mut etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let kept = store.create("/r/pods/a/kept", &value(1), None).await.unwrap();
    store.sync().await.unwrap();
    let mut watch = store.watch("/r/pods/", Interest::All, store.revision()).unwrap();
    etcd.kill();
    // The same data elsewhere, where the store does not see what happens.
    let own = etcd.ports;
    let port = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    etcd.ports = (port(), port());
    etcd.restart();
    let mut client = etcd.client().await;
    while client.put("/r/pods/a/new", value(2), None).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = client.delete("/r/pods/a/kept", None).await.unwrap();
    let last = client.put("/r/pods/a/newer", value(3), None).await.unwrap().header().unwrap().revision();
    client.compact(last, None).await.unwrap();
    assert!(gone.deleted() == 1 && last > kept.revision);
    etcd.kill();
    etcd.ports = own;
    etcd.restart();
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("the watch ends");
    assert_eq!(ended.err().map(|it| it.oldest), Some(last), "a gap must never be passed over in silence");
    store.reach(last).await.unwrap();
    assert_eq!(names(&store.current("/r/pods/").unwrap(), "/r/pods/a/"), ["new", "newer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_panics_costs_a_new_load_not_the_store() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    let mut watch = store.watch("/r/pods/", Interest::All, store.revision()).unwrap();
    let put = etcd.client().await.put("/r/pods/a/poison", value(1), None).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("the watch ends");
    assert!(ended.is_err(), "what came between may be missing");
    store.reach(put.header().unwrap().revision()).await.unwrap();
    assert!(store.cached("/r/pods/a/poison").is_some());
    let next = store.create("/r/pods/a/next", &value(1), None).await.unwrap();
    store.reach(next.revision).await.unwrap();
    assert!(store.cached("/r/pods/a/next").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_object_goes_by_itself_and_its_watchers_hear_of_it() {
    let Some(etcd) = Etcd::start() else { return };
    let store = etcd.store().await;
    // The store adds a minute in which the lease is shared; a lease of one's own shows the expiry sooner.
    let mut client = etcd.client().await;
    let lease = client.lease_grant(1, None).await.unwrap().id();
    let options = etcd_client::PutOptions::new().with_lease(lease);
    let mut watch = store.watch("/r/nodes/", Interest::All, store.revision()).unwrap();
    client.put("/r/nodes/n", value(1), Some(options)).await.unwrap();
    let added = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
    assert!(added[0].new.is_some());
    let expired = tokio::time::timeout(Duration::from_secs(15), watch.next())
        .await
        .expect("the lease expires")
        .unwrap();
    assert!(expired[0].new.is_none() && expired[0].old.is_some());
    let shared: Vec<_> =
        futures::future::join_all((0..3).map(|n| {
            let store = store.clone();
            async move {
                store.create(&format!("/r/nodes/{n}"), &value(n), Some(Duration::from_secs(3_600))).await
            }
        }))
        .await;
    assert!(shared.iter().all(Result::is_ok));
    assert_eq!(client.leases().await.unwrap().leases().len(), 1, "writes of one lifetime share a lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_share_one_probe() {
    let Some(etcd) = Etcd::start() else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let mut config = Config::new(vec![etcd.url()], vec!["/r/pods/".into()]);
    config.observer = Arc::new(move |operation, _, _| {
        counted.fetch_add(usize::from(operation == "get"), Ordering::Relaxed);
    });
    let store: Store<Labels> = Store::open(config).await.unwrap();
    store.ready().await;
    let readers = (0..200).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.sync().await })
    });
    for reader in futures::future::join_all(readers).await {
        reader.unwrap().unwrap();
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < 100, "200 reads asked etcd {asked} times");
}
