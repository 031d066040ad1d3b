//! Algorithms, weights and Maglev tables, as annotations ask for them.

use super::*;

fn annotated(name: &str, address: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": name, "annotations": annotations},
        "spec": {"clusterIP": address, "ports": [{"port": 80}]}
    })
}

fn pods(count: usize) -> Value {
    (0..count)
        .map(|number| json!({"addresses": [format!("10.244.1.{number}")], "nodeName": "there"}))
        .collect()
}

/// The only service row.
fn row(fixture: &Fixture) -> &ServiceRow {
    assert_eq!(fixture.model.services.len(), 1);
    fixture.model.services.values().next().unwrap()
}

#[test]
fn annotations_choose_the_algorithm_and_are_followed_live() {
    let mut fixture = Fixture::started();
    fixture.slice("a-1", "a", two_endpoints());
    let mut texts = String::new();
    for (annotations, rows) in [
        (json!({"beeline.io/algorithm": "maglev"}), 4),
        (json!({"beeline.io/algorithm": "round-robin"}), 1),
        (json!({"beeline.io/algorithm": "least-connections"}), 1),
        (json!({"beeline.io/direct-server-return": "true"}), 1),
        (json!({}), 1),
    ] {
        assert_eq!(fixture.object(annotated("a", "10.96.0.10", annotations)), rows);
        texts += &fixture.model.text();
    }
    expect![[r#"
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] maglev
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] round-robin
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] least-connections
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080] local [10.244.0.5:8080(local)] maglev dsr
        10.96.0.10:80/TCP -> [10.244.0.5:8080(local) 10.244.1.6:8080]
    "#]]
    .assert_eq(&texts);
}

#[test]
fn only_maglev_services_have_tables_and_only_a_local_policy_has_a_local_one() {
    let mut fixture = Fixture::started();
    fixture.slice("a-1", "a", two_endpoints());
    fixture.object(annotated("a", "10.96.0.10", json!({})));
    assert_eq!((row(&fixture).maglev_cluster.len(), row(&fixture).maglev_local.len()), (0, 0));
    let mut object = annotated("a", "10.96.0.10", json!({"beeline.io/algorithm": "maglev"}));
    fixture.object(object.clone());
    assert_eq!((row(&fixture).maglev_cluster.len(), row(&fixture).maglev_local.len()), (1_021, 0));
    object["spec"]["internalTrafficPolicy"] = json!("Local");
    object["metadata"]["annotations"]["beeline.io/maglev-size"] = json!("4093");
    fixture.object(object);
    assert_eq!((row(&fixture).maglev_cluster.len(), row(&fixture).maglev_local.len()), (4_093, 4_093));
    assert!(row(&fixture).maglev_local.iter().all(|position| *position == 0), "one local endpoint");
}

#[test]
fn a_table_is_the_same_whatever_the_order_of_events_and_the_node() {
    let build = |node: &str, order: [usize; 2]| {
        let mut fixture = Fixture { tables: Tables::new(node), model: Model::default(), now: 0 };
        let diff = fixture.tables.start(0);
        fixture.take(diff);
        fixture.service("other", cluster_ip("10.96.0.9"));
        fixture.slice("other-1", "other", pods(1 + order[0]));
        let slices = [("a-1", two_endpoints()), ("a-2", pods(5))];
        for index in order {
            let (name, endpoints) = slices[index].clone();
            fixture.slice(name, "a", endpoints);
        }
        fixture.object(annotated("a", "10.96.0.10", json!({"beeline.io/algorithm": "maglev"})));
        let rows = fixture.model.services.values().filter(|row| row.flags != 0);
        rows.map(|row| row.maglev_cluster.clone()).next().unwrap()
    };
    assert_eq!(build("here", [0, 1]), build("there", [1, 0]));
}

#[test]
fn a_table_keeps_its_size_while_an_endpoint_comes_and_goes_and_across_a_restart() {
    let mut fixture = Fixture::started();
    fixture.object(annotated("a", "10.96.0.10", json!({"beeline.io/algorithm": "maglev"})));
    let mut sizes = Vec::new();
    for count in [10, 11, 10, 0, 8, 7] {
        fixture.slice("a-1", "a", pods(count));
        sizes.push(row(&fixture).maglev_cluster.len());
    }
    assert_eq!(sizes, [1_021, 4_093, 4_093, 0, 4_093, 1_021]);
    fixture.slice("a-1", "a", pods(11));
    fixture.slice("a-1", "a", pods(9));

    let mut after = Fixture::new();
    after.tables.adopt(fixture.model.learned());
    after.model = Model { adopted: true, ..fixture.model };
    after.object(annotated("a", "10.96.0.10", json!({"beeline.io/algorithm": "maglev"})));
    after.slice("a-1", "a", pods(9));
    let diff = after.tables.start(0);
    after.take(diff);
    assert_eq!(row(&after).maglev_cluster.len(), 4_093);
}

#[test]
fn a_slices_weight_repeats_its_endpoints_in_runs_and_tables() {
    let mut fixture = Fixture::started();
    fixture.object(annotated("a", "10.96.0.10", json!({"beeline.io/algorithm": "maglev"})));
    fixture.slice("a-1", "a", pods(1));
    let mut heavy = slice("a-2", "a", "IPv4", 8080, json!([{"addresses": ["10.244.2.1"]}]));
    heavy.metadata.annotations = Some([("beeline.io/weight".to_owned(), "3".to_owned())].into());
    let diff = fixture.tables.slice_applied(&heavy, 0);
    fixture.take(diff);
    fixture.check(expect![[r#"
        10.96.0.10:80/TCP -> [10.244.1.0:8080 10.244.2.1:8080 10.244.2.1:8080 10.244.2.1:8080] maglev
    "#]]);
    let table = &row(&fixture).maglev_cluster;
    let light = table.iter().filter(|position| **position == 0).count();
    assert_eq!((light, table.len() - light), (255, 766));
}
