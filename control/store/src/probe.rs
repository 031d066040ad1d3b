//! etcd's head revision, asked once for all who wait.
//!
//! A read is linearizable if it shows every write acknowledged before it began. One request is in flight at a time; whoever
//! arrives meanwhile is served by the next one, so the cost is one etcd read a round trip however many readers there are.

use std::time::Duration;

use etcd_client::Client;
use tokio::sync::{mpsc, oneshot};

use crate::config::Observer;
use crate::error::Error;

/// A key that nobody writes: reading it costs etcd one look-up, and the answer's header carries the head revision.
const NOBODY: &str = "beeline/head";

type Reply = oneshot::Sender<Result<i64, String>>;

/// Asks for the head revision.
#[derive(Clone)]
pub(crate) struct Probe {
    ask: mpsc::UnboundedSender<Reply>,
}

impl Probe {
    pub(crate) fn start(client: Client, timeout: Duration, observer: Observer) -> Self {
        let (ask, asked) = mpsc::unbounded_channel();
        tokio::spawn(serve(client, timeout, observer, asked));
        Self { ask }
    }

    /// The revision of the last write that etcd had acknowledged when this was called, or a later one.
    pub(crate) async fn head(&self) -> Result<i64, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Unavailable("the store is shut down".to_owned());
        self.ask.send(reply).map_err(|_| gone())?;
        // A read has no effect, so a failed one was never done.
        answer.await.map_err(|_| gone())?.map_err(Error::Unavailable)
    }
}

async fn serve(
    mut client: Client,
    timeout: Duration,
    observer: Observer,
    mut asked: mpsc::UnboundedReceiver<Reply>,
) {
    while let Some(first) = asked.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = asked.try_recv() {
            waiting.push(next);
        }
        let started = std::time::Instant::now();
        let answer = match tokio::time::timeout(timeout, client.get(NOBODY, None)).await {
            Ok(Ok(response)) => Ok(response.header().map_or(0, etcd_client::ResponseHeader::revision)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("request timed out".to_owned()),
        };
        observer("get", started.elapsed(), answer.is_ok());
        for reply in waiting {
            // A reader that gave up needs no answer.
            let _ = reply.send(answer.clone());
        }
    }
}
