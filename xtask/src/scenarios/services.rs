//! The example answers from a pod, from a node, and from outside through a NodePort; over both families, over TCP and
//! UDP, and from backends on both nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};

use super::{Report, contains, kubectl_words, traffic};
use crate::cluster::demo;
use crate::cluster::plan::{Plan, url_host};

pub(super) fn run(plan: &Plan, report: &mut Report) {
    report.check("the example answers on all three ways", || demo::run(plan));
    report.check("answers come from backends on both nodes", || both_nodes(plan));
    for address in plan.nodes()[1].addresses {
        report.check(&format!("a NodePort answers datagrams on {address}"), || {
            let answer = traffic::datagram(plan, &traffic::client(), (address, 30090).into(), "ping")?;
            contains(&answer, &["pod=echo-", "got=ping"])
        });
    }
    report.check("a ClusterIP answers datagrams", || {
        let answer = traffic::datagram(plan, &traffic::host(plan, 0), (cluster_ip()?, 9090).into(), "ping")?;
        contains(&answer, &["pod=echo-", "got=ping"])
    });
    report.check("a pod reaches itself through its service", || hairpin(plan));
    report.check("a service without endpoints refuses at once", || {
        kubectl_words("create service clusterip nobody --tcp=80:80")?;
        let ip = demo::field(&["get", "service", "nobody"], "{.spec.clusterIP}")?;
        let script = format!("timeout 5 wget -O - http://{ip}/ 2>&1; true");
        let said = crate::cluster::kubectl::output(["exec", "shell", "--", "/bin/sh", "-c", &script])?;
        kubectl_words("delete service nobody")?;
        contains(&said, &["onnection refused"])
    });
}

fn cluster_ip() -> Result<IpAddr> {
    demo::field(&["get", "service", "echo"], "{.spec.clusterIP}")?.parse().context("the clusterIP of echo")
}

fn both_nodes(plan: &Plan) -> Result<()> {
    let url = format!("http://{}/", url_host(cluster_ip()?));
    let mut nodes = BTreeSet::new();
    for _ in 0..40 {
        let answer = traffic::get(&traffic::host(plan, 0), &url)?;
        nodes.extend(
            answer.split_whitespace().filter_map(|word| word.strip_prefix("node=")).map(str::to_owned),
        );
    }
    if nodes.len() != 2 {
        bail!("40 answers came from {nodes:?}");
    }
    Ok(())
}

/// A pod that is its service's only endpoint asks its service.
fn hairpin(_plan: &Plan) -> Result<()> {
    kubectl_words(
        "run alone --image=busybox --image-pull-policy=Never --port=80 --expose --command -- httpd -f -p 80",
    )?;
    let result = (|| {
        kubectl_words("wait --for=condition=Ready pod/alone --timeout=30s")?;
        let ip = demo::field(&["get", "service", "alone"], "{.spec.clusterIP}")?;
        super::eventually(std::time::Duration::from_secs(10), || {
            let script = format!(
                "echo self > /tmp/page; cd /tmp; timeout 2 wget -O - http://{ip}/tmp/page 2>&1; true"
            );
            let said = crate::cluster::kubectl::output(["exec", "alone", "--", "/bin/sh", "-c", &script])?;
            contains(&said, &["self"])
        })
    })();
    kubectl_words("delete pod,service alone --grace-period=1")?;
    result
}
