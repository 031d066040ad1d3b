//! One certificate with its key: for whom it is, what it may be used for, and when it must be made again.
//!
//! Does not sign: see `authority`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::{PkiError, files};

/// How long a certificate that the authority signs is good for.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate with less than this left is made again (a third of its life, so that a cluster restarted
/// a few times a year never meets an expired one).
const RENEW_BEFORE: Duration = Duration::from_secs(120 * 24 * 3600);
/// Certificates start to be valid this much in the past: clocks of nodes differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Names and addresses under which a server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServingNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses of both families.
    pub addresses: Vec<IpAddr>,
}

impl ServingNames {
    /// What the API server is called: loopback, its advertised addresses, and the `kubernetes` service.
    pub fn for_apiserver(advertised: &[IpAddr], service_addresses: &[IpAddr], cluster_domain: &str) -> Self {
        let mut dns = vec!["localhost".to_owned()];
        dns.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
        dns.push(format!("kubernetes.default.svc.{cluster_domain}"));
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        let addresses: BTreeSet<IpAddr> =
            loopback.iter().chain(advertised).chain(service_addresses).copied().collect();
        Self { dns, addresses: addresses.into_iter().collect() }
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// Proves who calls.
    Client,
    /// Proves who answers, under these names.
    Server(ServingNames),
}

/// The subject and use of a certificate: everything but its key and dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Common name: for a client certificate, the Kubernetes user.
    pub common_name: String,
    /// Organization: for a client certificate, the Kubernetes group.
    pub organization: Option<String>,
    /// Client or server.
    pub usage: Usage,
}

impl Profile {
    /// A client certificate of `user` in `group`.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        Self { common_name: user.to_owned(), organization: group.map(str::to_owned), usage: Usage::Client }
    }

    /// A serving certificate for `names`.
    pub fn serving(common_name: &str, names: ServingNames) -> Self {
        Self { common_name: common_name.to_owned(), organization: None, usage: Usage::Server(names) }
    }

    /// The parameters rcgen signs, valid from `now`.
    pub(super) fn params(&self, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        set_validity(&mut params, now, LEAF_LIFETIME);
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match &self.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        if let Usage::Server(names) = &self.usage {
            for name in &names.dns {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.subject_alt_names.extend(names.addresses.iter().copied().map(SanType::IpAddress));
        }
        Ok(params)
    }

    /// Whether `certificate` still is what this profile asks for, signed by the authority with `authority_key_id`.
    pub(super) fn is_met_by(
        &self,
        certificate: &X509Certificate<'_>,
        authority_key_id: &[u8],
        now: Timestamp,
    ) -> bool {
        let not_after = certificate.validity().not_after.timestamp();
        let fresh = now.as_second() + RENEW_BEFORE.as_secs().cast_signed() < not_after;
        let ours = authority_key_identifier(certificate).is_some_and(|id| id == authority_key_id);
        fresh
            && ours
            && subject(certificate) == (self.common_name.clone(), self.organization.clone())
            && self.names_are_covered_by(certificate)
    }

    fn names_are_covered_by(&self, certificate: &X509Certificate<'_>) -> bool {
        let Usage::Server(wanted) = &self.usage else { return true };
        let Ok(Some(san)) = certificate.subject_alternative_name() else { return false };
        let mut dns = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    dns.insert((*name).to_owned());
                }
                GeneralName::IPAddress(bytes) => {
                    addresses.extend(address_of(bytes));
                }
                _ => {}
            }
        }
        wanted.dns.iter().all(|name| dns.contains(name))
            && wanted.addresses.iter().all(|a| addresses.contains(a))
    }
}

/// A certificate with its key, as text for files and kubeconfigs.
#[derive(Clone)]
pub struct Identity {
    /// The common name.
    pub user: String,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

/// Dates of a certificate issued at `now`.
pub(super) fn set_validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + since_epoch + lifetime;
}

/// Reads the ECDSA P-256 key at `path`, making one when there is none.
pub(super) fn ensure_key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = files::read_if_present(path)? {
        return KeyPair::from_pem(&pem).map_err(|e| unusable(path, e));
    }
    let key = new_key(path)?;
    files::write_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A fresh ECDSA P-256 key; `path` names it in errors.
pub(super) fn new_key(path: &Path) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Issue { name: path.display().to_string(), source })
}

pub(super) fn unusable(path: &Path, reason: impl ToString) -> PkiError {
    PkiError::Unusable { path: path.to_path_buf(), reason: reason.to_string() }
}

/// Common name and organization of a certificate's subject.
fn subject(certificate: &X509Certificate<'_>) -> (String, Option<String>) {
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next().and_then(|v| v.as_str().ok()).unwrap_or_default();
    let organization = subject.iter_organization().next().and_then(|v| v.as_str().ok());
    (common_name.to_owned(), organization.map(str::to_owned))
}

fn authority_key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
