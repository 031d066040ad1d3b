//! The real kubectl, command by command: a table of command lines and what each must print.
//!
//! Commands that stream (logs, exec, attach, cp, watches) are in `kubectl_streams`.

use std::time::Duration;

use anyhow::Result;

use super::{Report, contains, eventually, fails, kubectl_with, kubectl_words};
use crate::cluster::kubectl;
use crate::cluster::plan::Plan;

/// One command line: its name in the report, its words, and texts that its output must hold.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Run in this order; each row finds what the rows before it made.
const ROWS: &[Row] = &[
    (
        "get nodes -o wide",
        &["get", "nodes", "-o", "wide"],
        &["STATUS", "INTERNAL-IP", "node1", "Ready", "containerd://"],
    ),
    (
        "api-resources",
        &["api-resources"],
        &["SHORTNAMES", "deployments", "deploy", "apps/v1", "true", "Deployment"],
    ),
    ("api-versions", &["api-versions"], &["apps/v1", "discovery.k8s.io/v1", "rbac.authorization.k8s.io/v1"]),
    ("version", &["version"], &["Server Version: v1.35"]),
    ("cluster-info", &["cluster-info"], &["Kubernetes control plane", "is running at"]),
    (
        "explain",
        &["explain", "deployment.spec.strategy.rollingUpdate"],
        &["maxSurge", "maxUnavailable", "FIELDS"],
    ),
    (
        "explain --recursive",
        &["explain", "pod.spec.containers", "--recursive"],
        &["livenessProbe", "httpGet"],
    ),
    ("create namespace", &["create", "namespace", "kc"], &["namespace/kc created"]),
    (
        "create configmap",
        &["-n", "kc", "create", "configmap", "cm", "--from-literal=a=1"],
        &["configmap/cm created"],
    ),
    (
        "create secret",
        &["-n", "kc", "create", "secret", "generic", "s", "--from-literal=k=v"],
        &["secret/s created"],
    ),
    (
        "create serviceaccount",
        &["-n", "kc", "create", "serviceaccount", "robot"],
        &["serviceaccount/robot created"],
    ),
    ("create token", &["-n", "kc", "create", "token", "robot"], &["eyJ"]),
    (
        "create role",
        &["-n", "kc", "create", "role", "reader", "--verb=get,list", "--resource=pods"],
        &["role.rbac.authorization.k8s.io/reader created"],
    ),
    (
        "create rolebinding",
        &["-n", "kc", "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=kc:robot"],
        &["rolebinding.rbac.authorization.k8s.io/reader created"],
    ),
    ("auth can-i, yes", &["auth", "can-i", "create", "deployments"], &["yes"]),
    (
        "auth can-i for another, yes",
        &["-n", "kc", "auth", "can-i", "list", "pods", "--as=system:serviceaccount:kc:robot"],
        &["yes"],
    ),
    ("auth whoami", &["auth", "whoami"], &["Username", "Groups", "system:masters"]),
    (
        "create deployment",
        &[
            "-n",
            "kc",
            "create",
            "deployment",
            "web",
            "--image=echo",
            "--replicas=2",
            "--port=8080",
            "--dry-run=client",
            "-o",
            "yaml",
        ],
        &["kind: Deployment", "image: echo"],
    ),
    ("get (table)", &["-n", "kc", "get", "configmaps"], &["NAME", "DATA", "AGE", "cm", "kube-root-ca.crt"]),
    (
        "get -o yaml",
        &["-n", "kc", "get", "configmap", "cm", "-o", "yaml"],
        &["apiVersion: v1", "a: \"1\"", "uid:"],
    ),
    (
        "get -o json",
        &["-n", "kc", "get", "configmap", "cm", "-o", "json"],
        &["\"kind\": \"ConfigMap\"", "\"a\": \"1\""],
    ),
    ("get -o jsonpath", &["-n", "kc", "get", "configmap", "cm", "-o", "jsonpath={.data.a}"], &["1"]),
    ("label", &["-n", "kc", "label", "configmap", "cm", "tier=gold"], &["configmap/cm labeled"]),
    (
        "get -l",
        &["-n", "kc", "get", "configmaps", "-l", "tier in (gold,silver)", "-o", "name"],
        &["configmap/cm"],
    ),
    ("annotate", &["-n", "kc", "annotate", "configmap", "cm", "note=here"], &["configmap/cm annotated"]),
    (
        "get --field-selector",
        &["-n", "kc", "get", "configmaps", "--field-selector", "metadata.name=cm", "-o", "name"],
        &["configmap/cm"],
    ),
    ("get -A", &["get", "services", "-A"], &["NAMESPACE", "default", "kubernetes", "443/TCP"]),
    (
        "patch (merge)",
        &["-n", "kc", "patch", "configmap", "cm", "--type=merge", "-p", r#"{"data":{"b":"2"}}"#],
        &["configmap/cm patched"],
    ),
    (
        "patch (json)",
        &[
            "-n",
            "kc",
            "patch",
            "configmap",
            "cm",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/data/a","value":"3"}]"#,
        ],
        &["configmap/cm patched"],
    ),
    (
        "the patches held",
        &["-n", "kc", "get", "configmap", "cm", "-o", "jsonpath={.data}"],
        &[r#""a":"3""#, r#""b":"2""#],
    ),
    (
        "describe node",
        &["describe", "node", "node1"],
        &["Capacity:", "Allocatable:", "Conditions:", "KubeletReady", "PodCIDR"],
    ),
    ("describe service", &["describe", "service", "kubernetes"], &["Endpoints:", "6443"]),
    ("taint", &["taint", "node", "node2", "kc=1:NoSchedule"], &["node/node2 tainted"]),
    ("untaint", &["taint", "node", "node2", "kc-"], &["node/node2 untainted"]),
    ("cordon", &["cordon", "node2"], &["node/node2 cordoned"]),
    ("a cordoned node shows it", &["get", "node", "node2"], &["Ready,SchedulingDisabled"]),
    ("uncordon", &["uncordon", "node2"], &["node/node2 uncordoned"]),
];

/// After the deployment `web` of two pods is there.
const WORKLOAD_ROWS: &[Row] = &[
    (
        "get pods -o wide",
        &["-n", "kc", "get", "pods", "-o", "wide"],
        &["READY", "1/1", "Running", "10.244.", "node", "NOMINATED NODE"],
    ),
    ("get deployments", &["-n", "kc", "get", "deployments"], &["UP-TO-DATE", "AVAILABLE", "2/2"]),
    ("get replicasets", &["-n", "kc", "get", "rs"], &["DESIRED", "CURRENT", "READY"]),
    ("get all", &["-n", "kc", "get", "all"], &["pod/web-", "deployment.apps/web", "replicaset.apps/web-"]),
    (
        "expose",
        &["-n", "kc", "expose", "deployment", "web", "--port=80", "--target-port=8080"],
        &["service/web exposed"],
    ),
    (
        "describe deployment",
        &["-n", "kc", "describe", "deployment", "web"],
        &["RollingUpdate", "NewReplicaSet:", "ScalingReplicaSet", "Scaled up replica set"],
    ),
    (
        "describe pod",
        &["-n", "kc", "describe", "pod", "-l", "app=web"],
        &["Successfully assigned kc/web-", "Started", "kube-api-access-", "QoS Class:"],
    ),
    (
        "get events",
        &["-n", "kc", "get", "events"],
        &["LAST SEEN", "Scheduled", "SuccessfulCreate", "Created", "Started"],
    ),
    ("scale", &["-n", "kc", "scale", "deployment", "web", "--replicas=3"], &["deployment.apps/web scaled"]),
    (
        "rollout status",
        &["-n", "kc", "rollout", "status", "deployment/web", "--timeout=60s"],
        &["successfully rolled out"],
    ),
    (
        "patch (strategic)",
        &[
            "-n",
            "kc",
            "patch",
            "deployment",
            "web",
            "-p",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"COLOUR","value":"blue"}]}]}}}}"#,
        ],
        &["deployment.apps/web patched"],
    ),
    (
        "the strategic patch kept the image",
        &["-n", "kc", "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"],
        &["echo"],
    ),
    (
        "rollout status after the change",
        &["-n", "kc", "rollout", "status", "deployment/web", "--timeout=60s"],
        &["successfully rolled out"],
    ),
    ("rollout history", &["-n", "kc", "rollout", "history", "deployment/web"], &["REVISION", "1", "2"]),
    (
        "rollout restart",
        &["-n", "kc", "rollout", "restart", "deployment/web"],
        &["deployment.apps/web restarted"],
    ),
    (
        "rollout status after the restart",
        &["-n", "kc", "rollout", "status", "deployment/web", "--timeout=60s"],
        &["successfully rolled out"],
    ),
    (
        "rollout undo",
        &["-n", "kc", "rollout", "undo", "deployment/web", "--to-revision=1"],
        &["deployment.apps/web rolled back"],
    ),
    (
        "rollout status after the undo",
        &["-n", "kc", "rollout", "status", "deployment/web", "--timeout=60s"],
        &["successfully rolled out"],
    ),
    (
        "the undo took the variable away",
        &["-n", "kc", "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env}/"],
        &["/"],
    ),
    (
        "set image",
        &["-n", "kc", "set", "image", "deployment/web", "web=docker.io/library/echo:latest"],
        &["image updated"],
    ),
    (
        "wait",
        &["-n", "kc", "wait", "--for=condition=Available", "deployment/web", "--timeout=60s"],
        &["condition met"],
    ),
    ("run", &["-n", "kc", "run", "one", "--image=echo", "--image-pull-policy=Never"], &["pod/one created"]),
    (
        "wait for a pod",
        &["-n", "kc", "wait", "--for=condition=Ready", "pod/one", "--timeout=30s"],
        &["pod/one condition met"],
    ),
    (
        "delete a pod",
        &["-n", "kc", "delete", "pod", "one", "--grace-period=1", "--timeout=30s"],
        &["pod \"one\" deleted"],
    ),
];

