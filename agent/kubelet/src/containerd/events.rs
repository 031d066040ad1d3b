//! Task events of this node's containers, without gaps: after every (re)connection the first thing delivered is
//! `Resync`, and only after it may tasks be listed.
//!
//! containerd answers a subscription only with its first event. So a marker event is published until it arrives.

use std::time::Duration;

use containerd_client::events::TaskExit;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::tonic::Streaming;
use containerd_client::types::Envelope;
use jiff::Timestamp;
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc::Sender;

use super::client::{Containerd, RuntimeError, at};
use super::containers::timestamp;

const MARKER_TOPIC: &str = "/beeline/subscribed";
const MARKER_EVERY: Duration = Duration::from_millis(50);
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEvent {
    /// Events may have been missed: compare with a list.
    Resync,
    /// A container's first process ended.
    Exit {
        /// Runtime id.
        id: String,
        /// Exit code; 128 + signal for a signal.
        code: i32,
        /// When.
        at: Timestamp,
    },
}

impl Containerd {
    /// Delivers events until the receiver goes away, reconnecting for ever.
    pub async fn follow_events(&self, events: Sender<TaskEvent>) {
        while !events.is_closed() {
            if let Err(error) = self.follow_once(&events).await {
                tracing::warn!(%error, "containerd events interrupted");
            }
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    async fn follow_once(&self, events: &Sender<TaskEvent>) -> Result<(), RuntimeError> {
        let mut stream = self.subscribe().await?;
        if events.send(TaskEvent::Resync).await.is_err() {
            return Ok(());
        }
        while let Some(envelope) = stream.message().await.map_err(at("events"))? {
            if let Some(event) = exit_of(&envelope)
                && events.send(event).await.is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<Streaming<Envelope>, RuntimeError> {
        let namespace = &self.namespace_name;
        let filters = ["/tasks/exit", MARKER_TOPIC]
            .map(|topic| format!("namespace==\"{namespace}\",topic==\"{topic}\""));
        let mut client = EventsClient::new(self.channel.clone());
        let request = self.endless(SubscribeRequest { filters: filters.into() });
        let subscribing = client.subscribe(request);
        tokio::pin!(subscribing);
        loop {
            tokio::select! {
                answer = &mut subscribing => return Ok(answer.map_err(at("subscribe"))?.into_inner()),
                () = tokio::time::sleep(MARKER_EVERY) => self.publish_marker().await?,
            }
        }
    }

    async fn publish_marker(&self) -> Result<(), RuntimeError> {
        let event = Any { type_url: "google.protobuf.Empty".into(), value: Vec::new() };
        let request = PublishRequest { topic: MARKER_TOPIC.into(), event: Some(event) };
        EventsClient::new(self.channel.clone())
            .publish(self.request(request))
            .await
            .map_err(at("publish"))?;
        Ok(())
    }
}

/// The end of a container; ends of exec'd processes are somebody else's.
fn exit_of(envelope: &Envelope) -> Option<TaskEvent> {
    if envelope.topic != "/tasks/exit" {
        return None;
    }
    let exit = TaskExit::decode(envelope.event.as_ref()?.value.as_slice()).ok()?;
    (exit.id == exit.container_id).then(|| TaskEvent::Exit {
        code: exit.exit_status.try_into().unwrap_or(i32::MAX),
        at: exit.exited_at.as_ref().and_then(timestamp).unwrap_or_else(Timestamp::now),
        id: exit.container_id,
    })
}
