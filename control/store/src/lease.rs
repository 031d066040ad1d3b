//! Leases for objects that expire: shared by writes of the same lifetime that come close together.
//!
//! A lease each would make etcd check thousands of timers; upstream shares one for a minute, and so does this.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use etcd_client::Client;
use tokio::sync::Mutex;

use crate::error::Error;

/// For how long a lease is given to new writes; objects live that much longer at most.
const SHARED_FOR: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Leases {
    current: Mutex<HashMap<Duration, (i64, Instant)>>,
}

impl Leases {
    /// A lease that lives at least `ttl` from now.
    pub(crate) async fn get(&self, client: &Client, ttl: Duration) -> Result<i64, Error> {
        let mut current = self.current.lock().await;
        if let Some((id, granted)) = current.get(&ttl)
            && granted.elapsed() < SHARED_FOR
        {
            return Ok(*id);
        }
        let seconds = i64::try_from((ttl + SHARED_FOR).as_secs()).unwrap_or(i64::MAX);
        let granted = Instant::now();
        let lease = client.lease_client().grant(seconds, None).await.map_err(|it| Error::from_etcd(&it))?;
        current.insert(ttl, (lease.id(), granted));
        Ok(lease.id())
    }

    /// Forgets all leases: one was lost with etcd's data.
    pub(crate) async fn forget(&self) {
        self.current.lock().await.clear();
    }
}
