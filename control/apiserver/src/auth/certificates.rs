//! A client certificate as a user: common name is the name, organizations are the groups.
//!
//! The certificate's chain and dates were checked in the TLS handshake; nothing here checks them again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::attributes::UserInfo;

/// Key under which a user's `extra` names the credential it came with.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user that a client certificate (DER) stands for; `None` when it has no common name or cannot be read.
pub fn user_of(certificate: &[u8]) -> Option<UserInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups =
        subject.iter_organization().filter_map(|value| value.as_str().ok().map(str::to_owned)).collect();
    let mut credential = "X509SHA256=".to_owned();
    for byte in Sha256::digest(certificate) {
        let _ = write!(credential, "{byte:02x}");
    }
    let extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![credential])]);
    Some(UserInfo { name, uid: String::new(), groups, extra })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn certificate(common_name: Option<&str>, organization: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn common_name_is_the_user_and_organization_the_group() {
        let user = user_of(&certificate(Some("system:node:a"), "system:nodes")).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("system:node:a", &["system:nodes".to_owned()][..])
        );
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        assert_eq!(user.extra[CREDENTIAL_ID][0].len(), "X509SHA256=".len() + 64);
    }

    #[test]
    fn a_certificate_without_a_name_is_nobody() {
        assert_eq!(user_of(&certificate(None, "system:masters")), None);
        assert_eq!(user_of(b"not a certificate"), None);
    }
}