pub(super) fn run(_plan: &Plan, report: &mut Report) {
    for row in ROWS {
        check(report, row);
    }
    report.check("auth can-i, no", || {
        // kubectl says `no` and ends with 1.
        fails(kubectl_words("-n kc auth can-i delete pods --as=system:serviceaccount:kc:robot")).map(drop)
    });
    report.check("apply creates and is a no-op the second time", || {
        contains(&kubectl_with("-n kc apply", WEB)?, &["deployment.apps/web created"])?;
        contains(&kubectl_with("-n kc apply", WEB)?, &["deployment.apps/web unchanged"])
    });
    report.check("diff shows a change before it is applied", || {
        // diff ends with 1 when there is a difference.
        let changed = WEB.replace("replicas: 2", "replicas: 5");
        contains(&fails(kubectl_with("-n kc diff", &changed))?, &["-  replicas: 2", "+  replicas: 5"])
    });
    report.check("the deployment's pods become Ready", || {
        kubectl_words("-n kc rollout status deployment/web --timeout=60s").map(drop)
    });
    for row in WORKLOAD_ROWS {
        check(report, row);
    }
    report.check("edit changes what the editor changed", edit);
    report.check("delete -f and cascading deletion leave no pods", || {
        kubectl_with("-n kc delete --wait=true --timeout=60s", WEB)?;
        eventually(Duration::from_secs(60), || {
            let left = kubectl_words("-n kc get pods,replicasets -o name")?;
            anyhow::ensure!(left.is_empty(), "left: {left}");
            Ok(())
        })
    });
    report.check("a deleted namespace takes everything with it", || {
        kubectl_words("delete namespace kc --timeout=60s")?;
        contains(&fails(kubectl_words("get namespace kc"))?, &["namespaces \"kc\" not found"])
    });
}

fn check(report: &mut Report, (name, words, expected): &Row) {
    report.check(name, || contains(&kubectl::output(*words)?, expected));
}

/// `kubectl edit` with an editor that replaces a word.
fn edit() -> Result<()> {
    kubectl_words("-n kc create configmap edited --from-literal=colour=red")?;
    let mut command = kubectl::command(["-n", "kc", "edit", "configmap", "edited"]);
    let said = crate::shell::quiet(command.env("KUBE_EDITOR", "sed -i s/red/green/"))?;
    contains(&said, &["configmap/edited edited"])?;
    contains(&kubectl_words("-n kc get configmap edited -o yaml")?, &["colour: green"])
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: echo
        imagePullPolicy: Never
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
";
