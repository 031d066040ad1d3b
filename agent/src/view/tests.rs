//! Sequences of events, and what they publish: rows counted in a model of the tables.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use serde_json::json;
use service::{FrontendKey, ServiceRow};

use super::*;

/// What has been published.
#[derive(Default)]
struct Published {
    frontends: HashMap<FrontendKey, u32>,
    services: HashMap<u32, ServiceRow>,
}

impl Published {
    fn apply(&mut self, changes: Changes) -> &mut Self {
        for diff in changes.diffs {
            for (key, row) in diff.frontends {
                match row {
                    Some(row) => drop(self.frontends.insert(key, row.service)),
                    None => drop(self.frontends.remove(&key)),
                }
            }
            for (id, row) in diff.services {
                match row {
                    Some(row) => drop(self.services.insert(id, row)),
                    None => drop(self.services.remove(&id)),
                }
            }
        }
        self
    }

    /// `address:port=backends`, sorted.
    fn text(&self) -> Vec<String> {
        let backends = |id| self.services.get(id).map_or(0, |row| row.cluster.len());
        let mut lines: Vec<String> =
            self.frontends.iter().map(|(key, id)| format!("{key}={}", backends(id))).collect();
        lines.sort();
        lines
    }
}

fn service(namespace: &str, name: &str, address: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]},
    }))
    .unwrap()
}

fn slice(namespace: &str, service: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints.iter().map(|address| json!({"addresses": [address]})).collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    }))
    .unwrap()
}

fn node(name: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

/// A view that has listed two services with an endpoint each, and what it has published.
fn started() -> (View, Published) {
    let (mut view, mut published) = (View::new("n", Learned::default(), false), Published::default());
    for (name, address) in [("kubernetes", "10.96.0.1"), ("web", "10.96.0.2")] {
        published.apply(view.service(Event::InitApply(service("default", name, address)), 0));
        published.apply(view.slice(Event::InitApply(slice("default", name, &["10.0.0.1"])), 0));
    }
    published.apply(view.service(Event::InitDone, 0));
    published.apply(view.slice(Event::InitDone, 0));
    view.node(Event::InitApply(node("n")));
    view.node(Event::InitDone);
    assert!(view.can_start());
    published.apply(view.start(0).into());
    assert_eq!(published.text(), ["10.96.0.1:80/TCP=1", "10.96.0.2:80/TCP=1"]);
    (view, published)
}

#[test]
fn nothing_is_published_before_every_list_is_complete() {
    let mut view = View::new("n", Learned::default(), true);
    let mut published = Published::default();
    published.apply(view.service(Event::Init, 0));
    published.apply(view.service(Event::InitApply(service("default", "web", "10.96.0.2")), 0));
    published.apply(view.service(Event::InitDone, 0));
    published.apply(view.slice(Event::InitApply(slice("default", "web", &["10.0.0.1"])), 0));
    assert!(!view.can_start(), "slices and nodes");
    published.apply(view.slice(Event::InitDone, 0));
    assert!(!view.can_start(), "nodes");
    assert!(!view.node(Event::InitApply(node("n"))).nodes, "not before the list is complete");
    assert!(view.node(Event::InitDone).nodes);
    assert!(!view.can_start(), "host ports");
    assert_eq!(published.text(), [] as [&str; 0]);
    view.host_ports_complete();
    assert!(view.can_start());
    published.apply(view.start(0).into());
    assert_eq!(published.text(), ["10.96.0.2:80/TCP=1"]);
    assert!(!view.can_start(), "once");
}

#[test]
fn a_list_that_is_read_again_removes_at_its_end_what_it_no_longer_names() {
    let (mut view, mut published) = started();
    published.apply(view.service(Event::Init, 0));
    published.apply(view.service(Event::InitApply(service("default", "kubernetes", "10.96.0.1")), 0));
    assert_eq!(published.text().len(), 2, "not before the end");
    published.apply(view.service(Event::InitDone, 0));
    assert_eq!(published.text(), ["10.96.0.1:80/TCP=1"]);
}

#[test]
fn a_partial_view_leaves_the_api_servers_own_service_its_backends() {
    let (mut view, mut published) = started();
    // A list without any slice: what an API server says whose store is empty or half restored.
    published.apply(view.slice(Event::Init, 0));
    published.apply(view.slice(Event::InitDone, 0));
    assert_eq!(published.text(), ["10.96.0.1:80/TCP=1", "10.96.0.2:80/TCP=0"]);
    published.apply(view.slice(Event::Apply(slice("default", "kubernetes", &[])), 0));
    assert_eq!(published.text()[0], "10.96.0.1:80/TCP=1");
    published.apply(view.slice(Event::Apply(slice("default", "kubernetes", &["10.0.0.2", "10.0.0.3"])), 0));
    assert_eq!(published.text()[0], "10.96.0.1:80/TCP=2", "and new ones are taken");
}

#[test]
fn nodes_keep_their_numbers_and_only_their_network_matters() {
    let (mut view, _) = started();
    let tainted: Node = serde_json::from_value(json!({
        "metadata": {"name": "n", "annotations": {"any": "thing"}}, "status": {"conditions": []}
    }))
    .unwrap();
    assert!(!view.node(Event::Apply(tainted)).nodes, "nothing of the network changed");
    assert!(view.node(Event::Apply(node("m"))).nodes);
    assert!(view.node(Event::Delete(node("n"))).nodes);
    assert!(view.node(Event::Apply(node("o"))).nodes);
    let numbers: Vec<_> = view.nodes().iter().map(|(name, (number, _))| (name.as_str(), *number)).collect();
    assert_eq!(numbers, [("m", 2), ("o", 1)]);
}
