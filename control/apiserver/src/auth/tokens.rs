//! Service-account tokens as bytes: JSON Web Tokens signed with ECDSA P-256 (`ES256`), their claims, and the
//! documents by which others can check them.
//!
//! Pure but for the signature's randomness. Whether the account, pod or node a token names still exists is
//! checked by `authenticator`; who may ask for a token, by `token_request`.
//!
//! # See
//! RFC 7515 (JWS), RFC 7517 (JWK), KEP-1205 (bound tokens), KEP-4193 (jti and node).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// DER of a SubjectPublicKeyInfo up to the point of a P-256 key (RFC 5480), for the key's identifier.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts of JSON, or another algorithm than ES256.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// Signed by another key, or changed since.
    #[error("token signature does not verify")]
    Signature,
    /// Made by another issuer.
    #[error("token issuer {0:?} is not this cluster")]
    Issuer(String),
    /// Not yet valid, or no longer.
    #[error("token is outside its validity: {0}")]
    Time(&'static str),
    /// Meant for somebody else.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// The signing key cannot be used.
    #[error("service-account signing key: {0}")]
    Key(String),
    /// Names an account, pod or node that is gone, or was created again under its name.
    #[error("{0}")]
    Unbound(String),
}

/// A name with the uid it had when the token was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Object name.
    pub name: String,
    /// Object uid.
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of the account (and pod, secret).
    pub namespace: String,
    /// The node the pod runs on, or the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod the token lives with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret the token lives with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    pub serviceaccount: Reference,
}

/// All claims of a token. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom the token is for.
    pub aud: Vec<String>,
    /// Expiry.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own identity.
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// Not before.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// Signs and checks tokens of one issuer with one key.
pub struct Issuer {
    key: EcdsaKeyPair,
    key_id: String,
    issuer: String,
    random: SystemRandom,
}

impl Issuer {
    /// An issuer that signs with the PKCS#8 `key` in the name of `issuer` (a URL).
    pub fn new(pkcs8: &[u8], issuer: &str) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|e| TokenError::Key(e.to_string()))?;
        let mut spki = Sha256::new();
        spki.update(P256_SPKI_PREFIX);
        spki.update(key.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(spki.finalize());
        Ok(Self { key, key_id, issuer: issuer.to_owned(), random })
    }

    /// The issuer's URL, the `iss` claim.
    pub fn url(&self) -> &str {
        &self.issuer
    }

    /// The signed token.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = serde_json::to_value(claims).map_err(|e| TokenError::Key(e.to_string()))?;
        let signed =
            format!("{}.{}", encode(&json!({ "alg": "ES256", "kid": self.key_id })), encode(&claims));
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| TokenError::Key("signing failed".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this issuer signed, that is valid at `now` (seconds since the epoch) and meant
    /// for one of `audiences`.
    pub fn verify(&self, token: &str, audiences: &[String], now: i64) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no signature"))?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed("no claims"))?;
        let header: Value = decode(header)?;
        if header["alg"] != "ES256" {
            return Err(TokenError::Malformed("algorithm is not ES256"));
        }
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed("not base64url"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = decode(claims)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer(claims.iss));
        }
        if now >= claims.exp {
            return Err(TokenError::Time("expired"));
        }
        if now < claims.nbf {
            return Err(TokenError::Time("not valid yet"));
        }
        if claims.jti.is_empty() {
            return Err(TokenError::Malformed("no jti"));
        }
        let bound = &claims.bound;
        if claims.sub != account_user(&bound.namespace, &bound.serviceaccount.name) {
            return Err(TokenError::Malformed("subject is not the bound service account"));
        }
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            return Err(TokenError::Audience(claims.aud, audiences.to_vec()));
        }
        Ok(claims)
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref();
        // An uncompressed point: 0x04, then x and y of 32 bytes each (SEC 1, 2.3.3).
        let (x, y) = (&point[1..33], &point[33..65]);
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }

    /// `/.well-known/openid-configuration`; `jwks_uri` is where clients find the keys.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// User name of a service account.
