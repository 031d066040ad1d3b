//! The API server over the real etcd, asked as a client would ask: methods, headers and bodies in, codes and bodies out.
//! Without an `etcd` program the tests are skipped aloud.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use apiserver::pki::{self, ServingNames};
use apiserver::{Server, ServerOptions, UserInfo};
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// An etcd and a server on it, both gone at the end.
struct Cluster {
    etcd: Child,
    folder: tempfile::TempDir,
    pki: pki::Pki,
    server: Server,
    admin: kube::Client,
    shutdown: CancellationToken,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let port = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (client, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let folder = tempfile::tempdir().unwrap();
        let etcd = Command::new("etcd")
            .arg(format!("--data-dir={}", folder.path().join("etcd").display()))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--log-level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let etcd = match etcd {
            Ok(etcd) => etcd,
            Err(error) => {
                println!("skipped: needs the etcd program ({error})");
                return None;
            }
        };
        let names = ServingNames::for_apiserver(&[], &[], "cluster.local");
        let pki = pki::ensure(folder.path(), &names, jiff::Timestamp::now()).unwrap();
        let options = ServerOptions {
            etcd_servers: vec![client],
            advertise_address: IpAddr::from(Ipv4Addr::LOCALHOST),
            secure_port: 6443,
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()],
            event_ttl: Duration::from_secs(3_600),
        };
        let shutdown = CancellationToken::new();
        let server = Server::new(options, &pki, shutdown.clone()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), server.start()).await.expect("the server starts");
        let admin = server.in_process_client(UserInfo::named("admin", &["system:masters"]));
        Some(Self { etcd, folder, pki, server, admin, shutdown })
    }

    async fn send(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let (method, path) = request.split_once(' ').unwrap();
        let mut built = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        if headers.iter().all(|(name, _)| *name != "content-type") {
            built = built.header("content-type", "application/json");
        }
        for (name, value) in headers {
            built = built.header(*name, *value);
        }
        self.admin.send(built.body(Body::from(body.as_bytes().to_vec())).unwrap()).await.unwrap()
    }

    async fn ask(&self, request: &str, body: &Value) -> (u16, Value) {
        self.ask_with(request, &[], &if body.is_null() { String::new() } else { body.to_string() }).await
    }

    async fn ask_with(&self, request: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let response = self.send(request, headers, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()),
        )
    }

    #[track_caller]
    fn check(seen: &(u16, Value), code: u16, text: &str) {
        assert_eq!(seen.0, code, "{}", seen.1);
        assert!(seen.1.to_string().contains(text), "{text} not in {}", seen.1);
    }

    async fn config_map(&self, name: &str, data: &str) -> Value {
        let object = json!({"metadata": {"name": name, "labels": {"data": data}}, "data": {"k": data}});
        let (code, made) = self.ask("POST /api/v1/namespaces/default/configmaps", &object).await;
        assert_eq!(code, 201, "{made}");
        made
    }

    /// Opens a watch; each item of the stream is one event.
    async fn watch(&self, path: &str) -> impl futures::Stream<Item = Value> + Unpin + use<> {
        let response = self.send(&format!("GET {path}"), &[], "").await;
        assert_eq!(response.status(), StatusCode::OK);
        let chunks = response.into_body().into_data_stream();
        Box::pin(chunks.flat_map(|chunk| {
            let text = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
            futures::stream::iter(
                text.lines().map(|it| serde_json::from_str(it).unwrap()).collect::<Vec<Value>>(),
            )
        }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

async fn next(events: &mut (impl futures::Stream<Item = Value> + Unpin)) -> (String, String) {
    let event =
        tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event comes").unwrap();
    (
        event["type"].as_str().unwrap().to_owned(),
        event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    )
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn writes_keep_to_optimistic_concurrency() {
    let Some(cluster) = Cluster::start().await else { return };
    let made = cluster.config_map("a", "1").await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let again = cluster.ask(&format!("POST {MAPS}"), &json!({"metadata": {"name": "a"}})).await;
    Cluster::check(&again, 409, r#"configmaps \"a\" already exists"#);

    let mut changed = made.clone();
    changed["data"] = json!({"k": "2"});
    let (code, second) = cluster.ask(&format!("PUT {MAPS}/a"), &changed).await;
    assert_eq!(code, 200, "{second}");
    let stale = cluster.ask(&format!("PUT {MAPS}/a"), &changed).await;
    Cluster::check(
        &stale,
        409,
        r#"Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"#,
    );
    let (code, same) = cluster.ask(&format!("PUT {MAPS}/a"), &second).await;
    assert_eq!(
        (code, version(&same)),
        (200, version(&second)),
        "a write that changes nothing keeps its version"
    );
    let mut reordered = json!({"data": second["data"], "metadata": second["metadata"], "kind": "ConfigMap", "apiVersion": "v1"});
    let (_, same) = cluster.ask(&format!("PUT {MAPS}/a"), &reordered).await;
    assert_eq!(version(&same), version(&second), "nor does another order of the fields");
    reordered["metadata"]["name"] = "b".into();
    Cluster::check(
        &cluster.ask(&format!("PUT {MAPS}/a"), &reordered).await,
        400,
        "does not match the name on the URL (a)",
    );

    let wrong_uid = json!({"preconditions": {"uid": "x"}});
    Cluster::check(
        &cluster.ask(&format!("DELETE {MAPS}/a"), &wrong_uid).await,
        409,
        "Precondition failed: UID",
    );
    Cluster::check(
        &cluster.ask(&format!("DELETE {MAPS}/a"), &Value::Null).await,
        200,
        r#""status":"Success""#,
    );
    Cluster::check(
        &cluster.ask(&format!("DELETE {MAPS}/a"), &Value::Null).await,
        404,
        r#"configmaps \"a\" not found"#,
    );
    Cluster::check(
        &cluster.ask(&format!("GET {MAPS}/a"), &Value::Null).await,
        404,
        r#"configmaps \"a\" not found"#,
    );
    let generated = cluster.ask(&format!("POST {MAPS}"), &json!({"metadata": {"generateName": "g-"}})).await;
    Cluster::check(&generated, 201, r#""name":"g-"#);
}

const TYPO: &str = r#"{"metadata":{"name":"a"},"dta":{}}"#;

/// Request, Content-Type or Accept (`header: value`), body, and the answer: code and part of the text.
const BAD: &[(&str, &str, &str, u16, &str)] = &[
    ("POST {maps}", "", "{", 400, "unexpected end of JSON input"),
    ("POST {maps}?fieldValidation=Strict", "", TYPO, 400, r#"unknown field \"dta\""#),
    ("POST {maps}", "", r#"{"metadata":{"name":7}}"#, 400, "cannot unmarshal number into Go struct field"),
    (
        "POST {maps}",
        "",
        r#"{"metadata":{"name":"A_"}}"#,
        422,
        "a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        "POST {maps}",
        "",
        r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#,
        400,
        "resourceVersion should not be set on objects to be created",
    ),
    (
        "POST {maps}",
        "",
        r#"{"metadata":{"name":"a","namespace":"b"}}"#,
        400,
        "the namespace of the provided object does not match",
    ),
    ("POST {maps}", "content-type: text/plain", "x", 415, "the body of the request was in an unknown format"),
    ("POST {maps}?dryRun=Some", "", TYPO, 422, "dryRun"),
    ("GET /api/v1/nonsense", "", "", 404, "the server could not find the requested resource"),
    ("GET /api/v1/pods?fieldSelector=a%3Db", "", "", 400, "field label not supported: a"),
    ("GET /api/v1/pods?labelSelector=%21%21", "", "", 400, "BadRequest"),
    ("GET /api/v1/pods?resourceVersion=x", "", "", 422, "resourceVersion"),
    ("GET /api/v1/pods?continue=x", "", "", 400, "continue key is not valid"),
    ("DELETE /api/v1/namespaces", "", "", 405, "MethodNotAllowed"),
    ("GET /api/v1/pods", "accept: text/html", "", 406, "only the following media types are accepted"),
    (
        "PATCH /api/v1/namespaces/default",
        "content-type: application/apply-patch+yaml",
        "{}",
        415,
        "server-side apply is not supported",
    ),
    (
        "POST /api/v1/namespaces/nope/configmaps",
        "",
        r#"{"metadata":{"name":"a"}}"#,
        404,
        r#"namespaces \"nope\" not found"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_what_is_wrong() {
    let Some(cluster) = Cluster::start().await else { return };
    let post = format!("POST {MAPS}");
    for (request, header, body, code, text) in BAD {
        let headers: Vec<_> = header.split_once(": ").into_iter().collect();
        Cluster::check(
            &cluster.ask_with(&request.replace("{maps}", MAPS), &headers, body).await,
            *code,
            text,
        );
    }
    let large = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    Cluster::check(
        &cluster.ask_with(&post, &[], &large).await,
        413,
        "Request entity too large: limit is 3145728",
    );

    let lenient = cluster.send(&post, &[], TYPO).await;
    assert_eq!(lenient.headers()["warning"], r#"299 - "unknown field \"dta\"""#);
    assert!(lenient.headers().contains_key("audit-id"));
    let deprecated = cluster.send("GET /api/v1/endpoints", &[], "").await;
    assert!(
        deprecated.headers()["warning"].to_str().unwrap().contains("v1 Endpoints is deprecated in v1.33+")
    );
    let bob = cluster.server.in_process_client(UserInfo::named("bob", &[]));
    let denied =
        bob.send(Request::get("/api/v1/namespaces/default/pods").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(denied.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_at_one_revision_and_select() {
    let Some(cluster) = Cluster::start().await else { return };
    for name in ["a", "b", "c", "d"] {
        cluster.config_map(name, if name < "c" { "x" } else { "y" }).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, first) = cluster.ask(&format!("GET {MAPS}?limit=2"), &Value::Null).await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(2))
    );
    cluster.ask(&format!("DELETE {MAPS}/c"), &Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = cluster.ask(&format!("GET {MAPS}?limit=2&continue={token}"), &Value::Null).await;
    assert_eq!(names(&second), ["c", "d"], "pages show the revision of the first one");
    assert_eq!(version(&first), version(&second));
    let (_, now) = cluster.ask(&format!("GET {MAPS}"), &Value::Null).await;
    assert_eq!(names(&now), ["a", "b", "d"]);
    let (_, then) = cluster
        .ask(
            &format!("GET {MAPS}?resourceVersion={}&resourceVersionMatch=Exact", version(&first)),
            &Value::Null,
        )
        .await;
    assert_eq!(names(&then), ["a", "b", "c", "d"]);
    let (_, some) = cluster
        .ask(&format!("GET {MAPS}?labelSelector=data%3Dx&fieldSelector=metadata.name%21%3Da"), &Value::Null)
        .await;
    assert_eq!(names(&some), ["b"]);
    let future = cluster.ask(&format!("GET {MAPS}?resourceVersion=1000000"), &Value::Null).await;
    Cluster::check(&future, 504, "Too large resource version");

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, table) = cluster.ask_with(&format!("GET {MAPS}"), &table, "").await;
    assert_eq!((table["kind"].as_str(), table["rows"].as_array().unwrap().len()), (Some("Table"), 3));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, yaml) = cluster.ask_with(&format!("GET {MAPS}/a"), &[("accept", "application/yaml")], "").await;
    assert!(yaml.as_str().unwrap().contains("kind: ConfigMap"), "{yaml}");
    let (_, deleted) = cluster.ask(&format!("DELETE {MAPS}?labelSelector=data%3Dx"), &Value::Null).await;
    assert_eq!(names(&deleted), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_tell_what_enters_changes_and_leaves() {
    let Some(cluster) = Cluster::start().await else { return };
    let made = cluster.config_map("a", "x").await;
    let mut all = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion={}", version(&made))).await;
    let mut x = cluster.watch(&format!("{MAPS}?watch=true&labelSelector=data%3Dx")).await;
    let mut listed = cluster
        .watch(&format!("{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"))
        .await;
    assert_eq!(next(&mut x).await, ("ADDED".into(), "a".into()));
    assert_eq!(next(&mut listed).await, ("ADDED".into(), "a".into()));
    let bookmark = listed.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    let relabel = json!({"metadata": {"labels": {"data": "y"}}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    let (code, _) = cluster.ask_with(&format!("PATCH {MAPS}/a"), &merge, &relabel).await;
    assert_eq!(code, 200);
    assert_eq!(next(&mut all).await, ("MODIFIED".into(), "a".into()));
    assert_eq!(
        next(&mut x).await,
        ("DELETED".into(), "a".into()),
        "an object that leaves the selector is deleted to its watchers"
    );
    let back = relabel.replace('y', "x");
    cluster.ask_with(&format!("PATCH {MAPS}/a"), &merge, &back).await;
    assert_eq!(next(&mut x).await, ("ADDED".into(), "a".into()));
    cluster.ask(&format!("DELETE {MAPS}/a"), &Value::Null).await;
    assert_eq!(next(&mut x).await, ("DELETED".into(), "a".into()));
    for kind in ["MODIFIED", "DELETED"] {
        assert_eq!(next(&mut all).await, (kind.into(), "a".into()));
    }
    let mut short = cluster
        .watch(&format!("{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=3&allowWatchBookmarks=true"))
        .await;
    assert_eq!(next(&mut short).await.0, "BOOKMARK");
    assert!(short.next().await.is_none(), "the stream ends in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_and_subresources() {
    let Some(cluster) = Cluster::start().await else { return };
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let base = "/apis/apps/v1/namespaces/default/deployments";
    let (code, made) = cluster.ask(&format!("POST {base}"), &deployment).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
    let (_, scale) = cluster.ask(&format!("GET {base}/web/scale"), &Value::Null).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let merge = [("content-type", "application/merge-patch+json")];
    let (code, scale) =
        cluster.ask_with(&format!("PATCH {base}/web/scale"), &merge, r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(5)));
    let (_, status) = cluster
        .ask_with(
            &format!("PATCH {base}/web/status"),
            &merge,
            r#"{"spec":{"replicas":9},"status":{"replicas":5}}"#,
        )
        .await;
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(5), &json!(5)),
        "a status write leaves the spec"
    );
    assert_eq!(status["metadata"]["generation"], 2);
    let selector = json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}).to_string();
    Cluster::check(
        &cluster.ask_with(&format!("PATCH {base}/web"), &merge, &selector).await,
        422,
        "field is immutable",
    );

    let (code, going) =
        cluster.ask(&format!("DELETE {base}/web"), &json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!((code, &going["metadata"]["finalizers"]), (202, &json!(["foregroundDeletion"])));
    let (code, _) =
        cluster.ask_with(&format!("PATCH {base}/web"), &merge, r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(code, 200);
    Cluster::check(&cluster.ask(&format!("GET {base}/web"), &Value::Null).await, 404, "not found");

    let (code, _) = cluster.ask("POST /api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    assert_eq!(code, 201);
    let (code, going) = cluster.ask("DELETE /api/v1/namespaces/n", &Value::Null).await;
    assert_eq!((code, &going["status"]["phase"]), (200, &json!("Terminating")));
    let refused =
        cluster.ask("POST /api/v1/namespaces/n/configmaps", &json!({"metadata": {"name": "a"}})).await;
    Cluster::check(&refused, 403, "because it is being terminated");
    let mut finalized = going.clone();
    finalized["spec"] = json!({});
    let (code, _) = cluster.ask("PUT /api/v1/namespaces/n/finalize", &finalized).await;
    assert_eq!(code, 200);
    Cluster::check(&cluster.ask("GET /api/v1/namespaces/n", &Value::Null).await, 404, "not found");

    let (code, _) =
        cluster.ask("POST /api/v1/namespaces?dryRun=All", &json!({"metadata": {"name": "dry"}})).await;
    assert_eq!(code, 201);
    Cluster::check(&cluster.ask("GET /api/v1/namespaces/dry", &Value::Null).await, 404, "not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_served_and_cached_by_hash() {
    let Some(cluster) = Cluster::start().await else { return };
    let aggregated =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let response = cluster.send("GET /apis", &aggregated, "").await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(response.headers()["content-type"].to_str().unwrap().contains("APIGroupDiscoveryList"));
    let again = cluster.send("GET /apis", &[aggregated[0], ("if-none-match", &tag)], "").await;
    assert_eq!(again.status(), 304);
    let (_, index) = cluster.ask("GET /openapi/v3", &Value::Null).await;
    let link = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = cluster.send(&format!("GET {link}"), &[("accept-encoding", "gzip")], "").await;
    assert_eq!(
        (document.status().as_u16(), &document.headers()["content-encoding"]),
        (200, &"gzip".parse().unwrap())
    );
    let (stale, _) = link.split_once('=').unwrap();
    assert_eq!(cluster.send(&format!("GET {stale}=00"), &[], "").await.status(), 301);
    for (path, text) in [
        ("/version", "\"minor\":\"35\""),
        ("/readyz?verbose", "[+]etcd ok"),
        ("/livez", "ok"),
        ("/healthz/etcd", "ok"),
        ("/api", "APIVersions"),
        ("/apis/apps", "APIGroup"),
        ("/apis/apps/v1", "deployments/scale"),
    ] {
        Cluster::check(&cluster.ask(&format!("GET {path}"), &Value::Null).await, 200, text);
    }
    let (_, metrics) = cluster.ask("GET /metrics", &Value::Null).await;
    for name in [
        "apiserver_request_total{verb=\\\"GET\\\"",
        "etcd_request_duration_seconds_count",
        "apiserver_storage_objects",
    ] {
        assert!(metrics.to_string().contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_keeps_what_it_was_given_through_a_replacement() {
    let Some(cluster) = Cluster::start().await else { return };
    let base = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let (code, made) = cluster.ask(&format!("POST {base}"), &service).await;
    assert_eq!(code, 201, "{made}");
    assert!(
        made["spec"]["clusterIP"].is_string() && made["spec"]["ports"][0]["nodePort"].is_number(),
        "{made}"
    );
    let (code, replaced) = cluster.ask(&format!("PUT {base}/s"), &service).await;
    assert_eq!((code, &replaced["spec"]), (200, &made["spec"]), "{replaced}");
    let merge = [("content-type", "application/merge-patch+json")];
    let other = r#"{"spec":{"clusterIP":"10.96.77.77","clusterIPs":["10.96.77.77"]}}"#;
    Cluster::check(
        &cluster.ask_with(&format!("PATCH {base}/s"), &merge, other).await,
        422,
        "may not change once set",
    );
    let wanted = json!({"metadata": {"name": "t"}, "spec": {"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80}]}});
    Cluster::check(
        &cluster.ask(&format!("POST {base}"), &wanted).await,
        422,
        "provided IP is already allocated",
    );
    let (code, _) = cluster.ask(&format!("DELETE {base}/s"), &Value::Null).await;
    assert_eq!(code, 200);
    let (code, taken) = cluster.ask(&format!("POST {base}"), &wanted).await;
    assert_eq!(code, 201, "a deleted service gives its address back: {taken}");
    for (spec, text) in [
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            "provided port is not in the valid range",
        ),
        (json!({"ports": []}), "spec.ports: Required value"),
        (json!({"ports": [{"port": 0}]}), "spec.ports[0].port"),
        (json!({"clusterIP": "10.97.0.1", "ports": [{"port": 80}]}), "10.97.0.1"),
        (json!({"type": "Nonsense", "ports": [{"port": 80}]}), "spec.type: Unsupported value"),
    ] {
        let bad = json!({"metadata": {"name": "bad"}, "spec": spec});
        Cluster::check(&cluster.ask(&format!("POST {base}"), &bad).await, 422, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_certificates_and_refusals_and_ends_with_the_server() {
    let Some(cluster) = Cluster::start().await else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = cluster.server.clone();
    let serving = tokio::spawn(async move { server.serve(listener).await });
    let path = cluster.folder.path().join("kubeconfig");
    cluster.pki.write_kubeconfig(&path, &url, &cluster.pki.admin).unwrap();
    let file = kube::config::Kubeconfig::read_from(&path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .unwrap();
    let named = kube::Client::try_from(config.clone()).unwrap();
    let mut unsigned = config;
    unsigned.auth_info = kube::config::AuthInfo::default();
    let nameless = kube::Client::try_from(unsigned).unwrap();
    // More than the windows of a connection hold: the client is still sending when it is refused.
    let large = vec![b'x'; 8 << 20];
    for (client, body, code) in [
        (&named, &large[..10], 400),
        (&named, &large, 413),
        (&nameless, &large[..10], 403),
        (&nameless, &large, 403),
    ] {
        let request = Request::post(MAPS)
            .header("content-type", "application/json")
            .body(Body::from(body.to_vec()))
            .unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), code, "{} bytes", body.len());
    }
    let watch = Request::get(format!("{MAPS}?watch=true&resourceVersion=0")).body(Body::empty()).unwrap();
    let stream = named.send(watch).await.unwrap().into_body();
    cluster.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(8), serving)
        .await
        .expect("streams do not hold up the end")
        .unwrap()
        .unwrap();
    stream.collect().await.expect("a watch ends in order");
}
