//! Addresses of Services: which there are, who may use them, and when they go.

use super::*;

fn vips(fixture: &Fixture) -> String {
    fixture.model.vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_address_of_a_service_is_a_vip_until_its_last_service_goes() {
    let mut fixture = Fixture::started();
    let spec = |address: &str, port: u16| json!({"clusterIP": address, "externalIPs": ["203.0.113.7"], "ports": [{"port": port, "nodePort": 30000 + port}]});
    fixture.service("a", spec("10.96.0.10", 80));
    fixture.service("b", spec("10.96.0.11", 81));
    assert_eq!(vips(&fixture), "10.96.0.10 10.96.0.11 203.0.113.7");
    fixture.delete("a");
    assert_eq!(vips(&fixture), "10.96.0.11 203.0.113.7");
    fixture.service("b", cluster_ip("10.96.0.12"));
    assert_eq!(vips(&fixture), "10.96.0.12");
    fixture.service("b", json!({"type": "ExternalName", "externalName": "x"}));
    assert!(fixture.model.is_empty());
}

#[test]
fn a_nodes_address_that_is_listed_as_a_services_serves_its_ports_and_is_no_vip() {
    let mut fixture = Fixture::started();
    fixture.service(
        "a",
        json!({"clusterIP": "10.96.0.10", "externalIPs": ["172.30.0.12"], "ports": [{"port": 80}]}),
    );
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> []
        172.30.0.12:80/TCP -> [] external
    "#]]);
    assert_eq!(vips(&fixture), "10.96.0.10");
    let diff = fixture.tables.set_nodes(&[], "", 0);
    fixture.take(diff);
    assert_eq!(vips(&fixture), "10.96.0.10 172.30.0.12");
}

fn balanced(ranges: Value) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": "a"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:10:96::a"],
            "externalIPs": ["203.0.113.7"], "loadBalancerSourceRanges": ranges, "ports": [{"port": 80, "nodePort": 30080}]
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "2001:db8::1"}, {"ip": "198.51.100.9", "ipMode": "Proxy"}, {"ip": "203.0.113.7"}
        ]}}
    })
}

#[test]
fn source_ranges_hold_for_load_balancer_addresses_of_their_family_alone() {
    let mut fixture = Fixture::started();
    fixture.slice("a-1", "a", two_endpoints());
    fixture.object(balanced(json!(["192.0.2.0/24", "10.0.0.0/8"])));
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        198.51.100.1:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external from [10.0.0.0/8 192.0.2.0/24]
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        [2001:db8::1]:80/TCP -> [] external
        [fd00:10:96::a]:80/TCP -> []
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
        nodePort6:30080/TCP -> [] external node-port
    "#]]);
    assert_eq!(fixture.object(balanced(json!(["192.0.2.0/24"]))), 0, "no row but the range");
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        198.51.100.1:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external from [192.0.2.0/24]
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        [2001:db8::1]:80/TCP -> [] external
        [fd00:10:96::a]:80/TCP -> []
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
        nodePort6:30080/TCP -> [] external node-port
    "#]]);
    fixture.object(balanced(json!([])));
    assert!(fixture.model.ranges.is_empty());
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        198.51.100.1:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        [2001:db8::1]:80/TCP -> [] external
        [fd00:10:96::a]:80/TCP -> []
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
        nodePort6:30080/TCP -> [] external node-port
    "#]]);
    fixture.object(balanced(json!(["fd00::/8"])));
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        198.51.100.1:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        203.0.113.7:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external
        [2001:db8::1]:80/TCP -> [] external from [fd00::/8]
        [fd00:10:96::a]:80/TCP -> []
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port
        nodePort6:30080/TCP -> [] external node-port
    "#]]);
    fixture.delete("a");
    assert!(fixture.model.is_empty());
}

#[test]
fn a_restart_removes_ranges_and_addresses_that_are_gone() {
    let mut before = Fixture::started();
    before.object(balanced(json!(["192.0.2.0/24", "10.0.0.0/8"])));
    before.service("b", cluster_ip("10.96.0.11"));
    let model = before.model;

    let mut after = Fixture::new();
    after.tables.adopt(model.learned());
    after.model = Model { adopted: true, ..model.clone() };
    after.object(balanced(json!(["10.0.0.0/8"])));
    let diff = after.tables.start(0);
    after.take(diff);
    assert!(after.model.frontends.iter().all(|(key, row)| model.frontends[key] == *row));
    assert_eq!(vips(&after), "10.96.0.10 198.51.100.1 203.0.113.7 2001:db8::1 fd00:10:96::a");
    after.check(expect![[r#"
        10.96.0.10:80/TCP -> []
        198.51.100.1:80/TCP -> [] external from [10.0.0.0/8]
        203.0.113.7:80/TCP -> [] external
        [2001:db8::1]:80/TCP -> [] external
        [fd00:10:96::a]:80/TCP -> []
        nodePort:30080/TCP -> [] external node-port
        nodePort6:30080/TCP -> [] external node-port
    "#]]);
}

#[test]
fn a_health_check_counts_ready_endpoints_of_this_node() {
    let mut fixture = Fixture::started();
    let spec = |policy: &str| {
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalTrafficPolicy": policy,
            "healthCheckNodePort": 32000, "ports": [{"port": 80}, {"name": "other", "port": 81}]
        })
    };
    let pods = |terminating: bool| {
        json!([
            {"addresses": ["10.244.0.5"], "nodeName": "here", "conditions": {"ready": !terminating, "serving": true, "terminating": terminating}},
            {"addresses": ["10.244.1.6"], "nodeName": "there"}
        ])
    };
    let health = |fixture: &Fixture| {
        let listed: Vec<_> =
            fixture.tables.health_checks().map(|(key, check)| (key.clone(), check)).collect();
        assert_eq!(listed, fixture.model.health.clone().into_iter().collect::<Vec<_>>());
        listed.first().map(|(_, check)| (check.port, check.local_endpoints))
    };
    fixture.service("a", spec("Local"));
    assert_eq!(health(&fixture), Some((32_000, 0)));
    fixture.slice("a-1", "a", pods(false));
    fixture.slice("a-2", "a", pods(false));
    assert_eq!(health(&fixture), Some((32_000, 1)), "the same pod in two slices is one");
    fixture.slice("a-1", "a", pods(true));
    fixture.slice("a-2", "a", pods(true));
    assert_eq!(health(&fixture), Some((32_000, 0)), "a terminating one does not count");
    fixture.service("a", spec("Cluster"));
    assert_eq!(health(&fixture), None);
}

#[test]
fn the_annotation_of_old_restricts_as_the_field_does() {
    let mut fixture = Fixture::started();
    let mut object = balanced(json!([]));
    object["metadata"]["annotations"] = json!({crate::source_ranges::ANNOTATION: "192.0.2.0/24"});
    fixture.object(object);
    assert_eq!(fixture.model.ranges.len(), 1);
}
