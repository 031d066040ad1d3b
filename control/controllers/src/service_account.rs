//! Gives every namespace a ServiceAccount `default` (upstream: pkg/controller/serviceaccount). Tokens are not its affair.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ownership;
use crate::plan::{self, Context, Plan};
use crate::table::{Change, Key};
use crate::view::{View, Watch};

/// What wakes this controller; keys are namespaces.
pub const WATCHES: &[Watch] = &[Watch::Namespace(ownership::itself), Watch::ServiceAccount(of_account)];

const NAME: &str = "default";

fn of_account(_: &View, change: &Change<ServiceAccount>) -> Vec<Key> {
    let meta = change.latest().map(|it| &it.metadata).filter(|it| it.name.as_deref() == Some(NAME));
    meta.and_then(|it| it.namespace.clone()).map(Key::cluster).into_iter().collect()
}

/// Whether things may still be made in the namespace under `key`.
pub fn is_active(view: &View, key: &Key) -> bool {
    let phase = |it: &Namespace| it.status.as_ref().and_then(|it| it.phase.clone()).unwrap_or_default();
    view.namespaces
        .at(key)
        .is_some_and(|it| it.metadata.deletion_timestamp.is_none() && phase(&it) != "Terminating")
}

/// Decides about the namespace under `key`.
pub fn plan(view: &View, key: &Key, _: &Context<'_>) -> Plan {
    if !is_active(view, key) || view.service_accounts.get(&key.name, NAME).is_some() {
        return Plan::await_change();
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    Plan::of(vec![plan::create(&account, None)])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::fake::{NOW, describe, settings};

    #[test]
    fn an_active_namespace_gets_its_account_and_a_leaving_one_does_not() {
        let view = View::default();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("team".into());
        view.namespaces.apply(namespace.clone());
        let settings = settings();
        let context = Context::at(NOW, &settings);
        expect![[r#"
            create ServiceAccount default
        "#]]
        .assert_eq(&describe(&plan(&view, &Key::cluster("team"), &context)));
        namespace.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
        view.namespaces.apply(namespace);
        expect![""].assert_eq(&describe(&plan(&view, &Key::cluster("team"), &context)));
    }
}
