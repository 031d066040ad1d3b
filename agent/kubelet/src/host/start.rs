//! Starts one container: image, environment, user, mounts, specification, task.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Host;
use crate::cgroup::qos;
use crate::cgroup::tree::Layout;
use crate::containerd::containers::NewContainer;
use crate::containerd::image_name::{default_pull_policy, normalize};
use crate::containerd::images::Image;
use crate::containerd::labels::Identity;
use crate::environment::{self, Sources};
use crate::oci::spec::{Mount, Namespaces, SpecError, SpecInput, build};
use crate::oci::user::{RunAs, run_as};
use crate::pods::effects::{PodEffects, Severity, StartError, StartOrder};
use crate::pods::state::{
    Exit, FailureKind, Instance, InstanceState, Sandbox, container, host_network, name, namespace, spec, uid,
};
use crate::sandbox::files::hostname;
use crate::sandbox::namespaces::Pins;
use crate::volumes::mounts::{add_file, volume_mounts};

/// How long a start waits for the first list of services.
const SERVICES_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

fn failed(kind: FailureKind) -> impl Fn(String) -> StartError {
    move |message| StartError::Failed { kind, message }
}

impl Host {
    pub(super) async fn start_container(
        self: &Arc<Self>,
        order: &StartOrder,
    ) -> Result<Instance, StartError> {
        let pod = &*order.pod;
        let missing =
            || failed(FailureKind::CreateContainerConfigError)(format!("no container {}", order.container));
        let container = container(pod, &order.container).ok_or_else(missing)?;
        // Only closed with the process.
        let _slot = self.start_slots.acquire().await;
        let image = self.find_image(pod, container).await?;
        let config_error = failed(FailureKind::CreateContainerConfigError);
        let mut identity = self.identity(pod, container, order.attempt, &image);
        let (env, run_as) =
            self.environment_and_user(order, container, &image).await.map_err(&config_error)?;
        identity.run_as = run_as;
        let mounts = self.mounts(pod, container, order.attempt, &env).map_err(&config_error)?;
        let spec = self.specification(pod, container, &image, &env, &identity, &mounts)?;
        self.remove_older(&identity).await;
        let id = identity.id();
        self.owners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(id.clone(), uid(pod).to_owned());
        let started = self.create_and_start(pod, container, &identity, &image, &spec).await;
        let instance = |state| Instance {
            id,
            attempt: order.attempt,
            image: image.name.clone(),
            image_id: image.id.clone(),
            spec_hash: identity.spec_hash.clone(),
            user: Some(identity.run_as.clone()),
            state,
        };
        match started {
            Ok(started_at) => {
                let instance = instance(InstanceState::Running { started_at });
                self.record_instance(pod, &container.name, &instance);
                Ok(instance)
            }
            Err(message) => {
                self.event(
                    pod,
                    Some(&container.name),
                    Severity::Warning,
                    "Failed",
                    &format!("Error: {message}"),
                );
                let instance = instance(InstanceState::Exited(start_error(message)));
                self.record_instance(pod, &container.name, &instance);
                Err(StartError::Run(Box::new(instance)))
            }
        }
    }

