//! One HTTP or TCP request from the node to a pod, for probes and lifecycle hooks. TLS certificates of pods are not
//! verified: a probe asks whether something answers, not who.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;

use super::Outcome;

const USER_AGENT: &str = "kube-probe/1.35";
/// Redirects that are followed, on the same host only.
const MAX_REDIRECTS: usize = 10;
/// How much of an answer's body goes into an event.
const MAX_BODY: usize = 10 * 1024;

/// The number of a port given by number or by the name of a container port.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            match ports.iter().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port,
                None => name.parse().ok()?,
            }
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// A TCP connection.
pub async fn tcp(
    action: &TCPSocketAction,
    container: &Container,
    pod_ip: IpAddr,
    limit: Duration,
) -> Outcome {
    let Some(port) = resolve_port(&action.port, container) else { return no_port() };
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string());
    match tokio::time::timeout(limit, connect(&host, port)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {}: {error}", authority(&host, port))),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", authority(&host, port))),
    }
}

/// An HTTP GET: 200 to 399 pass.
pub async fn http(action: &HTTPGetAction, container: &Container, pod_ip: IpAddr, limit: Duration) -> Outcome {
    let Some(port) = resolve_port(&action.port, container) else { return no_port() };
    let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_string());
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = if secure { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", authority(&host, port));
    match tokio::time::timeout(limit, follow(action, &host, port, secure, path)).await {
        Ok(Ok((status, _))) if (200..400).contains(&status) => Outcome::Success,
        Ok(Ok((status, _))) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Outcome::Failure(format!("Get \"{url}\": {error}")),
        Err(_) => Outcome::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn no_port() -> Outcome {
    Outcome::Unknown("the port of the probe is not a port of the container".into())
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((host, port)).await
}

/// Requests, following redirects that stay on the host; one that leads elsewhere counts as an answer.
async fn follow(
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    secure: bool,
    mut path: String,
) -> Result<(u16, Bytes), BoxError> {
    for _ in 0..=MAX_REDIRECTS {
        let (status, location, body) = request(action, host, port, secure, &path).await?;
        let next =
            location.filter(|_| (300..400).contains(&status)).and_then(|location| same_host(&location, host));
        match next {
            Some(next) => path = next,
            None => return Ok((status, body)),
        }
    }
    Err("stopped after 10 redirects".into())
}

/// Path of a redirect on the same host.
fn same_host(location: &str, host: &str) -> Option<String> {
    if location.starts_with('/') {
        return Some(location.to_owned());
    }
    let uri: http::Uri = location.parse().ok()?;
    (uri.host().map(|found| found.trim_matches(['[', ']'])) == Some(host)).then(|| uri.path().to_owned())
}

async fn request(
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    secure: bool,
    path: &str,
) -> Result<(u16, Option<String>, Bytes), BoxError> {
    let mut builder = http::Request::get(path);
    let mut named = std::collections::HashSet::new();
    for header in action.http_headers.iter().flatten() {
        named.insert(header.name.to_ascii_lowercase());
        builder = builder.header(&header.name, &header.value);
    }
    let defaults =
        [("host", authority(host, port)), ("user-agent", USER_AGENT.into()), ("accept", "*/*".into())];
    for (name, value) in defaults.into_iter().chain([("connection", "close".to_owned())]) {
        if !named.contains(name) {
            builder = builder.header(name, value);
        }
    }
    let request = builder.body(Empty::<Bytes>::new())?;
    let stream = connect(host, port).await?;
    let response = if secure {
        let name = ServerName::try_from(host.to_owned())?;
        let tls = tokio_rustls::TlsConnector::from(unverified()?).connect(name, stream).await?;
        send(TokioIo::new(tls), request).await?
    } else {
        send(TokioIo::new(stream), request).await?
    };
    let status = response.status().as_u16();
    let location =
        response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = http_body_util::Limited::new(response.into_body(), MAX_BODY).collect().await;
    Ok((status, location, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
}

async fn send<I>(
    io: I,
    request: http::Request<Empty<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // Ends with the answer: the connection is not kept.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn unverified() -> Result<Arc<rustls::ClientConfig>, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next text.
    async fn server(answers: Vec<&'static str>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn check(answers: Vec<&'static str>, expected: Outcome) {
        let port = server(answers).await;
        let action = HTTPGetAction { port: IntOrString::Int(port.into()), ..HTTPGetAction::default() };
        let ip = "127.0.0.1".parse().unwrap();
        assert_eq!(http(&action, &Container::default(), ip, Duration::from_secs(2)).await, expected);
    }

    #[tokio::test]
    async fn http_passes_from_200_to_399_and_follows_redirects_on_the_host() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        check(vec![ok], Outcome::Success).await;
        check(vec!["HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", ok], Outcome::Success)
            .await;
        check(
            vec!["HTTP/1.1 302 Found\r\nlocation: http://else/\r\ncontent-length: 0\r\n\r\n"],
            Outcome::Success,
        )
        .await;
        check(
            vec!["HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"],
            Outcome::Failure("HTTP probe failed with statuscode: 503".into()),
        )
        .await;
    }

    #[tokio::test]
    async fn ports_go_by_name_and_a_closed_port_fails() {
        let port = server(vec![""]).await;
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]}),
        )
        .unwrap();
        let action = TCPSocketAction { port: IntOrString::String("web".into()), host: None };
        let ip = "127.0.0.1".parse().unwrap();
        assert_eq!(tcp(&action, &container, ip, Duration::from_secs(1)).await, Outcome::Success);
        let other = TCPSocketAction { port: IntOrString::Int(1), host: None };
        assert!(matches!(tcp(&other, &container, ip, Duration::from_secs(1)).await, Outcome::Failure(_)));
    }
}
