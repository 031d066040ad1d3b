//! Logs and upgraded connections through to a kubelet, played by a TLS server with a node's certificate.

use std::sync::Arc;
use std::time::Duration;

use apiserver::attributes::{Attributes, UserInfo};
use apiserver::body::{Request, empty};
use apiserver::bootstrap::rows;
use apiserver::pki::{self, NodeIdentity, Pki, ServingNames};
use apiserver::streaming::Streaming;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::etcd::Etcd;

type Connection = BufReader<tokio_rustls::server::TlsStream<TcpStream>>;

/// A kubelet's port: requests are answered by hand.
struct Kubelet {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Kubelet {
    async fn start(pki: &Pki, data_dir: &std::path::Path) -> Self {
        let out = data_dir.join("node");
        let node = NodeIdentity {
            name: "n1".into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            server: String::new(),
        };
        pki::issue_node(data_dir, &node, &out, Timestamp::now()).unwrap();
        let certificate = CertificateDer::from_pem_file(out.join("kubelet.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(out.join("kubelet.key")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: TlsAcceptor::from(Arc::new(config)) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection, and the head of its request.
    async fn accept(&self) -> (Connection, String) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::new(self.tls.accept(stream).await.unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).await.unwrap();
        }
        (stream, head)
    }
}

struct Setup {
    _etcd: Etcd,
    _dir: tempfile::TempDir,
    kubelet: Kubelet,
    streaming: Streaming,
}

/// A pod `web` with the containers `a` and `b` on the node `n1`, whose kubelet we play.
async fn setup() -> Option<Setup> {
    let etcd = Etcd::start()?;
    let registry = etcd.registry().await;
    let dir = tempfile::tempdir().unwrap();
    let pki = pki::ensure(dir.path(), &ServingNames::default(), Timestamp::now()).unwrap();
    let kubelet = Kubelet::start(&pki, dir.path()).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}});
    registry.create(rows::pods(), pod).await.unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let mut node = registry.create(rows::nodes(), node).await.unwrap();
    node["status"] = json!({
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port()}},
    });
    registry.update(rows::nodes(), node).await.unwrap();
    let streaming = Streaming::new(&pki, registry).unwrap();
    Some(Setup { _etcd: etcd, _dir: dir, kubelet, streaming })
}

fn attributes(subresource: &str) -> Attributes {
    Attributes {
        user: UserInfo::named("jane", &[]),
        verb: "get".into(),
        version: "v1".into(),
        resource: "pods".into(),
        subresource: subresource.into(),
        namespace: "shop".into(),
        name: "web".into(),
        resource_request: true,
        ..Attributes::default()
    }
}

fn get(uri: &str) -> Request {
    http::Request::get(uri).body(empty()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_arrives_line_by_line() {
    let Some(setup) = setup().await else { return };
    let streaming = setup.streaming.clone();
    let response = tokio::spawn(async move {
        streaming.serve(get("/x?container=a&follow=true&tailLines=2"), &attributes("log")).await
    });
    let (mut kubelet, head) = setup.kubelet.accept().await;
    assert!(head.starts_with("GET /containerLogs/shop/web/a?follow=true&tailLines=2 HTTP/1.1\r\n"), "{head}");
    kubelet.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    kubelet.flush().await.unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    for line in ["one\n", "two\n"] {
        kubelet.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
        kubelet.flush().await.unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(5), response.body_mut().frame())
            .await
            .expect("unbuffered");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), line);
    }
    // A client that goes away ends the connection to the kubelet.
    drop(response);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), kubelet.read_to_end(&mut rest))
        .await
        .expect("closed")
        .unwrap_or_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_statuses() {
    let Some(setup) = setup().await else { return };
    let status = async |response: apiserver::body::Response| {
        let code = response.status().as_u16();
        let body: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        (code, body["message"].as_str().unwrap_or_default().to_owned())
    };
    let here = |uri: &'static str, subresource: &'static str| {
        let streaming = setup.streaming.clone();
        async move { streaming.serve(get(uri), &attributes(subresource)).await }
    };
    for (uri, subresource, code, message) in [
        ("/x", "log", 400, "a container name must be specified for pod web, choose one of: [a b]"),
        ("/x?container=z", "exec", 400, "container z is not valid for pod web"),
        ("/x?container=a&command=sh&stdout=1", "exec", 400, "Upgrade request required"),
    ] {
        assert_eq!(status(here(uri, subresource).await).await, (code, message.to_owned()));
    }
    let asking = tokio::spawn(here("/x?container=a", "log"));
    let (mut kubelet, _) = setup.kubelet.accept().await;
    let text = r#"container "a" in pod "web" is waiting to start: ContainerCreating"#;
    let answer = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    kubelet.write_all(answer.as_bytes()).await.unwrap();
    kubelet.flush().await.unwrap();
    assert_eq!(status(asking.await.unwrap()).await, (400, text.to_owned()));

    let port = setup.kubelet.port();
    drop(setup.kubelet);
    let gone = setup.streaming.serve(get("/x?container=a"), &attributes("log")).await;
    let (code, message) = status(gone).await;
    assert_eq!(code, 500);
    assert_eq!(
        message,
        format!("error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_carries_bytes_both_ways_and_ends_on_both_sides() {
    let Some(setup) = setup().await else { return };
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let streaming = setup.streaming.clone();
    tokio::spawn(async move {
        let (stream, _) = front.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let streaming = streaming.clone();
            async move {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                Ok::<_, std::convert::Infallible>(streaming.serve(request, &attributes("exec")).await)
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.with_upgrades().await;
    });
    let mut client = BufReader::new(TcpStream::connect(address).await.unwrap());
    client
        .write_all(b"GET /x?container=b&command=sh&stdin=true&stdout=true HTTP/1.1\r\nhost: api\r\nauthorization: Bearer secret\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n")
        .await
        .unwrap();
    let (mut kubelet, head) = setup.kubelet.accept().await;
    assert!(head.starts_with("GET /exec/shop/web/b?input=1&output=1&command=sh HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: v5.channel.k8s.io") && !head.contains("secret"), "{head}");
    kubelet
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n")
        .await
        .unwrap();
    kubelet.flush().await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        client.read_line(&mut head).await.unwrap();
    }
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-protocol: v5.channel.k8s.io"),
        "{head}"
    );

    let (sent, mut received) = mpsc::channel::<Vec<u8>>(1);
    tokio::spawn(async move {
        let mut bytes = [0; 4];
        kubelet.read_exact(&mut bytes).await.unwrap();
        sent.send(bytes.to_vec()).await.unwrap();
        kubelet.write_all(b"pong").await.unwrap();
        kubelet.shutdown().await.unwrap();
    });
    client.write_all(b"ping").await.unwrap();
    assert_eq!(received.recv().await.unwrap(), b"ping");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"pong");
}
