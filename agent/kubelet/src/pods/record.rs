//! What a node remembers of a pod on its own disk: the last accepted object, and each instance's start and end. A
//! restarted agent reads it before it has heard of the API. Written by temporary file and rename.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::state::{Exit, Instance, InstanceState, RunAs, Sandbox, Termination, Verdict};

/// `pod.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodRecord {
    /// The last object accepted from the API.
    pub pod: Pod,
    /// status.startTime.
    pub start_time: Timestamp,
    /// Set when the pod was refused.
    pub rejection: Option<Verdict>,
    /// Set when the pod is ending.
    pub termination: Option<Termination>,
    /// Set when the sandbox is up.
    pub sandbox: Option<Sandbox>,
}

/// `containers/<name>/<attempt>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Runtime id.
    pub id: String,
    /// Number of the run.
    pub attempt: u32,
    /// Resolved image name.
    pub image: String,
    /// `repository@digest`.
    pub image_id: String,
    /// Hash of the spec.
    pub spec_hash: String,
    /// Who runs it.
    pub run_as: RunAs,
    /// When it started.
    pub started_at: Timestamp,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
}

impl From<InstanceRecord> for Instance {
    fn from(record: InstanceRecord) -> Self {
        let state = match record.exit {
            Some(exit) => InstanceState::Exited(exit),
            None => InstanceState::Running { started_at: record.started_at },
        };
        Self {
            id: record.id,
            attempt: record.attempt,
            image: record.image,
            image_id: record.image_id,
            spec_hash: record.spec_hash,
            user: Some(record.run_as),
            state,
        }
    }
}

impl From<&Instance> for InstanceRecord {
    fn from(instance: &Instance) -> Self {
        let (started_at, exit) = match &instance.state {
            InstanceState::Running { started_at } => (*started_at, None),
            InstanceState::Exited(exit) => (exit.started_at.unwrap_or(exit.finished_at), Some(exit.clone())),
        };
        Self {
            id: instance.id.clone(),
            attempt: instance.attempt,
            image: instance.image.clone(),
            image_id: instance.image_id.clone(),
            spec_hash: instance.spec_hash.clone(),
            run_as: instance.user.clone().unwrap_or_default(),
            started_at,
            exit,
        }
    }
}

/// The files of one pod.
#[derive(Debug, Clone)]
pub struct PodFiles {
    directory: PathBuf,
}

impl PodFiles {
    /// Below `<root>/pods/<uid>`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Saves the pod's record durably: it must be on disk before the first effect.
    pub fn save(&self, record: &PodRecord) -> io::Result<()> {
        write(&self.directory.join("pod.json"), record, true)
    }

    /// The pod's record, if there is a readable one.
    pub fn load(&self) -> Option<PodRecord> {
        read(&self.directory.join("pod.json"))
    }

    /// Saves the status written last.
    pub fn save_status(&self, status: &PodStatus) -> io::Result<()> {
        write(&self.directory.join("status.json"), status, false)
    }

    /// The status written last.
    pub fn load_status(&self) -> Option<PodStatus> {
        read(&self.directory.join("status.json"))
    }

    /// Saves one run of a container.
    pub fn save_instance(&self, container: &str, record: &InstanceRecord) -> io::Result<()> {
        write(&self.instances(container).join(format!("{}.json", record.attempt)), record, false)
    }

    /// Runs of a container, the oldest first.
    pub fn load_instances(&self, container: &str) -> Vec<InstanceRecord> {
        let entries = fs::read_dir(self.instances(container)).into_iter().flatten().flatten();
        let mut list: Vec<InstanceRecord> = entries.filter_map(|entry| read(&entry.path())).collect();
        list.sort_by_key(|record| record.attempt);
        list
    }

    /// Forgets runs before `attempt`: their records and termination messages.
    pub fn drop_instances_before(&self, container: &str, attempt: u32) {
        for record in self.load_instances(container).into_iter().filter(|record| record.attempt < attempt) {
            let _ = fs::remove_file(self.instances(container).join(format!("{}.json", record.attempt)));
            let _ = fs::remove_file(self.message(container, record.attempt));
        }
    }

    /// The file that a run may leave its termination message in.
    pub fn message(&self, container: &str, attempt: u32) -> PathBuf {
        self.instances(container).join(format!("{attempt}.message"))
    }

    /// Removes all of it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn instances(&self, container: &str) -> PathBuf {
        self.directory.join("containers").join(container)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize, durable: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    if durable {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn instances_come_back_in_order_and_old_ones_can_be_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let files = PodFiles::new(directory.path().join("uid"));
        for attempt in [2, 0, 10] {
            let record = InstanceRecord {
                id: format!("c-{attempt}"),
                attempt,
                image: "i".into(),
                image_id: "i@d".into(),
                spec_hash: "h".into(),
                run_as: RunAs::default(),
                started_at: Timestamp::UNIX_EPOCH,
                exit: None,
            };
            files.save_instance("c", &record).unwrap();
        }
        let attempts = || files.load_instances("c").iter().map(|record| record.attempt).collect::<Vec<_>>();
        assert_eq!(attempts(), [0, 2, 10]);
        files.drop_instances_before("c", 2);
        assert_eq!(attempts(), [2, 10]);
        files.remove().unwrap();
        assert_eq!(attempts(), [0; 0]);
    }
}
