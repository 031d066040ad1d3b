//! Event sequences against the published tables. A model of the tables applies each difference, so that what is checked is the state
//! that packets would see, and every difference is checked to be minimal.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod addresses;
mod balancing;
mod host_ports;
mod lifecycle;
mod model;
mod sequences;

use expect_test::expect;
use serde_json::{Value, json};

use super::*;
use crate::{Family, Frontend, FrontendAddress, FrontendKey, LearnedService, ServiceRow};
use model::{Fixture, Model, cluster_ip, service, slice, two_endpoints};

#[test]
fn a_service_answers_on_all_its_addresses_in_both_families() {
    let mut fixture = Fixture::started();
    fixture.service("a", json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:10:96::a"], "externalIPs": ["203.0.113.7"],
        "ports": [{"port": 80, "nodePort": 30080}]
    }));
    fixture.slice("a-4", "a", two_endpoints());
    let six = slice("a-6", "a", "IPv6", 8080, json!([{"addresses": ["fd00:10:244::5"], "nodeName": "here"}]));
    let diff = fixture.tables.slice_applied(&six, 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        [fd00:10:96::a]:80/TCP -> [fd00:10:244::5:8080(local)]
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
        nodePort6:30080/TCP -> [fd00:10:244::5:8080(local)] external node-port
    "#]]);
}

#[test]
fn an_event_touches_only_the_rows_of_its_service() {
    let mut fixture = Fixture::started();
    for number in 0..50 {
        let name = format!("s{number}");
        fixture.service(&name, cluster_ip(&format!("10.96.1.{number}")));
        fixture.slice(&format!("{name}-x"), &name, two_endpoints());
    }
    assert_eq!(fixture.slice("s7-x", "s7", two_endpoints()), 0, "nothing changed");
    let one_more = json!([
        {"addresses": ["10.244.0.5"], "nodeName": "here"}, {"addresses": ["10.244.1.6"], "nodeName": "there"}, {"addresses": ["10.244.1.7"]}
    ]);
    assert_eq!(fixture.slice("s7-x", "s7", one_more), 2, "one backend, one service row");
    assert_eq!(fixture.slice("s7-x", "s7", two_endpoints()), 2);
}

#[test]
fn endpoints_of_several_slices_and_target_ports_are_joined() {
    let mut fixture = Fixture::started();
    fixture.service("a", cluster_ip("10.96.0.10"));
    fixture.slice("a-1", "a", json!([{"addresses": ["10.244.0.5"], "conditions": {"ready": false}}]));
    fixture.slice(
        "a-2",
        "a",
        json!([{"addresses": ["10.244.0.5"]}, {"addresses": ["172.30.0.12"], "nodeName": "there"}]),
    );
    let diff = fixture
        .tables
        .slice_applied(&slice("a-3", "a", "IPv4", 9090, json!([{"addresses": ["10.244.0.5"]}])), 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080 10.244.0.5:9090 172.30.0.12:8080(host)]
    "#]]);
    let diff = fixture.tables.slice_deleted(&ObjectKey::new("ns", "a-2"), 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:9090]
    "#]]);
}

#[test]
fn local_policies_have_their_own_set() {
    let mut fixture = Fixture::started();
    fixture.slice("a-1", "a", two_endpoints());
    fixture.service("a", json!({
        "type": "NodePort", "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]
    }));
    fixture.service(
        "b",
        json!({"clusterIP": "10.96.0.11", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
    );
    fixture.slice("b-1", "b", json!([{"addresses": ["10.244.1.6"], "nodeName": "there"}]));
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] local [10.244.0.5:8080(local)]
        10.96.0.11:80/TCP -> [10.244.1.6:8080] local []
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] local [10.244.0.5:8080(local)] external node-port
    "#]]);
}

