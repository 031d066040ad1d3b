//! Compaction: tells etcd to forget old revisions, by one server of many.
//!
//! All servers race for a transaction on one key, as upstream's do: who wins compacts to the revision that the last winner
//! wrote down, one interval ago.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

/// Upstream's key, so that servers of both kinds can share an etcd.
const KEY: &str = "compact_rev_key";

/// Compacts every `interval`, for ever.
pub(crate) async fn run(client: Client, interval: Duration) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::time::sleep(interval).await;
        match step(client.clone(), version, revision).await {
            Ok(next) => (version, revision) = next,
            Err(error) => tracing::warn!(%error, "compaction failed, trying again in one interval"),
        }
    }
}

/// One race. `version` and `revision` are what this server saw last time; the answer is what it sees now.
async fn step(mut client: Client, version: i64, revision: i64) -> Result<(i64, i64), etcd_client::Error> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, version)])
        .and_then([TxnOp::put(KEY, revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let response = client.txn(txn).await?;
    let head = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    if !response.succeeded() {
        let version = response.op_responses().into_iter().find_map(|it| match it {
            TxnOpResponse::Get(get) => get.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok((version.unwrap_or(0), head));
    }
    if revision > 0 {
        client.compact(revision, None).await?;
        tracing::debug!(revision, "compacted");
    }
    Ok((version + 1, head))
}