pub fn account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// `(namespace, name)` of a user name that is a service account's.
pub fn parse_account_user(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Groups of every service account of `namespace`.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed("not the JSON of a bound token"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn issuer() -> Issuer {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Issuer::new(key.serialized_der(), "https://kubernetes.default.svc").unwrap()
    }

    fn claims() -> Claims {
        Claims {
            aud: vec!["api".into()],
            exp: NOW + 3600,
            iat: NOW,
            iss: "https://kubernetes.default.svc".into(),
            jti: "a-1".into(),
            bound: Bound {
                namespace: "shop".into(),
                node: Some(Reference { name: "n1".into(), uid: "u-n".into() }),
                pod: Some(Reference { name: "p1".into(), uid: "u-p".into() }),
                secret: None,
                serviceaccount: Reference { name: "web".into(), uid: "u-sa".into() },
            },
            nbf: NOW,
            sub: "system:serviceaccount:shop:web".into(),
        }
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Claims), now: i64, expected: Result<(), TokenError>) {
        let issuer = issuer();
        let mut claims = claims();
        change(&mut claims);
        let verified = issuer.verify(&issuer.sign(&claims).unwrap(), &["api".to_owned()], now);
        assert_eq!(verified, expected.map(|()| claims));
    }

    #[test]
    fn a_token_is_good_for_its_audience_and_time_and_issuer_only() {
        check(|_| {}, NOW, Ok(()));
        check(|_| {}, NOW + 3599, Ok(()));
        check(|_| {}, NOW + 3600, Err(TokenError::Time("expired")));
        check(|_| {}, NOW - 1, Err(TokenError::Time("not valid yet")));
        check(
            |c| c.aud = vec!["vault".into()],
            NOW,
            Err(TokenError::Audience(vec!["vault".into()], vec!["api".into()])),
        );
        check(|c| c.aud.push("vault".into()), NOW, Ok(()));
        check(|c| c.iss = "https://other".into(), NOW, Err(TokenError::Issuer("https://other".into())));
        check(|c| c.jti.clear(), NOW, Err(TokenError::Malformed("no jti")));
        check(
            |c| c.sub = "system:serviceaccount:kube-system:root".into(),
            NOW,
            Err(TokenError::Malformed("subject is not the bound service account")),
        );
    }

    #[test]
    fn a_changed_or_foreign_token_does_not_verify() {
        let (ours, theirs) = (issuer(), issuer());
        let audiences = ["api".to_owned()];
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(theirs.verify(&token, &audiences, NOW), Err(TokenError::Signature));

        let mut other = claims();
        other.bound.pod = None;
        let forged_claims = URL_SAFE_NO_PAD.encode(serde_json::to_string(&other).unwrap());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{forged_claims}.{}", parts[0], parts[2]);
        assert_eq!(ours.verify(&forged, &audiences, NOW), Err(TokenError::Signature));

        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
        assert_eq!(
            ours.verify(&unsigned, &audiences, NOW),
            Err(TokenError::Malformed("algorithm is not ES256"))
        );
        for text in ["", "x", "a.b", "a.b.c", "...."] {
            assert!(matches!(ours.verify(text, &audiences, NOW), Err(TokenError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn the_published_key_has_the_identifier_in_the_tokens_header() {
        let issuer = issuer();
        let token = issuer.sign(&claims()).unwrap();
        let header: Value = decode(token.split('.').next().unwrap()).unwrap();
        let jwks = issuer.jwks();
        assert_eq!(jwks["keys"][0]["kid"], header["kid"]);
        assert_eq!(jwks["keys"][0]["x"].as_str().unwrap().len(), 43);
    }

    #[test]
    fn service_account_user_names_are_taken_apart_and_others_are_not() {
        for (user, expected) in [
            ("system:serviceaccount:a:b", Some(("a", "b"))),
            ("system:serviceaccount:a", None),
            ("system:serviceaccount::b", None),
            ("system:serviceaccount:a:b:c", None),
            ("jane", None),
        ] {
            assert_eq!(parse_account_user(user), expected, "{user}");
        }
    }
}