#[test]
fn a_service_without_endpoints_keeps_its_frontends_and_deletion_removes_every_row() {
    let mut fixture = Fixture::started();
    fixture.service("a", cluster_ip("10.96.0.10"));
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> []
    "#]]);
    fixture.slice("a-1", "a", two_endpoints());
    fixture.slice("a-1", "a", json!([{"addresses": ["10.244.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}}]));
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(terminating)]
    "#]]);
    let diff = fixture.tables.service_deleted(&ObjectKey::new("ns", "a"), 0);
    fixture.take(diff);
    assert!(
        fixture.model.backends.is_empty()
            && fixture.model.services.is_empty()
            && fixture.model.frontends.is_empty()
    );
    fixture.service("a", cluster_ip("10.96.0.12"));
    fixture.check(expect![[r#"
        10.96.0.12:80/TCP -> [10.244.0.5:8080(terminating)]
    "#]]);
}

#[test]
fn numbers_stay_while_addresses_and_ports_change() {
    let mut fixture = Fixture::started();
    fixture.service("a", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80, "nodePort": 30080}]}));
    fixture.slice("a-1", "a", two_endpoints());
    let (id, backends) =
        (fixture.model.frontends.values().next().unwrap().service, fixture.model.backends.clone());
    fixture.service("a", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 81, "nodePort": 30081}]}));
    assert!(fixture.model.frontends.values().all(|frontend| frontend.service == id));
    assert_eq!(fixture.model.backends, backends);
    fixture.check(expect![[r#"
        10.96.0.10:81/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        nodePort:30081/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
    "#]]);
}

#[test]
fn labels_that_hand_a_service_to_another_proxy_take_it_out_and_back() {
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut fixture = Fixture::started();
        fixture.service("a", cluster_ip("10.96.0.10"));
        fixture.slice("a-1", "a", two_endpoints());
        let before = fixture.model.text();
        fixture.object(json!({
            "metadata": {"namespace": "ns", "name": "a", "labels": {label: "x"}}, "spec": cluster_ip("10.96.0.10")
        }));
        assert!(fixture.model.is_empty(), "{label}");
        fixture.service("a", cluster_ip("10.96.0.10"));
        assert_eq!(fixture.model.text(), before);
    }
}

#[test]
fn two_services_that_want_one_address_get_it_in_turn() {
    let mut fixture = Fixture::started();
    let spec = |cluster: &str| json!({"clusterIP": cluster, "externalIPs": ["203.0.113.7"], "ports": [{"port": 80}]});
    fixture.service("a", spec("10.96.0.10"));
    fixture.service("b", spec("10.96.0.11"));
    fixture.slice("b-1", "b", two_endpoints());
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> []
        10.96.0.11:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        203.0.113.7:80/TCP -> [] external
        ! ns/b: spec: 203.0.113.7:80/TCP belongs to service ns/a
    "#]]);
    fixture.model.problems.clear();
    let diff = fixture.tables.service_deleted(&ObjectKey::new("ns", "a"), 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.11:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
    "#]]);
}

#[test]
fn the_api_servers_service_never_loses_its_last_backends() {
    let mut fixture = Fixture::started();
    let own = |mut object: EndpointSlice| {
        object.metadata.namespace = Some("default".into());
        object
    };
    let mut kubernetes = service("kubernetes", cluster_ip("10.96.0.1"));
    kubernetes.metadata.namespace = Some("default".into());
    let diff = fixture.tables.service_applied(&kubernetes, 0);
    fixture.take(diff);
    let full = own(slice("kubernetes", "kubernetes", "IPv4", 6443, json!([{"addresses": ["172.30.0.12"]}])));
    let diff = fixture.tables.slice_applied(&full, 0);
    fixture.take(diff);
    let empty = own(slice("kubernetes", "kubernetes", "IPv4", 6443, json!([])));
    let diff = fixture.tables.slice_applied(&empty, 0);
    assert_eq!(fixture.take(diff), 0);
    let kept = expect![[r#"
        10.96.0.1:80/TCP -> [172.30.0.12:6443(host)]
        ! default/kubernetes: endpoints: none left; the last known ones are kept for the API server's own service
    "#]];
    kept.assert_eq(&fixture.model.text());

    // A restart at this moment keeps them too.
    let model = Model { problems: Vec::new(), ..fixture.model };
    let mut after = Fixture::new();
    after.tables.adopt(model.learned());
    after.tables.slice_applied(&empty, 0);
    after.tables.service_applied(&kubernetes, 0);
    after.model = Model { adopted: true, ..model.clone() };
    let diff = after.tables.start(0);
    after.take(diff);
    assert_eq!(after.model.backends.keys().collect::<Vec<_>>(), model.backends.keys().collect::<Vec<_>>());
    kept.assert_eq(&after.model.text());
    let other = own(slice("kubernetes", "kubernetes", "IPv4", 6443, json!([{"addresses": ["172.30.0.11"]}])));
    let diff = after.tables.slice_applied(&other, 0);
    assert_eq!(after.take(diff), 3);
}

#[test]
fn nothing_is_published_before_the_first_lists_are_complete() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.service("a", cluster_ip("10.96.0.10")), 0);
    assert_eq!(fixture.slice("a-1", "a", two_endpoints()), 0);
    let diff = fixture.tables.start(0);
    assert_eq!(fixture.take(diff), 4);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
    "#]]);
}

#[test]
fn a_restart_keeps_numbers_and_removes_only_what_is_gone() {
    let mut before = Fixture::started();
    for (name, address) in [("a", "10.96.0.10"), ("b", "10.96.0.11"), ("c", "10.96.0.12")] {
        before.service(name, cluster_ip(address));
        before.slice(&format!("{name}-1"), name, two_endpoints());
    }
    let model = before.model;
    let learned = model.learned();

    let mut after = Fixture::new();
    after.tables.adopt(learned);
    after.service("b", json!({"clusterIP": "10.96.0.11", "ports": [{"port": 80, "nodePort": 30080}]}));
    after.slice(
        "b-1",
        "b",
        json!([{"addresses": ["10.244.1.6"], "nodeName": "there"}, {"addresses": ["10.244.1.9"]}]),
    );
    after.service("c", cluster_ip("10.96.0.12"));
    after.slice("c-1", "c", two_endpoints());
    after.service("d", cluster_ip("10.96.0.13"));
    let frontend = |model: &Model, address: &str| {
        let address = FrontendAddress::Exact(address.parse().unwrap());
        model.frontends.iter().find(|(key, _)| key.address == address).map(|(_, frontend)| frontend.service)
    };
    let (b, c) = (frontend(&model, "10.96.0.11"), frontend(&model, "10.96.0.12"));
    let (rows_b, rows_c) = (model.services[&b.unwrap()].clone(), model.services[&c.unwrap()].clone());
    after.model = Model { adopted: true, ..model };
    let diff = after.tables.start(0);
    after.take(diff);
    assert_eq!((frontend(&after.model, "10.96.0.11"), frontend(&after.model, "10.96.0.12")), (b, c));
    assert_eq!(after.model.services[&c.unwrap()], rows_c);
    assert_eq!(
        after.model.services[&b.unwrap()].cluster[0],
        rows_b.cluster[1],
        "the endpoint that stayed keeps its index"
    );
    assert_eq!(after.model.backends.len(), 4);
    assert_eq!(after.model.services.len(), 3);
    after.check(expect![[r#"
        10.96.0.11:80/TCP -> [10.244.1.6:8080 10.244.1.9:8080]
        10.96.0.12:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        10.96.0.13:80/TCP -> []
        nodePort:30080/TCP -> [10.244.1.6:8080 10.244.1.9:8080] external node-port
    "#]]);
}

#[test]
fn rows_that_a_crash_left_without_a_service_are_removed() {
    let key = |port| FrontendKey {
        address: FrontendAddress::Exact("10.96.0.10".parse().unwrap()),
        port,
        protocol: crate::Protocol::Tcp,
    };
    let mut fixture = Fixture::new();
    fixture.tables.adopt(Learned {
        frontends: vec![(key(80), 3), (key(81), 3)],
        services: vec![
            LearnedService { id: 3, backends: Vec::new(), maglev: [0; 2] },
            LearnedService { id: 7, backends: Vec::new(), maglev: [0; 2] },
        ],
        ..Learned::default()
    });
    for (port, id) in [(80, 3), (81, 3)] {
        fixture.model.frontends.insert(
            key(port),
            Frontend { service: id, external: false, source_ranges: false, node_port: false },
        );
    }
    fixture.model.services.extend([(3, ServiceRow::default()), (7, ServiceRow::default())]);
    fixture.service("a", cluster_ip("10.96.0.10"));
    let diff = fixture.tables.start(0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> []
    "#]]);
    assert_eq!(fixture.model.services.keys().collect::<Vec<_>>(), [&3]);
}

#[test]
fn a_backend_index_rests_before_it_is_given_to_another_endpoint() {
    let mut fixture = Fixture::started();
    fixture.service("a", cluster_ip("10.96.0.10"));
    fixture.slice("a-1", "a", json!([{"addresses": ["10.244.0.5"]}]));
    fixture.slice("a-1", "a", json!([{"addresses": ["10.244.0.6"]}]));
    assert!(fixture.model.backends.contains_key(&(Family::V4, 2)));
    fixture.now = abi::limits::QUARANTINE_MS;
    fixture.slice("a-1", "a", json!([{"addresses": ["10.244.0.7"]}]));
    assert!(fixture.model.backends.contains_key(&(Family::V4, 1)));
}
