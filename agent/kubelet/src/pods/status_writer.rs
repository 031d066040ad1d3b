//! Writes one pod's status: the newest wins, equal ones are left out, failures are tried again. It decides nothing
//! about the status itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::effects::{PodEffects, Written};
use super::status::readiness_flipped;

/// A burst of changes is written once; flips of readiness do not wait.
const COALESCE: Duration = Duration::from_millis(10);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The status to be written, for the object it belongs to.
pub type Wanted = Option<(Arc<Pod>, PodStatus)>;

/// Writes what `wanted` shows until its sender goes away or the object is gone. `written` is the status that the
/// API has; `stored` shows what it has from then on.
pub async fn run(
    effects: Arc<dyn PodEffects>,
    mut wanted: watch::Receiver<Wanted>,
    mut written: PodStatus,
    stored: watch::Sender<PodStatus>,
) {
    let mut retry = RETRY_FIRST;
    loop {
        if wanted.changed().await.is_err() {
            return;
        }
        let flips = wanted.borrow().as_ref().is_some_and(|(_, status)| readiness_flipped(&written, status));
        if !flips {
            tokio::time::sleep(COALESCE).await;
        }
        loop {
            let Some((pod, status)) = wanted.borrow_and_update().clone() else { break };
            if status == written {
                break;
            }
            match effects.clone().write_status(pod, written.clone(), status.clone()).await {
                Written::Stored => {
                    retry = RETRY_FIRST;
                    written = status;
                    stored.send_replace(written.clone());
                    break;
                }
                Written::Gone => return,
                Written::Later(error) => {
                    tracing::debug!(error, "pod status not written yet");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }
}