    /// The image, if policy and store allow the container to run from it.
    async fn find_image(&self, pod: &Pod, container: &Container) -> Result<Arc<Image>, StartError> {
        let reference = container.image.as_deref().unwrap_or_default();
        let fail = |kind: FailureKind, message: String| {
            self.event(pod, Some(&container.name), Severity::Warning, "Failed", &message);
            StartError::Failed { kind, message }
        };
        let Some(full) = normalize(reference) else {
            let message = format!(
                "Failed to apply default image tag \"{reference}\": couldn't parse image name \"{reference}\": invalid reference format"
            );
            self.event(pod, Some(&container.name), Severity::Warning, "InspectFailed", &message);
            return Err(failed(FailureKind::InvalidImageName)(message));
        };
        let policy = container.image_pull_policy.as_deref().unwrap_or_else(|| default_pull_policy(reference));
        match self.containerd.image(&full).await {
            Ok(Some(image)) => {
                // Nothing can be pulled here, so what is present is as new as it gets, also for Always.
                let message = format!("Container image \"{reference}\" already present on machine");
                self.event(pod, Some(&container.name), Severity::Normal, "Pulled", &message);
                Ok(image)
            }
            Ok(None) if policy == "Never" => {
                let message =
                    format!("Container image \"{reference}\" is not present with pull policy of Never");
                self.event(pod, Some(&container.name), Severity::Warning, "ErrImageNeverPull", &message);
                Err(failed(FailureKind::ErrImageNeverPull)(message))
            }
            Ok(None) => {
                let message = format!(
                    "failed to pull and unpack image \"{full}\": this node cannot pull images: load it first"
                );
                let event = format!("Failed to pull image \"{reference}\": {message}");
                self.event(pod, Some(&container.name), Severity::Warning, "Failed", &event);
                Err(failed(FailureKind::ErrImagePull)(message))
            }
            Err(error) => Err(fail(FailureKind::ErrImagePull, error.to_string())),
        }
    }

    fn identity(&self, pod: &Pod, container: &Container, attempt: u32, image: &Image) -> Identity {
        let identity = Identity::new(pod, container, attempt);
        let directory = self.config.pod_log_dir(namespace(pod), name(pod), uid(pod)).join(&container.name);
        Identity {
            image: image.name.clone(),
            image_id: image.id.clone(),
            log_path: directory.join(format!("{attempt}.log")).display().to_string(),
            cgroup: format!("{}/{}", self.cgroup_of(pod), identity.id()),
            ..identity
        }
    }

    async fn environment_and_user(
        &self,
        order: &StartOrder,
        container: &Container,
        image: &Image,
    ) -> Result<(Vec<(String, String)>, RunAs), String> {
        let pod = &*order.pod;
        self.objects.services_synced(SERVICES_WAIT).await;
        let services = self.objects.services();
        let variables = environment::services::variables(pod, services.iter().map(|service| &**service));
        let sources = self.sources(pod, container).await?;
        let facts = self.facts(Some(&order.sandbox));
        let env = environment::build(pod, container, variables, &sources, &facts)
            .map_err(|error| error.to_string())?;
        let accounts = self.containerd.accounts(image).await.map_err(|error| error.to_string())?;
        let run_as =
            run_as(pod, container, &image.process.user, &accounts).map_err(|error| error.to_string())?;
        Ok((env, run_as))
    }

    async fn sources(&self, pod: &Pod, container: &Container) -> Result<Sources, String> {
        let (config_maps, secrets) = environment::references(container);
        let mut sources = Sources::default();
        for name in config_maps {
            let data =
                self.objects.config_map(namespace(pod), &name).await.map_err(|error| error.to_string())?;
            sources.config_maps.insert(name, data);
        }
        for name in secrets {
            let data = self.objects.secret(namespace(pod), &name).await.map_err(|error| error.to_string())?;
            sources.secrets.insert(name, data);
        }
        Ok(sources)
    }

    fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        let pod_dir = self.config.pod_dir(uid(pod));
        let mut mounts = volume_mounts(pod, container, &pod_dir, env).map_err(|error| error.to_string())?;
        add_file(&mut mounts, pod_dir.join("etc-hosts"), "/etc/hosts", false);
        add_file(&mut mounts, pod_dir.join("resolv.conf"), "/etc/resolv.conf", false);
        add_file(&mut mounts, pod_dir.join("hostname"), "/etc/hostname", false);
        let shm = if spec(pod).host_ipc == Some(true) { "/dev/shm".into() } else { self.shm_dir(uid(pod)) };
        add_file(&mut mounts, shm, "/dev/shm", false);
        let message = self.files(uid(pod)).message(&container.name, attempt);
        prepare_message(&message).map_err(|error| format!("termination message file: {error}"))?;
        let destination = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        add_file(&mut mounts, message, destination, false);
        Ok(mounts)
    }

    fn specification(
        &self,
        pod: &Pod,
        container: &Container,
        image: &Image,
        env: &[(String, String)],
        identity: &Identity,
        mounts: &[Mount],
    ) -> Result<serde_json::Value, StartError> {
        let pins = Pins::new(self.config.pins_dir(uid(pod)));
        let network = if host_network(pod) { self.node_network_pin() } else { pins.net() };
        let namespaces = Namespaces {
            network: Some(network),
            ipc: Some(pins.ipc()),
            uts: Some(pins.uts()),
            host_pid: spec(pod).host_pid == Some(true),
            host_ipc: spec(pod).host_ipc == Some(true),
            private_cgroup: self.cgroups.layout() == Layout::Unified,
        };
        let input = SpecInput {
            pod,
            container,
            image: &image.process,
            env,
            hostname: &hostname(pod, &self.hostname, &self.config.cluster_domain),
            run_as: identity.run_as.clone(),
            mounts,
            cgroups_path: &format!("/{}", identity.cgroup),
            namespaces: &namespaces,
            limits: qos::container_limits(container),
            oom_score_adj: qos::oom_score_adj(pod, container, self.machine.memory_bytes),
            machine: &self.machine,
        };
        build(&input).map_err(|error| {
            let kind = match error {
                SpecError::NoCommand => FailureKind::CreateContainerError,
                SpecError::Seccomp(_) | SpecError::Capability(_) => FailureKind::CreateContainerConfigError,
            };
            failed(kind)(error.to_string())
        })
    }

    async fn create_and_start(
        &self,
        pod: &Pod,
        container: &Container,
        identity: &Identity,
        image: &Image,
        spec: &serde_json::Value,
    ) -> Result<Timestamp, String> {
        let new = NewContainer { identity, image, spec };
        self.containerd.create(&new).await.map_err(|error| error.to_string())?;
        let own = Some(container.name.as_str());
        self.event(pod, own, Severity::Normal, "Created", &format!("Created container: {}", container.name));
        self.containerd.start(&identity.id()).await.map_err(|error| error.to_string())?;
        let now = Timestamp::now();
        self.event(pod, own, Severity::Normal, "Started", &format!("Started container {}", container.name));
        Ok(now)
    }

    /// The record of the run before is of no use any more, and logs are kept of the last two runs only.
    async fn remove_older(&self, identity: &Identity) {
        let files = self.files(&identity.pod_uid);
        for record in files.load_instances(&identity.container) {
            if record.attempt < identity.attempt
                && let Err(error) = self.containerd.remove(&record.id).await
            {
                tracing::warn!(container = record.id, %error, "old container not removed");
            }
        }
        let Some(oldest) = identity.attempt.checked_sub(1) else { return };
        files.drop_instances_before(&identity.container, oldest);
        let Some(logs) = Path::new(&identity.log_path).parent() else { return };
        for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
            let attempt =
                entry.file_name().to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
            if attempt.is_some_and(|attempt| attempt < oldest) {
                // Gone or not: only disk space.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// How a process that could not be started ended: upstream's code and reason.
fn start_error(message: String) -> Exit {
    Exit {
        code: 128,
        reason: "StartError".into(),
        message: Some(message),
        started_at: None,
        finished_at: Timestamp::now(),
    }
}

/// An empty file that any user of the container may write.
fn prepare_message(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

/// The sandbox files that exist before a container's own: used by adoption.
pub(crate) fn sandbox_is_up(host: &Host, pod: &Pod, sandbox: Option<&Sandbox>) -> bool {
    sandbox.is_some() && Pins::new(host.config.pins_dir(uid(pod))).present(!host_network(pod))
}
