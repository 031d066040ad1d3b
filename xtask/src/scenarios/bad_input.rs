//! Bad input: each row must end with the upstream server's status code and a message that names the cause.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Report, contains, fails, kubectl_with, kubectl_words};
use crate::cluster::plan::Plan;
use crate::cluster::{kubectl, plan};

/// A request to the API server: name, method and path, content type, body, expected code, expected parts of the message.
type Row =
    (&'static str, &'static str, &'static str, &'static str, &'static str, u16, &'static [&'static str]);

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const ROWS: &[Row] = &[
    ("malformed JSON", "POST", CONFIG_MAPS, "application/json", "{\"kind\":", 400, &["unexpected"]),
    ("malformed YAML", "POST", CONFIG_MAPS, "application/yaml", "kind: [", 400, &["yaml"]),
    (
        "a wrong type",
        "POST",
        DEPLOYMENTS,
        "application/json",
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"replicas":"two"}}"#,
        400,
        &["cannot unmarshal string", "replicas", "int32"],
    ),
    (
        "another kind",
        "POST",
        CONFIG_MAPS,
        "application/json",
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#,
        400,
        &["Secret"],
    ),
    (
        "a bad name",
        "POST",
        CONFIG_MAPS,
        "application/json",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Not_A_Name"}}"#,
        422,
        &["metadata.name", "Not_A_Name", "RFC 1123"],
    ),
    (
        "a missing required field",
        "POST",
        DEPLOYMENTS,
        "application/json",
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"echo"}]}}}}"#,
        422,
        &["spec.selector", "Required value"],
    ),
    (
        "an unknown content type",
        "POST",
        CONFIG_MAPS,
        "text/plain",
        "x",
        415,
        &["unknown format", "accepted media types include"],
    ),
    (
        "server-side apply, which is not built (docs/decisions/0005)",
        "PATCH",
        "/api/v1/namespaces/default/configmaps/x?fieldManager=me",
        "application/apply-patch+yaml",
        "kind: ConfigMap",
        415,
        &["server-side apply is not supported by this server yet"],
    ),
    (
        "an unknown resource",
        "GET",
        "/api/v1/namespaces/default/carrots",
        "",
        "",
        404,
        &["could not find the requested resource"],
    ),
    (
        "an object that is not there",
        "GET",
        "/api/v1/namespaces/default/configmaps/nothing",
        "",
        "",
        404,
        &["configmaps \"nothing\" not found"],
    ),
    (
        "a bad selector",
        "GET",
        "/api/v1/pods?labelSelector=a%3D%3D%3D",
        "",
        "",
        400,
        &["unable to parse requirement"],
    ),
    (
        "a namespace that is not there",
        "POST",
        "/api/v1/namespaces/nowhere/configmaps",
        "application/json",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#,
        404,
        &["namespaces \"nowhere\" not found"],
    ),
];

