//! Services, pods and slices as small fixtures; slices as text.
#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;
use crate::fake::{Cluster, Fixture, metadata, pod_line};

fn service(families: &[&str]) -> Service {
    Service {
        metadata: metadata("web"),
        spec: Some(ServiceSpec {
            selector: Fixture::selector().match_labels,
            ip_families: Some(families.iter().map(ToString::to_string).collect()),
            cluster_ip: Some("10.96.0.9".into()),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: 80,
                target_port: Some(IntOrString::String("http".into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slices(cluster: &Cluster) -> String {
    let mut text = String::new();
    for slice in cluster.view.endpoint_slices.all() {
        let ports: Vec<String> =
            slice.ports.iter().flatten().map(|it| it.port.unwrap().to_string()).collect();
        text += &format!("{} [{}]", slice.address_type, ports.join(","));
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap();
            let flag = |name: &'static str, it: Option<bool>| if it == Some(true) { name } else { "" };
            text += &format!(
                " {}={}{}{}",
                endpoint.addresses.join("/"),
                flag("r", conditions.ready),
                flag("s", conditions.serving),
                flag("t", conditions.terminating)
            );
        }
        text += "\n";
    }
    text
}

fn check(service: Service, pods: &[&str], want: Expect) {
    let mut cluster = Cluster::default();
    cluster.add(&service);
    pods.iter().for_each(|it| cluster.add(&pod_line(it, None)));
    cluster.run(plan, "web");
    want.assert_eq(&slices(&cluster));
    assert_eq!(cluster.run(plan, "web"), 0, "a second plan has nothing to do");
}

#[test]
fn both_families_and_all_three_conditions() {
    check(
        service(&["IPv4", "IPv6"]),
        &[
            "a n1 Ready 5m",
            "b n2 Running 1m",
            "c n2 Ready 1m terminating",
            "d - Pending 1s",
            "e n1 Failed 1m",
        ],
        expect![[r#"
            IPv4 [8080] 10.0.0.97=rs 10.0.0.98= 10.0.0.99=st
            IPv6 [8080] fd00::97=rs fd00::98= fd00::99=st
        "#]],
    );
}

#[test]
fn without_endpoints_there_is_one_empty_slice() {
    check(
        service(&["IPv4"]),
        &[],
        expect![[r#"
        IPv4 []
    "#]],
    );
}

#[test]
fn publish_not_ready_addresses_makes_all_ready() {
    let mut it = service(&["IPv4"]);
    it.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    check(
        it,
        &["a n1 Running 1s"],
        expect![[r#"
        IPv4 [8080] 10.0.0.97=r
    "#]],
    );
}

#[test]
fn a_pod_that_turns_ready_costs_one_write_and_keeps_its_place() {
    let mut cluster = Cluster::default();
    cluster.add(&service(&["IPv4"]));
    for name in ["a", "b", "c"] {
        cluster.add(&pod_line(&format!("{name} n1 Running 1m"), None));
    }
    cluster.run(plan, "web");
    cluster.add(&pod_line("b n1 Ready 1s", None));
    assert_eq!(cluster.run(plan, "web"), 1);
    expect![[r#"
        IPv4 [8080] 10.0.0.97= 10.0.0.98=rs 10.0.0.99=
    "#]]
    .assert_eq(&slices(&cluster));
}

#[test]
fn the_empty_slice_is_filled_when_the_first_pod_comes() {
    let mut cluster = Cluster::default();
    cluster.add(&service(&["IPv4"]));
    cluster.run(plan, "web");
    let before = cluster.view.endpoint_slices.all()[0].metadata.name.clone();
    cluster.add(&pod_line("a n1 Ready 1s", None));
    assert_eq!(cluster.run(plan, "web"), 1);
    assert_eq!(cluster.view.endpoint_slices.all()[0].metadata.name, before);
    expect![[r#"
        IPv4 [8080] 10.0.0.97=rs
    "#]]
    .assert_eq(&slices(&cluster));
}

#[test]
fn no_slice_holds_more_than_a_hundred_and_a_loss_touches_one() {
    let mut cluster = Cluster::default();
    cluster.add(&service(&["IPv4"]));
    (0..250).for_each(|it| cluster.add(&pod_line(&format!("p{it} n1 Ready 1m"), None)));
    cluster.run(plan, "web");
    let mut sizes: Vec<usize> =
        cluster.view.endpoint_slices.all().iter().map(|it| it.endpoints.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    let pod = cluster.view.pods.get("default", "p17").unwrap();
    cluster.view.pods.remove(&pod);
    assert_eq!(cluster.run(plan, "web"), 1);
    assert_eq!(cluster.run(plan, "web"), 0);
}

#[test]
fn changes_that_do_not_matter_wake_nobody() {
    let cluster = Cluster::default();
    cluster.view.services.apply(service(&["IPv4"]));
    let pod = |line| Some(std::sync::Arc::new(pod_line(line, None)));
    let woken = |old, new| of_pod(&cluster.view, &Change { old: pod(old), new: pod(new) }).len();
    assert_eq!(woken("a n1 Ready 1m", "a n1 Ready 1m"), 0);
    assert_eq!(woken("a n1 Running 1m", "a n1 Ready 1m"), 1);
    assert_eq!(woken("a n1 Ready 1m", "a n1 Ready 1m terminating"), 1);
}
