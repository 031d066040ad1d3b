//! Services that change what they are: type, ports, families, labels. What stays the same keeps its numbers.

use super::*;
use abi::service::flags;

/// Ids of the frontends, by their texts.
fn ids(fixture: &Fixture) -> Vec<(String, u32)> {
    fixture.model.frontends.iter().map(|(key, row)| (key.to_string(), row.service)).collect()
}

#[test]
fn a_port_that_is_renamed_keeps_its_id_and_frontend() {
    let mut fixture = Fixture::started();
    let spec = |name: &str| json!({"clusterIP": "10.96.0.10", "ports": [{"name": name, "port": 80}, {"name": "other", "port": 81}]});
    fixture.service("a", spec("http"));
    let before = ids(&fixture);
    assert_eq!(fixture.service("a", spec("web")), 0, "no row knows the name");
    assert_eq!(ids(&fixture), before);
    // Its endpoints are found by the new name from now on.
    let mut endpoints = slice("a-1", "a", "IPv4", 8080, two_endpoints());
    endpoints.ports.as_mut().unwrap()[0].name = Some("web".into());
    let diff = fixture.tables.slice_applied(&endpoints, 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        10.96.0.10:81/TCP -> []
    "#]]);
}

#[test]
fn ports_may_exchange_their_numbers() {
    let mut fixture = Fixture::started();
    let spec = |one: u16, two: u16| {
        json!({"clusterIP": "10.96.0.10", "ports": [
            {"name": "one", "port": one, "nodePort": 30000 + one}, {"name": "two", "port": two, "nodePort": 30000 + two}
        ]})
    };
    fixture.service("a", spec(80, 81));
    let before = ids(&fixture);
    fixture.service("a", spec(81, 80));
    let exchanged: Vec<_> = before.iter().map(|(key, id)| (key.clone(), 3 - id)).collect();
    assert_eq!(ids(&fixture), exchanged);
    assert_eq!(fixture.model.problems, [""; 0]);
}

#[test]
fn one_number_may_serve_protocols_in_turn() {
    let mut fixture = Fixture::started();
    let spec = |protocols: &[&str]| {
        let ports = protocols.iter().map(|protocol| {
            json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 53, "nodePort": 30053})
        });
        json!({"clusterIP": "10.96.0.10", "ports": ports.collect::<Vec<_>>()})
    };
    fixture.service("a", spec(&["TCP"]));
    fixture.service("a", spec(&["TCP", "UDP", "SCTP"]));
    let all = ids(&fixture);
    assert_eq!(all.len(), 6);
    fixture.service("a", spec(&["UDP"]));
    assert_eq!(ids(&fixture), all.into_iter().filter(|(key, _)| key.ends_with("UDP")).collect::<Vec<_>>());
}

#[test]
fn a_family_that_is_added_leaves_the_other_alone() {
    let mut fixture = Fixture::started();
    fixture.slice("a-4", "a", two_endpoints());
    let six = slice("a-6", "a", "IPv6", 8080, json!([{"addresses": ["fd00:10:244::5"], "nodeName": "here"}]));
    let diff = fixture.tables.slice_applied(&six, 0);
    fixture.take(diff);
    fixture.service("a", cluster_ip("10.96.0.10"));
    let before = fixture.model.clone();
    let both = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:10:96::a"], "ports": [{"port": 80}]});
    assert_eq!(fixture.service("a", both), 3, "backend, service and frontend of the new family");
    assert!(before.services.iter().all(|(id, row)| fixture.model.services[id] == *row));
    assert_eq!(fixture.service("a", cluster_ip("10.96.0.10")), 3);
    assert_eq!(fixture.model.text(), before.text());
}

#[test]
fn a_service_goes_through_all_types_and_comes_back() {
    let mut fixture = Fixture::started();
    fixture.slice("a-1", "a", two_endpoints());
    let port = json!([{"port": 80, "nodePort": 30080}]);
    let types = [
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "ports": [{"port": 80}]}),
        json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": port}),
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "ports": port}),
        json!({"type": "ExternalName", "externalName": "x"}),
        json!({"type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "NodePort", "clusterIP": "10.96.0.11", "ports": port}),
    ];
    let mut texts = String::new();
    for spec in types {
        fixture.service("a", spec);
        texts += &(fixture.model.text() + "\n");
    }
    expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]

        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port

        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] local [10.244.0.5:8080(local)]
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] local [10.244.0.5:8080(local)] external node-port
        health of ns/a at 32000: 1

        nothing

        nothing

        10.96.0.11:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
        nodePort:30080/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] external node-port

    "#]].assert_eq(&texts);
    fixture.delete("a");
    assert!(fixture.model.is_empty());
}

#[test]
fn each_policy_has_its_flag_and_one_of_them_a_local_run() {
    // Policies, whether there is a node port; flags, and whether the local endpoint stands in a local run.
    let (internal, external) = (flags::INTERNAL_LOCAL, flags::EXTERNAL_LOCAL);
    for (internal_policy, external_policy, node_port, expected) in [
        ("Cluster", "Cluster", true, 0),
        ("Local", "Cluster", true, internal),
        ("Cluster", "Local", true, external),
        ("Local", "Local", true, internal | external),
        ("Local", "Cluster", false, internal),
        // externalTrafficPolicy of a Service that nobody reaches from outside means nothing.
        ("Cluster", "Local", false, 0),
    ] {
        let mut fixture = Fixture::started();
        fixture.slice("a-1", "a", two_endpoints());
        let mut spec = cluster_ip("10.96.0.10");
        spec["internalTrafficPolicy"] = json!(internal_policy);
        spec["externalTrafficPolicy"] = json!(external_policy);
        if node_port {
            spec["ports"][0]["nodePort"] = json!(30_080);
        }
        fixture.service("a", spec);
        let row = fixture.model.services.values().next().unwrap();
        let found = (row.flags, row.cluster.len(), row.local.len());
        assert_eq!(
            found,
            (expected, 2, usize::from(expected != 0)),
            "{internal_policy} {external_policy} {node_port}"
        );
    }
}

#[test]
fn connected_sockets_are_told_of_udp_backends_that_go() {
    let mut fixture = Fixture::started();
    let spec = json!({"clusterIP": "10.96.0.10", "ports": [{"protocol": "UDP", "port": 53}, {"name": "tcp", "port": 53}]});
    fixture.service("dns", spec);
    let endpoints = |addresses: &[&str]| {
        let mut object = slice(
            "dns-1",
            "dns",
            "IPv4",
            53,
            addresses.iter().map(|address| json!({"addresses": [address]})).collect(),
        );
        object.ports =
            serde_json::from_value(json!([{"protocol": "UDP", "port": 53}, {"name": "tcp", "port": 53}]))
                .unwrap();
        object
    };
    let tell = |fixture: &mut Fixture, addresses: &[&str]| {
        let diff = fixture.tables.slice_applied(&endpoints(addresses), 0);
        let gone: Vec<_> =
            diff.gone_udp.iter().map(|(_, index, address)| (*index, address.to_string())).collect();
        fixture.take(diff);
        gone
    };
    assert_eq!(tell(&mut fixture, &["10.244.0.5", "10.244.0.6"]), []);
    let index = fixture.model.backends.iter().find(|(_, row)| row.address == IpAddr::from([10, 244, 0, 5]));
    let index = index.unwrap().0.1;
    assert_eq!(tell(&mut fixture, &["10.244.0.6"]), [(index, "10.244.0.5:53".to_owned())]);
    let diff = fixture.tables.service_deleted(&ObjectKey::new("ns", "dns"), 0);
    assert_eq!(diff.gone_udp.len(), 1);
}
