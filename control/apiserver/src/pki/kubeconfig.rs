//! The text of a kubeconfig with one cluster, one user with a client certificate, and one context.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a kubeconfig says.
pub struct Access<'a> {
    /// Name of the cluster entry.
    pub cluster: &'a str,
    /// URL of the API server.
    pub server: &'a str,
    /// Certificate of the authority that signed the server's certificate, PEM.
    pub ca_pem: &'a str,
    /// Name of the user entry.
    pub user: &'a str,
    /// The user's certificate, PEM.
    pub certificate_pem: &'a str,
    /// The user's key, PEM.
    pub key_pem: &'a str,
}

/// The file's text, certificates embedded.
pub fn render(access: &Access<'_>) -> String {
    let Access { cluster, server, user, .. } = access;
    let context = format!("{user}@{cluster}");
    let (ca, certificate, key) = (
        STANDARD.encode(access.ca_pem),
        STANDARD.encode(access.certificate_pem),
        STANDARD.encode(access.key_pem),
    );
    // Names hold colons (`system:node:a`): always quoted.
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: "{cluster}"
  cluster:
    server: "{server}"
    certificate-authority-data: {ca}
users:
- name: "{user}"
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: "{context}"
  context:
    cluster: "{cluster}"
    user: "{user}"
current-context: "{context}"
preferences: {{}}
"#
    )
}
