//! Addresses and ports of services, and what a new cluster holds.

use std::collections::BTreeSet;
use std::time::Duration;

use api::status::ApiError;
use apiserver::allocate::{Allocator, Cidr};
use apiserver::bootstrap::{self, BootstrapOptions, rows};
use apiserver::object::ToValue as _;
use apiserver::registry_access::Registry;
use serde_json::{Value, json};

use crate::etcd::Etcd;

fn ranges() -> Vec<Cidr> {
    ["10.96.0.0/16", "fd00:10:96::/112"].map(|range| range.parse().unwrap()).to_vec()
}

fn options() -> BootstrapOptions {
    BootstrapOptions { advertise_address: "172.30.0.2".parse().unwrap(), secure_port: 6443 }
}

/// A bootstrapped registry with its allocator.
async fn cluster(etcd: &Etcd) -> (Registry, Allocator) {
    let registry = etcd.registry().await;
    let allocator = Allocator::new(registry.clone(), ranges());
    bootstrap::run(&registry, &allocator, &options()).await.unwrap();
    (registry, allocator)
}

fn service(name: &str, spec: &Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name}, "spec": spec});
    if service["spec"]["ports"].is_null() {
        service["spec"]["ports"] = json!([{"port": 80, "protocol": "TCP"}]);
    }
    service["spec"]["selector"] = json!({"app": name});
    service
}

/// Writes a service as the server does.
async fn create(registry: &Registry, allocator: &Allocator, mut service: Value) -> Result<Value, ApiError> {
    let allocation = allocator.before_create(&mut service, false).await?;
    let created = registry.create(rows::services(), service).await?;
    allocation.commit();
    Ok(created)
}

async fn addresses(registry: &Registry) -> BTreeSet<String> {
    registry.list(rows::ip_addresses(), "").await.unwrap().iter().map(|a| a.meta.name.to_string()).collect()
}

