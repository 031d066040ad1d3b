//! Service-account tokens from request to use, and their end with what they are bound to.

use apiserver::attributes::{Attributes, UserInfo};
use apiserver::auth::{Auth, AuthOptions};
use apiserver::bootstrap::rows;
use apiserver::pki::{self, ServingNames};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::etcd::Etcd;

fn post(resource: &str, subresource: &str) -> Attributes {
    Attributes {
        user: UserInfo::named("system:node:n1", &["system:nodes"]),
        verb: "create".into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: "shop".into(),
        name: "web".into(),
        resource_request: true,
        ..Attributes::default()
    }
}

async fn ask(auth: &Auth, token: &str) -> Value {
    let header = http::Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap();
    match auth.authenticator.authenticate(&header.into_parts().0, None).await {
        Ok(user) => json!(user.map(|user| user.name)),
        Err(error) => json!(error.code()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_works_until_the_pod_is_gone() {
    let Some(etcd) = Etcd::start() else { return };
    let registry = etcd.registry().await;
    let dir = tempfile::tempdir().unwrap();
    let pki = pki::ensure(dir.path(), &ServingNames::default(), Timestamp::now()).unwrap();
    let auth = Auth::new(registry.clone(), &pki, AuthOptions::default()).unwrap();
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "shop", "name": name}, "spec": spec});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "web"}});
    registry.create(rows::service_accounts(), account).await.unwrap();
    let spec = json!({"serviceAccountName": "web", "containers": [{"name": "c", "image": "i"}]});
    let pod = registry.create(rows::pods(), object("Pod", "web-1", spec)).await.unwrap();

    let request = |uid: &Value| json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": uid}}});
    let wrong =
        auth.create_token(&post("serviceaccounts", "token"), request(&json!("other"))).await.unwrap_err();
    assert_eq!(wrong.code(), 409);
    let granted =
        auth.create_token(&post("serviceaccounts", "token"), request(&pod["metadata"]["uid"])).await.unwrap();
    let token = granted["status"]["token"].as_str().unwrap();
    assert_eq!(ask(&auth, token).await, "system:serviceaccount:shop:web");

    let review =
        auth.create_review(&post("tokenreviews", ""), json!({"spec": {"token": token}})).await.unwrap();
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["web-1"]));
    let elsewhere = json!({"spec": {"token": token, "audiences": ["vault"]}});
    let review = auth.create_review(&post("tokenreviews", ""), elsewhere).await.unwrap();
    assert_eq!(review["status"]["authenticated"], Value::Null);

    registry.delete(rows::pods(), "shop", "web-1").await.unwrap();
    // Tokens are checked against the copy in memory, which follows the deletion within moments: wait for it.
    assert!(registry.get(rows::pods(), "shop", "web-1").await.is_err());
    assert_eq!(ask(&auth, token).await, 401);
    let missing = Attributes { name: "gone".into(), ..post("serviceaccounts", "token") };
    let error = auth.create_token(&missing, json!({"spec": {}})).await.unwrap_err();
    assert_eq!(error.message, r#"serviceaccounts "gone" not found"#);
}
