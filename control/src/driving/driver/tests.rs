//! The driver against a fake API whose objects reach the view only when a test says so.
#![allow(clippy::unwrap_used)]

use controllers::replicaset;
use http::Method;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use super::*;
use crate::driving::testkit::FakeApi;

const REPLICA_SETS: Controller =
    Controller { name: "replicaset-controller", watches: replicaset::WATCHES, plan: replicaset::plan };

const PODS: &str = "POST /api/v1/namespaces/default/pods";
const STATUS: &str = "PUT /apis/apps/v1/namespaces/default/replicasets/web/status";

struct Bench {
    api: FakeApi,
    view: Arc<View>,
    queue: Arc<Queue<Key>>,
    key: Key,
    _driver: tokio_util::task::AbortOnDropHandle<JoinError>,
}

/// A ReplicaSet of `replicas` pods, and a driver for it.
fn bench(replicas: i32) -> Bench {
    let (api, view, queue) = (FakeApi::default(), Arc::new(View::default()), Arc::new(Queue::default()));
    let labels = std::collections::BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let template_meta = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
    view.replica_sets.apply(ReplicaSet {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            uid: Some("uid-web".into()),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            selector: LabelSelector { match_labels: Some(labels), match_expressions: None },
            template: Some(PodTemplateSpec { metadata: Some(template_meta), spec: Some(Default::default()) }),
            min_ready_seconds: None,
        }),
        status: None,
    });
    let recorder = Recorder::new(api.client(), "test", None);
    let driver =
        Driver::new(&REPLICA_SETS, view.clone(), Arc::default(), api.client(), &recorder, queue.clone());
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(driver.run()));
    Bench { api, view, queue, key: Key::new("default", "web"), _driver: driver }
}

impl Bench {
    /// The watch catches up with what was written.
    fn catch_up(&self) {
        for object in self.api.objects("/api/v1/namespaces/default/pods/") {
            self.view.pods.apply(serde_json::from_value::<Pod>(object).unwrap());
        }
        for object in self.api.objects("/apis/apps/v1/namespaces/default/replicasets/") {
            self.view.replica_sets.apply(serde_json::from_value(object).unwrap());
        }
    }
}

#[tokio::test]
async fn a_slow_watch_never_makes_a_controller_create_twice() {
    let bench = bench(5);
    bench.queue.add(bench.key.clone());
    bench.api.wait_for(STATUS, 1).await;
    for _ in 0..20 {
        bench.queue.add(bench.key.clone());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(bench.api.requests(PODS).len(), 5);
    bench.catch_up();
    bench.queue.add(bench.key.clone());
    bench.api.wait_for(STATUS, 2).await;
    assert_eq!(bench.api.requests(PODS).len(), 5, "with its own pods in view there is nothing to create");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_status_and_tried_again() {
    let bench = bench(3);
    bench.api.refuse(Method::POST, "Forbidden", "exceeded quota");
    bench.queue.add(bench.key.clone());
    bench.api.wait_for(STATUS, 1).await;
    bench.catch_up();
    bench.queue.add(bench.key.clone());
    bench.api.wait_for(STATUS, 2).await;
    assert!(bench.api.requests(PODS).len() <= 3, "slow start tries one pod at a time while creation fails");
    let set: Value = bench.api.objects("/apis/apps/v1/namespaces/default/replicasets/web").remove(0);
    let condition = &set["status"]["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["message"].as_str()),
        (Some("ReplicaFailure"), Some("exceeded quota"))
    );
}