/// Waits for what a spawned clean-up does.
async fn eventually(registry: &Registry, wanted: impl Fn(&BTreeSet<String>) -> bool) {
    for _ in 0..200 {
        if wanted(&addresses(registry).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("addresses stay {:?}", addresses(registry).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_has_its_first_objects_and_a_second_start_changes_none() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = registry.get(rows::namespaces(), "", name).await.unwrap().value();
        assert_eq!(namespace["status"]["phase"], "Active", "{name}");
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]), "{name}");
    }
    let kubernetes = registry.get(rows::services(), "default", "kubernetes").await.unwrap().value();
    assert_eq!(kubernetes["spec"]["clusterIPs"], json!(["10.96.0.1"]));
    assert_eq!(kubernetes["spec"]["ipFamilyPolicy"], "SingleStack");
    assert_eq!(addresses(&registry).await, BTreeSet::from(["10.96.0.1".to_owned()]));
    let slice = registry.get(rows::endpoint_slices(), "default", "kubernetes").await.unwrap().value();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["172.30.0.2"]));
    assert!(registry.list(rows::cluster_roles(), "").await.unwrap().len() > 20);

    let before = registry.store().revision();
    bootstrap::run(&registry, &allocator, &options()).await.unwrap();
    registry.list(rows::services(), "").await.unwrap();
    assert_eq!(registry.store().revision(), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_goes_to_one_of_many_who_ask_at_once() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let attempts = (0..8).map(|i| {
        let wanted = service(&format!("s{i}"), &json!({"clusterIP": "10.96.0.10"}));
        create(&registry, &allocator, wanted)
    });
    let outcomes = futures::future::join_all(attempts).await;
    let refused: Vec<String> =
        outcomes.iter().filter_map(|o| o.as_ref().err().map(ToString::to_string)).collect();
    assert_eq!(refused.len(), 7);
    assert!(
        refused.iter().all(|message| message.ends_with(
            r#"is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"#
        )),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_distinct_addresses_of_their_families_and_lose_them_when_deleted() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let mut seen = BTreeSet::new();
    for i in 0..20 {
        let created = create(
            &registry,
            &allocator,
            service(&format!("s{i}"), &json!({"ipFamilyPolicy": "PreferDualStack"})),
        )
        .await
        .unwrap();
        let ips: Vec<String> = serde_json::from_value(created["spec"]["clusterIPs"].clone()).unwrap();
        assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert!(ips[0].starts_with("10.96.") && ips[1].starts_with("fd00:10:96::"), "{ips:?}");
        assert_eq!(created["spec"]["clusterIP"], ips[0].as_str());
        seen.extend(ips);
    }
    assert_eq!(seen.len(), 40);
    let stored = registry.get(rows::services(), "default", "s7").await.unwrap().value();
    registry.delete(rows::services(), "default", "s7").await.unwrap();
    allocator.after_delete(&stored).await;
    assert_eq!(addresses(&registry).await.len(), 39, "38 and the one of kubernetes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_create_gives_back_and_an_update_frees_what_it_gave_up() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let mut failing = service("failing", &json!({"type": "NodePort"}));
    let allocation = allocator.before_create(&mut failing, false).await.unwrap();
    assert_eq!(addresses(&registry).await.len(), 2);
    let port = failing["spec"]["ports"][0]["nodePort"].clone();
    drop(allocation);
    eventually(&registry, |all| all.len() == 1).await;
    let again = service("again", &json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    let created = create(&registry, &allocator, again).await.unwrap();

    let mut external = created.clone();
    external["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    let allocation = allocator.before_update(&mut external, &created, false).await.unwrap();
    assert_eq!(external["spec"], json!({"type": "ExternalName", "externalName": "example.com"}));
    registry.update(rows::services(), external).await.unwrap();
    allocation.commit();
    eventually(&registry, |all| all.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_cut_off_at_any_point_keeps_no_address() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let mut cut_off = 0;
    for step in 0..30 {
        let allocator = allocator.clone();
        let mut wanted = service(&format!("s{step}"), &json!({"ipFamilyPolicy": "PreferDualStack"}));
        let creating =
            tokio::spawn(async move { allocator.before_create(&mut wanted, false).await.map(|_| ()) });
        tokio::task::spawn_blocking(move || std::thread::sleep(Duration::from_micros(step * 100)))
            .await
            .unwrap();
        creating.abort();
        cut_off += u32::from(creating.await.is_err());
    }
    assert!(cut_off > 0, "none was cut off: the test shows nothing");
    eventually(&registry, |all| all.len() == 1).await;
    // What arrived late is given back too.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    eventually(&registry, |all| all.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_an_address_and_takes_none() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let mut tried = service("tried", &json!({"type": "NodePort"}));
    allocator.before_create(&mut tried, true).await.unwrap().commit();
    assert!(tried["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert_eq!(addresses(&registry).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_knows_the_ports_in_use_and_finishes_what_a_crash_left() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let created = create(&registry, &allocator, service("web", &spec)).await.unwrap();
    // A crash between the address and its service, and one the other way round.
    let mut orphan = service("orphan", &json!({}));
    std::mem::forget(allocator.before_create(&mut orphan, false).await.unwrap());
    let address = created["spec"]["clusterIP"].as_str().unwrap();
    registry.delete(rows::ip_addresses(), "", address).await.unwrap();

    let restarted = Allocator::new(registry.clone(), ranges());
    restarted.repair().await.unwrap();
    assert_eq!(addresses(&registry).await, BTreeSet::from(["10.96.0.1".to_owned(), address.to_owned()]));
    let clash = create(&registry, &restarted, service("clash", &spec)).await.unwrap_err();
    assert_eq!(
        clash.message,
        r#"Service "clash" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_range_is_used_and_an_address_outside_is_refused() {
    let Some(etcd) = Etcd::start() else { return };
    let (registry, allocator) = cluster(&etcd).await;
    let wanted = || service("far", &json!({"clusterIP": "10.200.0.9"}));
    let refused = create(&registry, &allocator, wanted()).await.unwrap_err();
    assert!(refused.message.ends_with(
        "failed to allocate IP 10.200.0.9: the provided network does not match the current range"
    ));
    let more = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}});
    registry.create(rows::service_cidrs(), more).await.unwrap();
    registry.list(rows::service_cidrs(), "").await.unwrap();
    create(&registry, &allocator, wanted()).await.unwrap();
}
