//! The binary and its etcd, killed in turn: objects stay, watches resume, no second etcd.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::control::{Control, eventually};

/// ConfigMaps of the default namespace, once they can be read.
async fn config_maps(control: &Control) -> Api<ConfigMap> {
    let api: Api<ConfigMap> = Api::namespaced(control.client().await, "default");
    eventually("objects can be read", async || api.get_opt("none").await.ok()).await;
    api
}

fn named(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object
}

async fn create(objects: &Api<ConfigMap>, name: &str) -> String {
    let made = eventually("a write succeeds", async || {
        match objects.create(&PostParams::default(), &named(name)).await {
            Ok(made) => Some(made),
            // A write whose answer was lost is there all the same.
            Err(_) => objects.get_opt(name).await.ok().flatten(),
        }
    });
    made.await.metadata.resource_version.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_etcd_or_the_control_plane_loses_nothing() {
    let Some(mut control) = Control::start() else { return };
    let objects = config_maps(&control).await;
    let first = create(&objects, "a").await;
    let etcd = control.etcd().unwrap();

    kill_process(etcd, Signal::KILL).unwrap();
    create(&objects, "b").await;
    let second = control.etcd().unwrap();
    assert_ne!(etcd, second, "another etcd was started");

    control.kill();
    assert!(test_kill_process(second).is_ok(), "etcd outlives the control plane");
    control.restart();
    let objects = config_maps(&control).await;
    assert_eq!(control.etcd(), Some(second), "the running etcd was adopted, not joined by a second");
    create(&objects, "c").await;
    // A client that had seen `first` resumes there, at a server that was not yet running then.
    let mut events = objects.watch(&WatchParams::default().timeout(20), &first).await.unwrap().boxed();
    for name in ["b", "c"] {
        loop {
            match events.next().await.unwrap().unwrap() {
                WatchEvent::Added(object) if object.metadata.name.as_deref() == Some(name) => break,
                // What the controllers put into every namespace.
                WatchEvent::Added(_) | WatchEvent::Bookmark(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    control.kill();
    kill_process(second, Signal::KILL).unwrap();
    control.restart();
    let objects = config_maps(&control).await;
    for name in ["a", "b", "c"] {
        assert!(objects.get_opt(name).await.unwrap().is_some(), "{name} is lost");
    }

    let last = control.etcd().unwrap();
    kill_process(Pid::from_raw(i32::try_from(control.process.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(control.process.wait().unwrap().success(), "SIGTERM ends it in order");
    assert!(test_kill_process(last).is_err(), "and its etcd with it");
}
