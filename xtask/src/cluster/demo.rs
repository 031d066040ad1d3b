//! The end of `up`: applies the example and asks it on all three ways, over both families, counting who answered.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::cluster::kubectl;
use crate::cluster::plan::{self, Plan, url_host};
use crate::place::Place;
use crate::{shell, tree};

/// Requests on each way and family.
const REQUESTS: usize = 20;

/// Where a request starts.
enum From<'a> {
    Pod,
    Place(&'a Place),
}

/// Applies `manifests/examples/echo.yaml`, waits for it, and prints how many answers each backend gave on each way.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    apply(&tree::root().join("manifests/examples/echo.yaml"))?;
    println!("{REQUESTS} requests to `echo` on each way: answers by node and pod");
    let cluster_ips = field(&["get", "service", "echo"], "{.spec.clusterIPs[*]}")?;
    let node = &plan.nodes()[0];
    let host = node.host();
    let client = Place { namespace: Some(plan::CLIENT.to_owned()), cgroup: None };
    for address in cluster_ips.split_whitespace() {
        let address = address.parse().with_context(|| format!("clusterIP {address}"))?;
        if !plan.serves(address) {
            continue;
        }
        let url = format!("http://{}/", url_host(address));
        report("pod, ClusterIP", &url, &From::Pod)?;
        report("node, ClusterIP", &url, &From::Place(&host))?;
    }
    for address in node.addresses.into_iter().filter(|address| plan.serves(*address)) {
        report("client, NodePort", &format!("http://{}:30080/", url_host(address)), &From::Place(&client))?;
    }
    Ok(())
}

fn apply(manifest: &std::path::Path) -> Result<()> {
    kubectl::output(["apply".as_ref(), "-f".as_ref(), manifest.as_os_str()])?;
    kubectl::output(["rollout", "status", "deployment/echo", "--timeout=90s"])?;
    kubectl::output(["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"])?;
    Ok(())
}

/// One JSONPath of what `kubectl ARGUMENTS` returns.
pub(crate) fn field(arguments: &[&str], path: &str) -> Result<String> {
    let output = format!("-o=jsonpath={path}");
    kubectl::output(arguments.iter().copied().chain([output.as_str()]))
}

fn report(way: &str, url: &str, from: &From<'_>) -> Result<()> {
    let answers = ask(url, REQUESTS, from).with_context(|| format!("{way}: {url}"))?;
    let shares: Vec<_> = answers.iter().map(|(backend, count)| format!("{backend}: {count}")).collect();
    println!("  {way:<17} {url:<34} {}", shares.join(", "));
    let total: usize = answers.values().sum();
    if total != REQUESTS {
        bail!("{way}: {total} of {REQUESTS} requests to {url} were answered");
    }
    Ok(())
}

/// Sends `count` requests one after another; answers by `node/pod`.
fn ask(url: &str, count: usize, from: &From<'_>) -> Result<BTreeMap<String, usize>> {
    let script = format!("for i in $(seq {count}); do timeout 5 wget -q -O - {url} || true; done");
    let output = match from {
        From::Pod => kubectl::output(["exec", "shell", "--", "/bin/sh", "-c", &script])?,
        From::Place(place) => place.run(|| {
            let mut shell = place.command("/bin/busybox")?;
            shell::quiet(shell.args(["sh", "-c", &script]))
        })?,
    };
    Ok(count_backends(&output))
}

fn count_backends(output: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in output.lines() {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        if let (Some(pod), Some(node)) = (value("pod="), value("node=")) {
            *counts.entry(format!("{node}/{pod}")).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_node_and_pod() {
        let output = "pod=a node=n1 client=1 port=2\nnoise\npod=b node=n2 client=1 port=2\npod=a node=n1 client=1 port=3\n";
        let counts = count_backends(output);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("n1/a".to_owned(), 2), ("n2/b".to_owned(), 1)]);
    }
}
