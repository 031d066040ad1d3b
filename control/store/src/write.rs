//! Writes: one object a transaction, decided by comparing revisions inside etcd.

use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};

use crate::entry::{Entry, Index};
use crate::error::Error;
use crate::store::Store;

impl<M: Index> Store<M> {
    /// Stores a new key; with `ttl` it expires by itself.
    ///
    /// # Errors
    /// [`Error::Exists`] if the key is there; errors of etcd.
    pub async fn create(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<Entry<M>, Error> {
        let absent = Compare::mod_revision(key, CompareOp::Equal, 0);
        let revision = self.put("create", absent, key, value, ttl).await?.ok_or(Error::Exists)?;
        Ok(Entry::new(key, value, revision, revision))
    }

    /// Replaces the version `of` by `value`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key is at another revision or gone; errors of etcd.
    pub async fn update(
        &self,
        of: &Entry<M>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Entry<M>, Error> {
        let unchanged = Compare::mod_revision(&*of.key, CompareOp::Equal, of.revision);
        let revision = self.put("update", unchanged, &of.key, value, ttl).await?.ok_or(Error::Conflict)?;
        Ok(Entry::new(&of.key, value, of.created, revision))
    }

    /// Removes the version `of`; gives the revision of the deletion.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key is at another revision or gone; errors of etcd.
    pub async fn delete(&self, of: &Entry<M>) -> Result<i64, Error> {
        let txn = Txn::new()
            .when([Compare::mod_revision(&*of.key, CompareOp::Equal, of.revision)])
            .and_then([TxnOp::delete(&*of.key, None)]);
        self.commit("delete", txn).await?.ok_or(Error::Conflict)
    }

    /// What etcd itself holds under `key` now: the way out of a conflict with a copy that lags behind.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key is not there; errors of etcd.
    pub async fn read_through(&self, key: &str) -> Result<Entry<M>, Error> {
        let mut client = self.client();
        let mut response = self.timed("get", client.get(key, None)).await?;
        let kv = response.take_kvs().pop().ok_or(Error::NotFound)?;
        Ok(Entry::new(key, kv.value(), kv.create_revision(), kv.mod_revision()))
    }

    /// Writes if `condition` holds; `None` if it does not.
    async fn put(
        &self,
        operation: &'static str,
        condition: Compare,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Option<i64>, Error> {
        let txn = |options| Txn::new().when([condition.clone()]).and_then([TxnOp::put(key, value, options)]);
        let Some(ttl) = ttl else { return self.commit(operation, txn(None)).await };
        let lease = self.lease(ttl).await?;
        match self.commit(operation, txn(Some(PutOptions::new().with_lease(lease)))).await {
            // The lease ended early, with the etcd data it was part of: take another.
            Err(Error::Refused(why)) if why.contains("lease not found") => {
                self.forget_leases().await;
                let lease = self.lease(ttl).await?;
                self.commit(operation, txn(Some(PutOptions::new().with_lease(lease)))).await
            }
            result => result,
        }
    }

    /// The revision of the commit; `None` if the comparison failed.
    async fn commit(&self, operation: &'static str, txn: Txn) -> Result<Option<i64>, Error> {
        let mut client = self.client();
        let response = self.timed(operation, client.txn(txn)).await?;
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(response.succeeded().then_some(revision))
    }

    /// Runs an etcd call under the time limit and reports it.
    pub(crate) async fn timed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let result = match tokio::time::timeout(self.config().request_timeout, call).await {
            Ok(result) => result.map_err(|it| Error::from_etcd(&it)),
            Err(_) => Err(Error::Timeout(operation.to_owned())),
        };
        (self.config().observer)(operation, started.elapsed(), result.is_ok());
        result
    }
}