pub(super) fn run(_plan: &Plan, report: &mut Report) {
    for row in ROWS {
        report.check(row.0, || request_fails(row));
    }
    report.check("a body of 4 MB", || {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},"data":{{"a":"{}"}}}}"#,
            "x".repeat(4 << 20)
        );
        refused(
            &curl("POST", CONFIG_MAPS, "application/json", &body, Caller::Administrator)?,
            413,
            &["limit is 3145728"],
        )
    });
    report.check("a request with a token that nobody issued", || {
        refused(&curl("GET", "/api/v1/pods", "", "", Caller::Token("forged"))?, 401, &["Unauthorized"])
    });
    report.check("a request without credentials", || {
        let parts = ["pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\""];
        refused(&curl("GET", "/api/v1/pods", "", "", Caller::Nobody)?, 403, &parts)
    });
    report.check("a forbidden request", || {
        let said = fails(kubectl_words("get secrets --as=jane"))?;
        contains(&said, &["secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""])
    });
    report.check("an unknown field under strict validation", || {
        let said = fails(kubectl_with("create --validate=strict", &deployment("replcas: 2")))?;
        contains(&said, &["unknown field \"spec.replcas\""])
    });
    report.check("apply with a typing error names the field", || {
        let said = fails(kubectl_with("apply", &deployment("replicas: two")))?;
        contains(&said, &["replicas"])
    });
    kubectl_rows(report);
}

/// What kubectl makes of the server's refusals.
fn kubectl_rows(report: &mut Report) {
    report.check("a duplicate name", || {
        kubectl_words("create configmap twice")?;
        let said = fails(kubectl_words("create configmap twice"))?;
        kubectl_words("delete configmap twice")?;
        contains(&said, &["configmaps \"twice\" already exists"])
    });
    report.check("an immutable field", || {
        kubectl_with("create", &deployment("replicas: 0"))?;
        let patch =
            r#"{"spec":{"selector":{"matchLabels":{"c":"d"}},"template":{"metadata":{"labels":{"c":"d"}}}}}"#;
        let said = fails(kubectl::output(["patch", "deployment", "bad", "--type=merge", "-p", patch]));
        kubectl_words("delete deployment bad")?;
        contains(&said?, &["spec.selector: Invalid value", "field is immutable"])
    });
    report.check("a cluster address that was given", || {
        let patch = r#"{"spec":{"clusterIP":"10.96.77.77","clusterIPs":["10.96.77.77"]}}"#;
        let said = fails(kubectl::output(["patch", "service", "kubernetes", "--type=merge", "-p", patch]))?;
        contains(&said, &["spec.clusterIPs[0]: Invalid value", "may not change once set"])
    });
    report.check("a port clash", || {
        let service = |name: &str| format!("kind: Service\napiVersion: v1\nmetadata: {{name: {name}}}\nspec: {{type: NodePort, ports: [{{port: 80, nodePort: 30999}}]}}");
        kubectl_with("create", &service("first"))?;
        let said = fails(kubectl_with("create", &service("second")));
        kubectl_words("delete service first")?;
        contains(&said?, &["nodePort", "30999", "provided port is already allocated"])
    });
    report.check("a conflict of versions", || {
        kubectl_words("create configmap versioned")?;
        let stale = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: versioned, resourceVersion: \"1\"}\ndata: {a: b}";
        let said = fails(kubectl_with("replace", stale));
        kubectl_words("delete configmap versioned")?;
        contains(&said?, &["Conflict", "the object has been modified; please apply your changes to the latest version and try again"])
    });
}

fn deployment(line: &str) -> String {
    format!(
        "kind: Deployment\napiVersion: apps/v1\nmetadata: {{name: bad}}\nspec: {{{line}, selector: {{matchLabels: {{a: b}}}}, \
         template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: echo}}]}}}}}}"
    )
}

fn request_fails((_, method, path, content_type, body, code, parts): &Row) -> Result<()> {
    refused(&curl(method, path, content_type, body, Caller::Administrator)?, *code, parts)
}

/// The answer must be a `Status` of `code` whose message has `parts`.
fn refused((code, answer): &(u16, String), expected: u16, parts: &[&str]) -> Result<()> {
    if *code != expected {
        bail!("HTTP {code}, not {expected}: {answer}");
    }
    let status: Value = serde_json::from_str(answer)?;
    if status["kind"] != "Status" || status["code"] != expected || status["status"] != "Failure" {
        bail!("not a Status of {expected}: {answer}");
    }
    contains(status["message"].as_str().unwrap_or_default(), parts)
}

/// Who sends a raw request.
enum Caller {
    /// With the administrator's client certificate.
    Administrator,
    /// With this bearer token.
    Token(&'static str),
    /// Without credentials.
    Nobody,
}

/// One raw request with curl: the HTTP code and the body.
fn curl(method: &str, path: &str, content_type: &str, body: &str, caller: Caller) -> Result<(u16, String)> {
    let config = kubectl::output(["config", "view", "--raw", "-o", "json"])?;
    let config: Value = serde_json::from_str(&config)?;
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default().to_owned();
    let mut curl = Command::new("curl");
    curl.args(["-sk", "-X", method, "-w", "\n%{http_code}", &format!("{server}{path}")]);
    match caller {
        Caller::Administrator => {
            for (flag, field) in [("--cert", "client-certificate-data"), ("--key", "client-key-data")] {
                let file = plan::directory().join(field);
                let encoded = config["users"][0]["user"][field].as_str().unwrap_or_default();
                std::fs::write(&file, decode_base64(encoded)?)?;
                curl.arg(flag).arg(file);
            }
        }
        Caller::Token(token) => drop(curl.args(["-H", &format!("Authorization: Bearer {token}")])),
        Caller::Nobody => {}
    }
    if !body.is_empty() {
        curl.args(["-H", &format!("Content-Type: {content_type}"), "--data-binary", "@-"]);
    }
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // The server may refuse a large body before it has read all of it.
        drop(input.write_all(body.as_bytes()));
    }
    let output = String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned();
    let (answer, code) = output.rsplit_once('\n').unwrap_or(("", &output));
    Ok((code.trim().parse()?, answer.to_owned()))
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    let mut command = Command::new("base64");
    let mut child = command.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    Ok(child.wait_with_output()?.stdout)
}
