//! Publishes the cluster's CA certificate as ConfigMap `kube-root-ca.crt` in every namespace, where projected
//! service-account volumes expect it (upstream: pkg/controller/certificates/rootcacertpublisher).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::ownership;
use crate::plan::{self, Context, Plan};
use crate::service_account::is_active;
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller; keys are namespaces.
pub const WATCHES: &[Watch] = &[Watch::Namespace(ownership::itself), Watch::ConfigMap(of_config_map)];

/// The ConfigMap's name.
pub const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal \
                    service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

fn of_config_map(_: &View, change: &Change<ConfigMap>) -> Vec<Key> {
    let meta = change.latest().map(|it| &it.metadata).filter(|it| it.name.as_deref() == Some(NAME));
    meta.and_then(|it| it.namespace.clone()).map(Key::cluster).into_iter().collect()
}

/// Decides about the namespace under `key`.
pub fn plan(view: &View, key: &Key, context: &Context<'_>) -> Plan {
    let pem = &context.settings.root_ca_pem;
    if pem.is_empty() || !is_active(view, key) {
        return Plan::await_change();
    }
    let action = match view.config_maps.get(&key.name, NAME) {
        Some(map) if map.data.as_ref().and_then(|it| it.get(FIELD)) == Some(pem) => {
            return Plan::await_change();
        }
        Some(map) => plan::guarded_patch(&*map, json!({"data": {FIELD: pem}})),
        None => plan::create(
            &ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(key.name.clone()),
                    annotations: Some(BTreeMap::from([(DESCRIPTION.into(), TEXT.into())])),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(FIELD.into(), pem.clone())])),
                ..ConfigMap::default()
            },
            None,
        ),
    };
    Plan::of(vec![action])
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;
    use crate::fake::{NOW, describe, settings};

    fn check(published: Option<&str>, want: Expect) {
        let view = View::default();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("team".into());
        view.namespaces.apply(namespace);
        if let Some(pem) = published {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(NAME.into());
            map.metadata.namespace = Some("team".into());
            map.metadata.resource_version = Some("7".into());
            map.data = Some(BTreeMap::from([(FIELD.into(), pem.into())]));
            view.config_maps.apply(map);
        }
        let settings = settings();
        let context = Context::at(NOW, &settings);
        want.assert_eq(&describe(&plan(&view, &Key::cluster("team"), &context)));
    }

    #[test]
    fn a_missing_certificate_is_published_and_a_changed_one_put_right() {
        check(
            None,
            expect![[r#"
            create ConfigMap kube-root-ca.crt
        "#]],
        );
        check(
            Some("edited"),
            expect![[r#"
            patch ConfigMap kube-root-ca.crt {"data":{"ca.crt":"PEM"},"metadata":{"resourceVersion":"7"}}
        "#]],
        );
        check(Some("PEM"), expect![""]);
    }
}
