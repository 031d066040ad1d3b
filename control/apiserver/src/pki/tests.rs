//! The certificates as files: made once, kept, renewed, usable for TLS in both directions.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::*;

const NOW: &str = "2026-11-22T10:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn names() -> ServingNames {
    ServingNames::for_apiserver(
        &["172.30.0.2".parse().unwrap()],
        &["10.96.0.1".parse().unwrap(), "fd00:10:96::1".parse().unwrap()],
        "cluster.local",
    )
}

fn read_all(dir: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_start_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(), at(NOW)).unwrap();
    let before = read_all(&directory(dir.path()));
    ensure(dir.path(), &names(), at("2026-12-22T10:00:00Z")).unwrap();
    assert_eq!(before, read_all(&directory(dir.path())));
    assert_eq!(before.len(), 13, "ca and five identities of two files, and sa.key");
}

#[test]
fn keys_are_readable_by_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(), at(NOW)).unwrap();
    for entry in fs::read_dir(directory(dir.path())).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let key = entry.path().extension().is_some_and(|e| e == "key");
        assert_eq!(mode, if key { 0o600 } else { 0o644 }, "{}", entry.path().display());
    }
}

fn stored(dir: &Path, file: &str) -> String {
    fs::read_to_string(directory(dir).join(file)).unwrap()
}

#[test]
fn a_certificate_is_made_again_close_to_expiry_and_for_new_names_but_the_authority_stays() {
    let dir = tempfile::tempdir().unwrap();
    let files = || ["ca.crt", "apiserver.crt", "admin.crt"].map(|file| stored(dir.path(), file));
    ensure(dir.path(), &names(), at(NOW)).unwrap();
    let [first_ca, first_serving, _] = files();
    ensure(dir.path(), &names(), at("2027-09-22T10:00:00Z")).unwrap();
    let [late_ca, late_serving, late_admin] = files();
    assert_ne!(first_serving, late_serving);
    assert_eq!(first_ca, late_ca);

    let mut more = names();
    more.dns.push("api.example".to_owned());
    ensure(dir.path(), &more, at("2027-09-22T10:00:00Z")).unwrap();
    let [_, renamed_serving, renamed_admin] = files();
    assert_ne!(late_serving, renamed_serving);
    assert_eq!(late_admin, renamed_admin, "only the serving names changed");
}

#[test]
fn a_running_server_uses_a_renewed_certificate_from_the_next_handshake_on() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ensure(dir.path(), &names(), Timestamp::now()).unwrap();
    let (server, client) = (tls::server_config(&pki).unwrap(), tls::kubelet_client_config(&pki).unwrap());
    assert!(handshake(server.clone(), client.clone(), "api.example").is_err());
    let mut more = names();
    more.dns.push("api.example".to_owned());
    pki.renew(dir.path(), &more, Timestamp::now()).unwrap();
    handshake(server, client, "api.example").unwrap();
}

#[test]
fn an_authority_without_its_key_is_an_error_not_a_new_authority() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(), at(NOW)).unwrap();
    fs::remove_file(directory(dir.path()).join("ca.key")).unwrap();
    let error = ensure(dir.path(), &names(), at(NOW)).err().unwrap();
    assert!(error.to_string().ends_with("ca.key: missing, though its certificate is there"), "{error}");
}

#[test]
fn a_node_cannot_be_issued_before_the_authority_exists() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeIdentity { name: "a".into(), addresses: vec![], server: "https://x".into() };
    let error = issue_node(dir.path(), &node, &dir.path().join("out"), at(NOW)).err().unwrap();
    assert!(error.to_string().contains("ca.crt: missing"), "{error}");
}

/// Drives a handshake in memory and returns the client certificate that the server saw.
fn handshake(
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    name: &str,
) -> Result<Vec<u8>, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name)?;
    let mut server = rustls::ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut pending = wire.as_slice();
        while !pending.is_empty() {
            server.read_tls(&mut pending).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        let mut pending = wire.as_slice();
        while !pending.is_empty() {
            client.read_tls(&mut pending).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server.peer_certificates().unwrap_or_default()[0].to_vec())
}

#[test]
fn the_server_answers_under_each_of_its_names_and_knows_its_client() {
    let dir = tempfile::tempdir().unwrap();
    // The handshake checks dates against the real clock.
    let pki = ensure(dir.path(), &names(), Timestamp::now()).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "172.30.0.2",
        "10.96.0.1",
        "fd00:10:96::1",
        "kubernetes.default.svc",
    ] {
        let peer =
            handshake(tls::server_config(&pki).unwrap(), tls::kubelet_client_config(&pki).unwrap(), name)
                .unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&peer).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=kube-apiserver-kubelet-client", "{name}");
    }
    let refused = handshake(
        tls::server_config(&pki).unwrap(),
        tls::kubelet_client_config(&pki).unwrap(),
        "other.example",
    );
    assert!(refused.is_err());
}

#[test]
fn a_node_gets_a_kubeconfig_and_a_serving_certificate_for_its_addresses() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(), at(NOW)).unwrap();
    let out = dir.path().join("node");
    let node = NodeIdentity {
        name: "node-1".into(),
        addresses: vec!["172.30.0.11".parse().unwrap(), "fd30::11".parse().unwrap()],
        server: "https://172.30.0.2:6443".into(),
    };
    issue_node(dir.path(), &node, &out, at(NOW)).unwrap();
    let kubeconfig = fs::read_to_string(out.join("kubeconfig")).unwrap();
    let parsed = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
    assert_eq!(parsed.current_context.as_deref(), Some("system:node:node-1@beeline"));
    assert_eq!(
        parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(),
        Some("https://172.30.0.2:6443")
    );
    let serving = fs::read_to_string(out.join("kubelet.crt")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(serving.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names.len(), 3);
    assert_eq!(read_all(&out).len(), 4);
}
