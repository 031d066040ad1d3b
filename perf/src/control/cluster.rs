//! The cluster as `perf control` uses it: a namespace of its own, and objects in it. Ten thousand objects need a client that
//! keeps its connections, so this is no `kubectl`; it logs in as a kubeconfig says.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};
use serde_json::Value;

use super::manifest;
use crate::flags::{Control, Family};
use crate::progress::Progress;

/// How long a namespace with tens of thousands of objects may take to go.
const REMOVAL: Duration = Duration::from_secs(900);
/// How often it is looked whether it is gone.
const LOOK: Duration = Duration::from_secs(1);

/// The namespace, and who may write to it.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
    family: Family,
    parallel: usize,
}

impl Cluster {
    /// Logs in.
    pub(super) async fn open(args: &Control) -> Result<Self> {
        let file = match &args.kubeconfig {
            Some(path) => read(path)?,
            None => Kubeconfig::read().context("find a kubeconfig")?,
        };
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("kubeconfig")?;
        Ok(Self {
            client: Client::try_from(config).context("API client")?,
            namespace: args.namespace.clone(),
            family: args.family,
            parallel: usize::from(args.parallel),
        })
    }

    /// The version of the API server.
    pub(super) async fn version(&self) -> Result<String> {
        Ok(self.client.apiserver_version().await.context("ask the API server")?.git_version)
    }

    /// All nodes, as a list of the API.
    pub(super) async fn nodes(&self) -> Result<Value> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        Ok(serde_json::to_value(nodes.context("list nodes")?)?)
    }

    /// Makes the namespace, which must not be there.
    pub(super) async fn make_namespace(&self) -> Result<()> {
        let name = &self.namespace;
        let namespace = serde_json::from_value(crate::service::manifest::namespace(name))?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.with_context(|| {
            format!(
                "create namespace {name} (left by a run that was cut short? kubectl delete namespace {name})"
            )
        })?;
        Ok(())
    }

    /// Removes the namespace with all that is in it, and waits for it. Services and their slices go first, many at the same
    /// time: who cleans a namespace up takes one after another.
    pub(super) async fn remove_namespace(&self) -> Result<()> {
        let services = self.api::<Service>().list_metadata(&ListParams::default()).await;
        let services = services.context("list services")?.items.into_iter();
        let names: Vec<_> = services.filter_map(|service| service.metadata.name).collect();
        self.delete_services(&names).await?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let name = &self.namespace;
        let begun = Instant::now();
        match namespaces.delete(name, &DeleteParams::default()).await {
            Err(error) if !is_absent(&error) => {
                return Err(error).with_context(|| format!("remove namespace {name}"));
            }
            _ => {}
        }
        while namespaces.get_opt(name).await.context("look for the namespace")?.is_some() {
            if begun.elapsed() > REMOVAL {
                bail!("namespace {name} is still there after {} s", REMOVAL.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods, to watch them or to run something in them.
    pub(super) fn pods(&self) -> Api<Pod> {
        self.api()
    }

    /// Creates an object.
    pub(super) async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let kind = K::kind(&());
        let object = serde_json::from_value(object).with_context(|| format!("{kind} {name}"))?;
        let created = self.api::<K>().create(&PostParams::default(), &object).await;
        created.with_context(|| format!("create {kind} {name}"))
    }

    /// Creates a Service and gives the address that it got.
    pub(super) async fn create_service(&self, service: Value) -> Result<IpAddr> {
        let created: Service = self.create(service).await?;
        let address =
            created.spec.and_then(|spec| spec.cluster_ip).context("the Service has no clusterIP")?;
        let address: IpAddr = address.parse().with_context(|| format!("clusterIP {address:?}"))?;
        ensure!(self.family.has(address), "clusterIP {address} is not of the family that was asked for");
        Ok(address)
    }

    /// Creates the Services that are only there, from number `from` to the one before `to`.
    pub(super) async fn create_background(&self, from: usize, to: usize, progress: &Progress) -> Result<()> {
        stream::iter(from..to)
            .map(|index| async move {
                let name = manifest::background(index);
                let endpoints = manifest::background_endpoints(self.family, index);
                self.create_service(manifest::service(&name, self.family, None)).await?;
                self.create::<EndpointSlice>(manifest::slice(&name, self.family, &endpoints)).await?;
                progress.step();
                anyhow::Ok(())
            })
            .buffer_unordered(self.parallel)
            .try_collect()
            .await
    }

    /// Gives the slice of a Service other endpoints.
    pub(super) async fn change(&self, service: &str, endpoints: &[IpAddr]) -> Result<()> {
        let patch = Patch::Merge(manifest::change(endpoints));
        let patched = self.api::<EndpointSlice>().patch(service, &PatchParams::default(), &patch).await;
        patched.map(drop).with_context(|| format!("change EndpointSlice {service}"))
    }

    /// Removes Services (and with them, if they have any, their slices of the same name).
    pub(super) async fn delete_services(&self, names: &[String]) -> Result<()> {
        stream::iter(names)
            .map(|name| async move {
                self.delete::<Service>(name).await?;
                self.delete::<EndpointSlice>(name).await
            })
            .buffer_unordered(self.parallel)
            .try_collect()
            .await
    }

    async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        match self.api::<K>().delete(name, &DeleteParams::default()).await {
            Err(error) if !is_absent(&error) => {
                Err(error).with_context(|| format!("delete {} {name}", K::kind(&())))
            }
            _ => Ok(()),
        }
    }

    /// Waits until a pod is Ready.
    pub(super) async fn wait_until_ready(&self, pod: &str, limit: Duration) -> Result<()> {
        self.wait_for(pod, limit, "Ready", |pod: Option<&Pod>| pod.is_some_and(is_ready)).await
    }

    /// Removes a pod and waits until it is gone.
    pub(super) async fn remove_pod(&self, pod: &str, limit: Duration) -> Result<()> {
        self.delete::<Pod>(pod).await?;
        self.wait_for(pod, limit, "gone", |pod: Option<&Pod>| pod.is_none()).await
    }

    async fn wait_for(
        &self,
        pod: &str,
        limit: Duration,
        what: &str,
        condition: impl Fn(Option<&Pod>) -> bool,
    ) -> Result<()> {
        let wait = tokio::time::timeout(limit, await_condition(self.pods(), pod, condition)).await;
        wait.with_context(|| format!("pod {pod} is not {what} after {} s", limit.as_secs()))?
            .map(drop)
            .with_context(|| format!("watch pod {pod}"))
    }

    /// The address of a pod, of the family that is measured.
    pub(super) async fn address(&self, pod: &str) -> Result<IpAddr> {
        let found = self.pods().get(pod).await.with_context(|| format!("get pod {pod}"))?;
        let addresses = found.status.and_then(|status| status.pod_ips).unwrap_or_default();
        let mut addresses = addresses.iter().filter_map(|address| address.ip.parse().ok());
        addresses
            .find(|address| self.family.has(*address))
            .with_context(|| format!("pod {pod} has no {} address", self.family.name()))
    }
}

fn read(path: &Path) -> Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("kubeconfig {}", path.display()))
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
