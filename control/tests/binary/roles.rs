//! The roles beside the API server, joined to what they decide: a Deployment becomes pods, the scheduler speaks of them, and what
//! loses its owner or its namespace goes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::control::{Control, eventually};

async fn deploy(client: &Client, name: &str) {
    let labels = json!({"app": name});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "echo"}]},
            },
        },
    }))
    .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "test");
    eventually("the namespace takes pods", async || {
        deployments.create(&PostParams::default(), &deployment).await.ok()
    })
    .await;
}

/// Waits until there are `count` pods; without a node the scheduler has to refuse each.
async fn pods(client: &Client, count: usize) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "test");
    let refused = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default();
        conditions
            .iter()
            .any(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("Unschedulable"))
    };
    eventually(&format!("{count} pods, each refused by the scheduler"), async || {
        let found = pods.list(&ListParams::default()).await.ok()?.items;
        (found.len() == count && found.iter().all(refused)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_pods_and_leaves_nothing_behind() {
    let Some(control) = Control::start() else { return };
    let client = control.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "test"}})).unwrap();
    eventually("a namespace is made", async || {
        namespaces.create(&PostParams::default(), &namespace).await.ok()
    })
    .await;

    deploy(&client, "a").await;
    pods(&client, 2).await;
    deploy(&client, "b").await;
    pods(&client, 4).await;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "test");
    deployments.delete("a", &DeleteParams::background()).await.unwrap();
    pods(&client, 2).await;

    namespaces.delete("test", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || match namespaces.get_opt("test").await {
        Ok(None) => Some(()),
        _ => None,
    })
    .await;
    pods(&client, 0).await;
}
