//! Leader election: of several processes with the same role, the holder of a Lease works (upstream: client-go
//! tools/leaderelection, with its 15 s / 10 s / 2 s). It stops the work before the lease can be taken by another.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How long others respect a lease that is not renewed.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a holder tries to renew before it gives up the work.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The lease as last seen, and when it last changed by our own clock: clocks of others are not trusted.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    /// A candidate called `identity` for the Lease kube-system/`name`.
    pub fn new(client: Client, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, "kube-system"),
            name: name.into(),
            identity: identity.into(),
            seen: None,
        }
    }

    /// Waits for the lease, then runs `work` while it is held.
    ///
    /// # Errors
    /// [`Error::LeadershipLost`] when the lease could not be renewed in time; the work is dropped then.
    pub async fn lead(
        mut self,
        shutdown: &CancellationToken,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        loop {
            match self.try_hold().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, lease = self.name, "cannot take the lease yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY_PERIOD) => {}
            }
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        let result = tokio::select! {
            result = work => result,
            () = self.renew() => Err(Error::LeadershipLost(self.name.clone())),
        };
        if shutdown.is_cancelled() {
            self.release().await;
        }
        result
    }

    /// Renews until that fails for too long.
    async fn renew(&mut self) {
        let mut held = Instant::now();
        while held.elapsed() < RENEW_DEADLINE {
            tokio::time::sleep(RETRY_PERIOD).await;
            let left = RENEW_DEADLINE.saturating_sub(held.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => held = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(%error, lease = self.name, "lease not renewed"),
                Err(_) => return,
            }
        }
    }

    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(claim(None, &self.identity, Timestamp::now())),
            };
            return self.api.create(&PostParams::default(), &lease).await.map(|_| true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(known, _)| *known != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let age = self.seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if !may_take(&spec, &self.identity, age) {
            return Ok(false);
        }
        lease.spec = Some(claim(Some(&spec), &self.identity, Timestamp::now()));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets the next candidate in without waiting.
    async fn release(&self) {
        let give_up = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        let _ = tokio::time::timeout(RETRY_PERIOD, give_up).await;
    }
}

/// Whether `identity` may hold a lease that has not changed for `age`.
fn may_take(spec: &LeaseSpec, identity: &str, age: Duration) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    holder.is_empty() || holder == identity || age > Duration::from_secs(seconds)
}

/// The lease as `identity` holds it from `now` on.
fn claim(old: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let old = old.cloned().unwrap_or_default();
    let is_mine = old.holder_identity.as_deref() == Some(identity);
    let transitions = old.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: if is_mine { old.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_mine || old.renew_time.is_none() {
            transitions
        } else {
            transitions + 1
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_free_ours_or_expired() {
        for (holder, age, want) in [("", 0, true), ("me", 0, true), ("other", 15, false), ("other", 16, true)]
        {
            assert_eq!(
                may_take(&held_by(holder), "me", Duration::from_secs(age)),
                want,
                "{holder:?} for {age} s"
            );
        }
    }

    #[test]
    fn transitions_count_changes_of_the_holder() {
        let now = Timestamp::UNIX_EPOCH;
        let first = claim(None, "a", now);
        let renewed = claim(Some(&first), "a", now);
        let taken = claim(Some(&renewed), "b", now);
        let counts = [&first, &renewed, &taken].map(|it| it.lease_transitions);
        assert_eq!(counts, [Some(0), Some(0), Some(1)]);
    }
}
