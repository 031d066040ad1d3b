//! The cluster's certificate authority: its own certificate and key, and the signing of others.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::{ensure_key, new_key, set_validity, unusable};
use super::{Identity, PkiError, Profile, files};

/// How long the authority's own certificate is good for: as with kubeadm, ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Signs every certificate of the cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_id: Vec<u8>,
}

impl Authority {
    /// Loads `ca.crt` and `ca.key` of `dir`, making both when the certificate is missing.
    pub(super) fn ensure(dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if let Some(certificate_pem) = files::read_if_present(&certificate_path)? {
            return Self::from_pem(&certificate_path, certificate_pem, &key_path);
        }
        let key = ensure_key(&key_path)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, AUTHORITY_LIFETIME);
        let certificate =
            params.self_signed(&key).map_err(|source| PkiError::Issue { name: "ca".to_owned(), source })?;
        files::write_public(&certificate_path, certificate.pem().as_bytes())?;
        Self::from_pem(&certificate_path, certificate.pem(), &key_path)
    }

    /// Loads the authority of `dir`, which must be there.
    pub(super) fn load(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("ca.crt");
        let pem = files::read_if_present(&path)?.ok_or_else(|| {
            unusable(&path, "missing: start beeline-control once before issuing certificates")
        })?;
        Self::from_pem(&path, pem, &dir.join("ca.key"))
    }

    fn from_pem(path: &Path, certificate_pem: String, key_path: &Path) -> Result<Self, PkiError> {
        // A certificate whose key is lost must not be replaced silently: every node trusts it.
        let key_pem = files::read_if_present(key_path)?
            .ok_or_else(|| unusable(key_path, "missing, though its certificate is there"))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(key_path, e))?;
        let der =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| unusable(path, e))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| unusable(path, e))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(unusable(path, "not the certificate of the key beside it"));
        }
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let key_id = key_id.ok_or_else(|| unusable(path, "no subject key identifier"))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| unusable(path, e))?;
        Ok(Self { issuer, certificate_pem, key_id })
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a new certificate with a new key; `name` appears in errors.
    pub(super) fn issue(&self, name: &Path, profile: &Profile, now: Timestamp) -> Result<Identity, PkiError> {
        let key = new_key(name)?;
        let failed = |source| PkiError::Issue { name: name.display().to_string(), source };
        let certificate =
            profile.params(now).and_then(|params| params.signed_by(&key, &self.issuer)).map_err(failed)?;
        Ok(Identity {
            user: profile.common_name.clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The identity stored as `stem.crt` and `stem.key` in `dir`, issued when it is missing or no longer fits.
    pub(super) fn ensure_identity(
        &self,
        dir: &Path,
        stem: &str,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<Identity, PkiError> {
        let certificate_path = dir.join(format!("{stem}.crt"));
        let key_path = dir.join(format!("{stem}.key"));
        if let (Some(certificate_pem), Some(key_pem)) =
            (files::read_if_present(&certificate_path)?, files::read_if_present(&key_path)?)
        {
            let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
                .map_err(|e| unusable(&certificate_path, e))?;
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| unusable(&certificate_path, e))?;
            let key = KeyPair::from_pem(&key_pem).map_err(|e| unusable(&key_path, e))?;
            // A crash between the two writes leaves a certificate beside another one's key.
            let matching = parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
            if matching && profile.is_met_by(&parsed, &self.key_id, now) {
                return Ok(Identity { user: profile.common_name.clone(), certificate_pem, key_pem });
            }
        }
        let identity = self.issue(&certificate_path, profile, now)?;
        files::write_private(&key_path, identity.key_pem.as_bytes())?;
        files::write_public(&certificate_path, identity.certificate_pem.as_bytes())?;
        Ok(identity)
    }
}
